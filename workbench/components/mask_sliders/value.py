"""What the mask's sliders say back to Python, checked before anything uses it."""

import math
from collections.abc import Mapping
from typing import Any


def parse_mask(raw: Any, ratio_range: tuple[float, float], alpha_range: tuple[float, float]) -> dict[str, float]:
    """The `ratio` p and the protection `alpha` that a browser's message holds; what is wrong or missing is left out.

    >>> parse_mask({"mask": {"ratio": 0.4, "alpha": 200}}, (0.01, 0.99), (1, 100))
    {'ratio': 0.4}
    >>> parse_mask({"mask": "0.4"}, (0.01, 0.99), (1, 100))
    {}
    """
    message = raw.get("mask") if hasattr(raw, "get") else None
    if not isinstance(message, Mapping):
        return {}
    found = {}
    for name, (low, high) in (("ratio", ratio_range), ("alpha", alpha_range)):
        value = message.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        if math.isfinite(value) and low <= value <= high:
            found[name] = float(value)
    return found
