"""What a comparison says in words: its one sentence, and its numbers with sign and interval. Pages and reports share it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.run_difference import RunDifference
from workbench.mask_words import PARTS
from workbench.model_card import ModelCard

FEW_PAIRS = 10
"""Below so many pairs the sentence says that its intervals are rough."""


def signed(value: float) -> str:
    """A difference with its sign, in three figures.

    >>> signed(0.123456), signed(-2e-7), signed(0.0), signed(float("nan"))
    ('+0.123', '−2e−07', '0', '–')
    """
    if value != value:
        return "–"
    return f"{value:+.3g}".replace("-", "−") if value else "0"


def interval(low: float, high: float) -> str:
    """An interval of a difference; a dash where there is none.

    >>> interval(-0.1, 0.2), interval(float("nan"), 1.0)
    ('−0.1 to +0.2', '–')
    """
    return "–" if low != low or high != high else f"{signed(low)} to {signed(high)}"


def runs_sentence(found: RunDifference, tau_s: float, tau_t: float) -> str:
    """How many heads differ and change role, in one sentence."""
    roles = len(found.role_changes(tau_s, tau_t))
    total = int((~np.isnan(found.difference)).sum())
    changes = f"{roles} of {total} heads change{'s' if roles == 1 else ''} role from A to B"
    known = int(np.isfinite(found.low).sum())
    if not known:
        return f"{changes}; without two prompts in both there are no intervals"
    clear, chance = int(found.clear.sum()), found.expected_by_chance
    if not np.nan_to_num(found.difference).any():
        return f"{changes}; both runs agree to rounding"
    return f"{changes}; the intervals of {clear} leave 0 out, about {chance:.2g} would by chance alone"


def samples_words(found: RunDifference) -> str:
    """What stands behind the numbers of two runs, in a few words."""
    count = int(found.n.max(initial=0))
    if not found.paired:
        return f"{count} samples or more of each run, unpaired"
    alone = [(side, number) for side, number in (("A", found.match.only_a), ("B", found.match.only_b)) if number]
    left = [f"{number} of {side} without a partner" for side, number in alone]
    prompts = f"{found.prompts} prompt{'s' if found.prompts != 1 else ''}"
    return f"{count} sample{'s' if count != 1 else ''} paired by prompt and seed, {prompts}" + "".join(
        f"; {each}" for each in left
    )


def masks_sentence(found: Mapping[str, Mapping[str, Any]]) -> str:
    """How many heads and neurons two masks disagree on.

    >>> each = {"both": 7, "only_a": 1, "only_b": 1, "overlap": 7 / 9}
    >>> masks_sentence({"self_heads": each, "cross_heads": {**each, "only_a": 0, "only_b": 0}, "neurons": each})
    'The masks decide otherwise on 2 self-attention heads, 0 cross-attention heads and 2 neurons'
    """
    counts = {part: each["only_a"] + each["only_b"] for part, each in found.items()}
    if not any(counts.values()):
        return "The masks keep the same heads and neurons"
    words = [f"{counts[part]:,} {name}" for part, name in PARTS.items()]
    return f"The masks decide otherwise on {', '.join(words[:-1])} and {words[-1]}"


def models_sentence(a: ModelCard, b: ModelCard) -> str:
    """How much smaller model B is."""
    share = b.parameters / a.parameters
    work = ""
    if a.active_flops and b.active_flops and a.clip == b.clip:
        step = f"{b.active_flops / a.active_flops:.0%}"
        work = f" and takes {step} of its operations a step"
        if a.video_flops and b.video_flops and (video := f"{b.video_flops / a.video_flops:.0%}") != step:
            work += f", {video} a video as each is sampled"
    return f"B ({b.name}) stores {share:.0%} of the parameters of A ({a.name}){work}"


def videos_sentence(effects: pd.DataFrame, pairs: int) -> str:
    """What differs most between two sets of videos, in one sentence.

    >>> videos_sentence(pd.DataFrame(columns=["clear", "title", "difference", "unit"]), 3)
    '3 pairs of videos, not scored yet'
    >>> clear = pd.DataFrame([{"clear": True, "title": "sharpness", "difference": 0.1, "unit": "0..1"}])
    >>> videos_sentence(clear, 12).partition(", ")[2]
    'most of all sharpness (+0.1 on 0..1)'
    >>> videos_sentence(clear, 2).partition("; ")[2]
    'intervals over so few are rough'
    >>> videos_sentence(pd.DataFrame([{"clear": False, "title": "flicker", "difference": 0.1, "unit": ""}]), 1)
    '1 pair of videos: one prompt does not tell a difference from chance'
    """
    count = f"{pairs} pair{'s' if pairs != 1 else ''} of videos"
    if effects.empty:
        return f"{count}, not scored yet"
    if pairs == 1:
        return f"{count}: one prompt does not tell a difference from chance"
    clear = effects[effects["clear"].astype(bool)]
    if clear.empty:
        return f"{count}: no metric differs by more than chance between prompts"
    first = clear.iloc[0]
    # A bootstrap of few prompts gives intervals that are too narrow.
    rough = "; intervals over so few are rough" if pairs < FEW_PAIRS else ""
    # "+0.03 0..1" would read as two numbers.
    scale = f"{'on ' if '..' in first['unit'] else ''}{first['unit']}"
    measured = f"{signed(first['difference'])} {scale}".strip()
    return (
        f"{count}: {len(clear)} of {len(effects)} metrics differ by more than chance between prompts, most of all "
        f"{first['title']} ({measured}){rough}"
    )


def differing(
    of_a: Mapping[str, Any], of_b: Mapping[str, Any], skipped: Sequence[str] = ()
) -> dict[str, tuple[Any, Any]]:
    """What is not alike in two mappings: name → (of A, of B), in their order.

    >>> differing({"steps": 20, "seed": 1}, {"steps": 4, "shift": 3.0}, skipped=("seed",))
    {'steps': (20, 4), 'shift': (None, 3.0)}
    """
    names = [name for name in dict.fromkeys([*of_a, *of_b]) if name not in skipped]
    return {name: (of_a.get(name), of_b.get(name)) for name in names if of_a.get(name) != of_b.get(name)}
