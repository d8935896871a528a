"""What the head grid says back to Python, checked before anything uses it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

# The handles never come closer than this; the browser's model.js holds the same number.
MIN_GAP = 0.01


@dataclass(frozen=True)
class HeadGridValue:
    """Thresholds (0 <= tau_t <= tau_s <= 1) and the pinned head (zero-based block and head, or None and None)."""

    tau_s: float
    tau_t: float
    block: int | None = None
    head: int | None = None


def parse_value(raw: object, blocks: int, heads: int, fallback: HeadGridValue) -> HeadGridValue:
    """The value that a browser's message stands for; whatever is missing or wrong in it is taken from `fallback`.

    `raw` may hold "thresholds": [τs, τt] and "cell": [block, head]. Thresholds count only as a pair in order and at
    least MIN_GAP apart, cells only inside `blocks` × `heads`. Never raises: the browser's side is not trusted.

    >>> parse_value({"cell": [3, 7]}, 8, 10, HeadGridValue(0.7, 0.3))
    HeadGridValue(tau_s=0.7, tau_t=0.3, block=3, head=7)
    >>> parse_value({"thresholds": [0.2, 0.6], "cell": [8, 0]}, 8, 10, HeadGridValue(0.7, 0.3))
    HeadGridValue(tau_s=0.7, tau_t=0.3, block=None, head=None)
    """
    if not isinstance(raw, Mapping):
        return fallback
    value = fallback
    if (thresholds := _pair(raw.get("thresholds"))) is not None:
        tau_s, tau_t = (round(float(number), 6) for number in thresholds)
        # 1e-9: a gap of exactly MIN_GAP must survive the rounding of its two ends.
        if tau_t >= 0.0 and tau_s <= 1.0 and tau_s - tau_t >= MIN_GAP - 1e-9:
            value = replace(value, tau_s=tau_s, tau_t=tau_t)
    if (cell := _pair(raw.get("cell"))) is not None and all(float(number).is_integer() for number in cell):
        block, head = int(cell[0]), int(cell[1])
        if 0 <= block < blocks and 0 <= head < heads:
            value = replace(value, block=block, head=head)
    return value


def whole_message(raw: object) -> object:
    """Thresholds and cell of one or two messages, each of which holds both; a part comes first from its own message.

    >>> whole_message({"cell": {"thresholds": [0.6, 0.2], "cell": [3, 7]}})
    {'thresholds': [0.6, 0.2], 'cell': [3, 7]}
    """
    if not isinstance(raw, Mapping):
        return raw
    messages = {name: raw.get(name) for name in ("thresholds", "cell")}
    found = {}
    for name in messages:
        holders = (messages[name], *messages.values())
        found[name] = next((each.get(name) for each in holders if isinstance(each, Mapping)), None)
    return found


def _pair(raw: Any) -> tuple[float, float] | None:
    if not isinstance(raw, (list, tuple)) or len(raw) != 2:
        return None
    if any(isinstance(number, bool) or not isinstance(number, (int, float)) for number in raw):
        return None
    try:
        finite = all(math.isfinite(number) for number in raw)
    except OverflowError:  # an integer too large for a float
        return None
    return (raw[0], raw[1]) if finite else None
