"""How long work reports: one callback that may also stop it."""

from typing import Protocol, runtime_checkable


@runtime_checkable
class Progress(Protocol):
    """Called after every unit of work with (units done, units in all, a short message).

    Work stops cleanly at that point when the callback raises `pare.errors.Cancelled`.
    """

    def __call__(self, done: int, total: int, message: str = "") -> None: ...


def silent(done: int, total: int, message: str = "") -> None:
    """Reports nothing and never cancels."""
