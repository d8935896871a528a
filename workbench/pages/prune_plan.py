"""What the selection's mask would keep and save: the plan behind the Prune page, computed at every change of a setting."""

from pathlib import Path
from typing import Any

import streamlit as st

from analysis.head_scores import HeadScores, head_scores
from analysis.runs import Run
from workbench.live_mask import LiveMask, live_mask
from workbench.mask_plan import MaskPlan, plan
from workbench.mask_settings import UNPROTECTED, MaskSettings
from workbench.mask_words import PARTS, span
from workbench.pages.data import open_run, stamp
from workbench.pages.kept import kept
from workbench.pages.score_data import run_scores
from workbench.state import Selection

LIVE_ARGUMENTS = ("alpha", "scorer", "allocation", "neurons", "branch")
"""The flags of `pare mask` that a live plan depends on; p and thresholds are what the browser moves."""


def mask_arguments(selection: Selection) -> dict[str, Any]:
    """The flags of `pare mask` that the selection decides.

    >>> mask_arguments(Selection(scorer="random", target="gib", target_value=16.0))["target_gib"]
    16.0
    """
    size = (
        {"ratio": selection.ratio}
        if selection.target is None
        else {f"target_{selection.target}": selection.target_value}
    )
    return size | {
        "tau_s": selection.tau_s,
        "tau_t": selection.tau_t,
        "alpha": None if selection.scorer in UNPROTECTED else selection.alpha,
        "scorer": selection.scorer,
        "allocation": selection.allocation,
        "neurons": selection.neurons,
        "branch": selection.branch,
    }


def planned(run: Run, selection: Selection) -> MaskPlan:
    """Heads that stay, counts, cost and flips at the selection's settings.

    Raises `InputError` for a run without what the scorer reads, and for a target that cannot be met.
    """
    return _planned(str(run.folder), stamp(run.folder), mask_arguments(selection))


@kept(st.cache_resource, max_entries=32)
def _planned(folder: str, when: tuple[int, ...], arguments: dict[str, Any]) -> MaskPlan:
    settings = MaskSettings.of(**arguments)
    return plan(open_run(Path(folder)), settings, scores=_scores(folder, when, settings.scorer, settings.branch))


def head_score_values(run: Run, selection: Selection) -> HeadScores:
    """The scores that heads are ranked by, before protection: {"self": [block, head], "cross": …}."""
    return _scores(str(run.folder), stamp(run.folder), selection.scorer, selection.branch)


def live_plan(run: Run, selection: Selection) -> LiveMask | None:
    """What a browser needs to follow the plan while p, α or a threshold moves; None where a head has no score."""
    given = {name: each for name, each in mask_arguments(selection).items() if name in LIVE_ARGUMENTS}
    return _live(str(run.folder), stamp(run.folder), given)


@kept(st.cache_resource, max_entries=16)
def _live(folder: str, when: tuple[int, ...], arguments: dict[str, Any]) -> LiveMask | None:
    settings = MaskSettings.of(**arguments)
    return live_mask(open_run(Path(folder)), settings, _scores(folder, when, settings.scorer, settings.branch))


@kept(st.cache_resource, max_entries=16)
def _scores(folder: str, when: tuple[int, ...], scorer: str, branch: str | None) -> HeadScores:
    run = open_run(Path(folder))
    return head_scores(scorer, run.geometry, run=run, branch=branch, read=run_scores)


def headline(run: Run, planned_mask: MaskPlan) -> str:
    """What the mask keeps and what that saves, in one sentence."""
    geometry, guess = run.geometry, planned_mask.predicted
    kept = planned_mask.counts.per_block(geometry.blocks)
    sizes = {"self_heads": geometry.heads, "cross_heads": geometry.heads, "neurons": geometry.ffn}
    # Where both kinds of heads keep alike they are one number, and neurons go unnamed where all stay.
    alike = kept["self_heads"] == kept["cross_heads"]
    names = {"self_heads": "heads" if alike else PARTS["self_heads"], "neurons": "neurons"}
    if not alike:
        names = {"self_heads": PARTS["self_heads"], "cross_heads": PARTS["cross_heads"], "neurons": "neurons"}
    words = [f"{span(kept[part])} of {sizes[part]:,} {name}" for part, name in names.items()]
    share = guess["parameters"] / guess["dense_parameters"]
    work = f" and {guess['flop_ratio']:.0%} of the operations" if "flop_ratio" in guess else ""
    return (
        f"p = {planned_mask.settings.ratio:.4g} keeps {', '.join(words[:-1])} and {words[-1]} in every block: "
        f"{share:.0%} of the parameters{work}."
    )
