"""A range of a run's steps as people type it: first-last, both of them in it."""

from pare.errors import InputError


def step_range(text: str, count: int) -> tuple[int, int]:
    """The first and last step of `text` among `count` of them. Raises InputError for anything else.

    >>> step_range("1-3", 10), step_range("4", 10)
    ((1, 3), (4, 4))
    """
    first, _, last = text.partition("-")
    if all(part.isascii() and part.isdigit() and len(part) < 10 for part in (first, last or first)):
        low, high = int(first), int(last or first)
        if low <= high < count:
            return low, high
    raise InputError("--steps", got=text, expected=f"first-last within 0-{count - 1}", fix=f"--steps 0-{count - 1}")
