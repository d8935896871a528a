"""A report of a selection: one HTML file that opens offline."""
