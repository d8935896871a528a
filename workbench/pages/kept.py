"""What pages keep between runs of their scripts, told apart by how plain arguments read."""

from collections.abc import Callable
from dataclasses import is_dataclass
from functools import update_wrapper
from inspect import signature
from pathlib import Path
from typing import Any, Generic, ParamSpec, TypeVar, cast

Given = ParamSpec("Given")
Found = TypeVar("Found")
PLAIN = (str, int, float, tuple, list, dict, Path, type(None))


class Kept(Generic[Given, Found]):
    """A function of plain positional arguments whose results are kept; see `kept`, which makes it."""

    def __init__(self, function: Callable[Given, Found], cache: Any, settings: dict[str, Any]):
        given = cast(Callable[..., Found], function)

        def work(key: str, _given: tuple[Any, ...]) -> Found:
            return given(*_given)

        # Streamlit tells functions apart by these names.
        work.__module__, work.__qualname__, work.__name__ = (
            function.__module__,
            function.__qualname__,
            function.__name__,
        )
        # Asked for with every argument of every call, and worked out anew each time unless it is there.
        work.__signature__ = signature(work)  # type: ignore[attr-defined]
        self._held = cache(show_spinner=False, **settings)(work)
        self._counted = [not name.startswith("_") for name in signature(function).parameters]
        self._code = hash(function.__code__)
        update_wrapper(self, function)

    def __call__(self, *given: Given.args, **named: Given.kwargs) -> Found:
        """The result, worked out at the first call with these arguments. TypeError for one that does not tell itself."""
        if named:
            raise TypeError(f"arguments by name: {', '.join(named)}")
        told = [one for one, counts in zip(given, self._counted, strict=True) if counts]
        for one in told:
            if not isinstance(one, PLAIN) and not is_dataclass(one):
                raise TypeError(f"a {type(one).__name__} does not read as what it is")
        return cast(Found, self._held(f"{self._code} {told!r}", given))

    def clear(self) -> None:
        """Forget every result."""
        self._held.clear()


def kept(cache: Any, **settings: Any) -> Callable[[Callable[Given, Found]], Kept[Given, Found]]:
    """`cache`, which is `st.cache_data` or `st.cache_resource`, for functions of a module and of plain positional
    arguments.

    Streamlit makes a key of every argument and of its name, which takes five times as long for six of them as the one text
    that stands for all here. Arguments whose names begin with _ do not count, as there; `settings` are those of `cache`.

    >>> import streamlit as st
    >>> @kept(st.cache_data, max_entries=2)
    ... def double(number: int) -> int:
    ...     print("worked out")
    ...     return 2 * number
    >>> double(2), double(2), double(3)
    worked out
    worked out
    (4, 4, 6)
    """

    def decorate(function: Callable[Given, Found]) -> Kept[Given, Found]:
        return Kept(function, cache, settings)

    return decorate
