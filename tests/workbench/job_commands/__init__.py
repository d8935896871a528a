"""Commands for the tests of jobs: real processes, no model."""
