"""A command that runs a model, as far as its signature goes."""

from collections.abc import Callable
from typing import Any

from pare.progress import Progress, silent


def recall(model: str, *, load: Callable[..., Any], progress: Progress = silent, **settings: Any) -> dict[str, Any]:
    """Returns what it was given."""
    return {"model": model, "settings": settings}
