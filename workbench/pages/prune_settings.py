"""The settings of the Prune page: how much to remove, how heads are ranked and protected, and what that saves."""

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from analysis.runs import Run
from pare import cost
from pare.geometry import Clip
from pare.width.heads import ALLOCATIONS
from workbench.components.mask_sliders.component import mask_sliders
from workbench.mask_plan import NEURON_SCORERS, MaskPlan
from workbench.pages.prune_plan import live_plan
from workbench.pages.shell import bind, choose
from workbench.plan import gibi
from workbench.state import ALPHA_RANGE, RATIO_RANGE, Selection

SIZES = {"ratio": "Ratio p", "parameters": "Parameters", "flops": "FLOPs", "gib": "GiB"}
SCORER_WORDS = {
    "pare": "PARE (Eq. 3)",
    "projected_energy": "projected energy",
    "temporal_attention": "1 − r, attention in time",
    "random": "random",
    "effect": "effect when off",
    "magnitude": "magnitude",
    "gate_gradient": "gate gradient",
    "gate_taylor": "gate Taylor",
    "integrated_gradients": "integrated gradients",
}
ALLOCATION_WORDS = {"uniform": "alike per block", "global": "over all blocks", "global-l2": "over all, scaled"}
NEURON_WORDS = {
    "pare": "PARE (Eq. 6, 7)",
    "activation": "by activation",
    "magnitude": "magnitude",
    "random": "random",
    "none": "keep all",
}
USUAL_ALPHA = 3.0
MASK_LINK = "mask"
"""What the sliders and the head grid of a page are linked by."""


def show_settings(
    run: Run, selection: Selection, planned: MaskPlan | None, *, scorer: str, scorers: Sequence[str]
) -> None:
    """Draw the controls; what they change becomes the selection. `scorer` is its word for what `selection` ranks by."""
    dense = dense_sizes(run)
    st.segmented_control(
        "Size by",
        list(SIZES),
        format_func=SIZES.__getitem__,
        required=True,
        width="stretch",
        **bind(
            "size_input",
            selection.target or "ratio",
            lambda now: sized_by(now, selection, dense, {} if planned is None else planned.predicted),
        ),
    )
    if selection.target is not None and selection.target_value is not None:
        _target_input(selection.target, selection.target_value, dense[selection.target])
    live = None if planned is None else live_plan(run, selection)
    if live is None or planned is None:
        _plain_sliders(selection)
    else:
        mask_sliders(
            live,
            # The link's p, or the one that the target gives.
            ratio=planned.settings.ratio,
            alpha=selection.alpha,
            thresholds=(selection.tau_s, selection.tau_t),
            ratio_range=RATIO_RANGE,
            alpha_range=ALPHA_RANGE,
            choose_ratio=selection.target is None,
            link=MASK_LINK,
            key="mask_sliders",
            on_change=lambda values: choose(**values),
        )
        show_memory(planned)
    ranking, allocation = st.columns(2)
    neurons, _ = st.columns(2)
    with ranking:
        st.selectbox(
            "Rank heads by",
            # A link may name one that is not there; the page says what is missing.
            [*scorers, *(each for each in (scorer,) if each not in scorers)],
            format_func=SCORER_WORDS.__getitem__,
            help="The first four need the run alone; the others are there once Evidence has answered whether scores predict what "
            "a head does. Tables of your own: pare mask --scorer FILE.",
            **bind("scorer_input", scorer, lambda now: {"scorer": now}),
        )
    with allocation:
        st.selectbox(
            "Keep heads",
            ALLOCATIONS,
            format_func=ALLOCATION_WORDS.__getitem__,
            help="Alike in every block, as PARE does, or one ranking over all blocks with a floor in each; "
            "scaled: scores of a block over their root sum of squares.",
            **bind("allocation_input", selection.allocation, lambda now: {"allocation": now}),
        )
    with neurons:
        st.selectbox(
            "Neurons",
            NEURON_SCORERS,
            format_func=NEURON_WORDS.__getitem__,
            help="How the neurons that stay are chosen once the mask is made; their number follows from p.",
            **bind("neurons_input", selection.neurons, lambda now: {"neurons": now}),
        )


def dense_sizes(run: Run) -> dict[str, float]:
    """Parameters, FLOPs per forward of the run's clip and GiB (bfloat16) of the whole model, by kind of target."""
    geometry, size = run.geometry, run.manifest.clip
    clip = Clip(size["height"], size["width"], size["frames"])
    return {
        "parameters": float(cost.parameters(geometry).total),
        "flops": float(cost.flops(geometry, clip).total),
        "gib": cost.memory(geometry, clip, bytes_per_value=2).total / 2**30,
    }


def sized_by(
    kind: str | None, selection: Selection, dense: Mapping[str, float], predicted: Mapping[str, Any]
) -> dict[str, Any]:
    """The fields after another kind of size was chosen: what is predicted now becomes the target, so nothing jumps.

    >>> sized_by("flops", Selection(), {"flops": 10.0}, {"flops": 7.0})
    {'target': 'flops', 'target_value': 7.0}
    >>> sized_by("ratio", Selection(target="flops", target_value=7.0), {}, {})
    {'target': None, 'target_value': None}
    """
    if kind is None or kind == (selection.target or "ratio"):
        return {}
    if kind == "ratio":
        return {"target": None, "target_value": None}
    names = {"parameters": "parameters", "flops": "flops", "gib": "memory_bytes"}
    now = predicted.get(names[kind])
    return {
        "target": kind,
        "target_value": _at_least(0.7 * dense[kind] if now is None else now / (2**30 if kind == "gib" else 1)),
    }


def _at_least(value: float) -> float:
    """The value in the six figures that a link keeps, not below it: a lower target would remove one more."""
    short = float(f"{value:.6g}")
    return short if short >= value else float(f"{value * 1.00001:.6g}")


def unit_of(kind: str, dense: float) -> tuple[float, str]:
    """A unit in which a size reads well, and its name.

    >>> unit_of("parameters", 14.3e9), unit_of("gib", 0.008)
    ((1000000000.0, 'B'), (0.0009765625, 'MiB'))
    """
    if kind == "parameters":
        return (1e9, "B") if dense >= 1e9 else (1e6, "M")
    if kind == "flops":
        return (1e12, "TFLOP") if dense >= 1e12 else (1e9, "GFLOP")
    return (1.0, "GiB") if dense >= 0.1 else (2.0**-10, "MiB")


def _target_input(kind: str, value: float, dense: float) -> None:
    scale, unit = unit_of(kind, dense)
    what = {"parameters": "Parameters", "flops": "FLOPs of one forward", "gib": "Weights and activations"}[kind]
    st.number_input(
        f"{what}, at most ({unit})",
        min_value=dense / scale / 1000,
        max_value=max(dense, value) / scale,
        step=dense / scale / 50,
        format="%.4g",
        help="The smallest p that comes down to this is found.",
        **bind("target_input", value / scale, lambda now: {"target_value": now * scale}),
    )


def _plain_sliders(selection: Selection) -> None:
    """p and α alone, where nothing can be predicted: one of them may be what has to change."""
    if selection.target is None:
        st.slider(
            "Pruning ratio p",
            *RATIO_RANGE,
            step=0.01,
            **bind("ratio_input", selection.ratio, lambda now: {"ratio": now}),
        )
    st.slider(
        "Protection α",
        ALPHA_RANGE[0],
        max(USUAL_ALPHA, selection.alpha),
        step=0.05,
        **bind("alpha_input", selection.alpha, lambda now: {"alpha": now}),
    )


def show_memory(planned: MaskPlan) -> None:
    """Memory of one forward, dense and pruned, which is no sum over heads and so follows at the release."""
    guess = planned.predicted
    if "clip" in guess:
        clip, before, after = guess["clip"], guess["dense_memory_bytes"], guess["memory_bytes"]
        st.caption(
            f"For {clip['frames']} video frames of {clip['height']} × {clip['width']}. Weights and activations, "
            f"{guess['dtype']}: {gibi(after)} of {gibi(before)}."
        )
