"""The one error for bad input: a single line that says what, got, expected, fix."""


class InputError(ValueError):
    """Bad input, in one line; the command line prints it and exits with 2.

    Args: what was read (a flag, a file, a field), what it held, what would have been right, and what to do about it.

    >>> print(InputError("--ratio", got="1.5", expected="a number between 0 and 1", fix="for example --ratio 0.3"))
    --ratio: got 1.5; expected a number between 0 and 1; fix: for example --ratio 0.3
    """

    def __init__(self, what: str, *, got: object, expected: str, fix: str):
        self.what, self.got, self.expected, self.fix = what, str(got), expected, fix
        super().__init__(" ".join(f"{what}: got {got}; expected {expected}; fix: {fix}".split()))


class Cancelled(Exception):
    """Raised from a progress callback to stop long work at the next step; the command line exits with 130."""
