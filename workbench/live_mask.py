"""What a browser needs to follow a mask by itself while p, α or a threshold is dragged: scores, ratios, costs of units."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from analysis.head_scores import HeadScores
from analysis.importance import mean_ratio
from analysis.runs import Run
from pare.geometry import Clip
from pare.width.heads import default_min_heads, normalised
from pare.width.neuron_count import neuron_multiple
from pare.width.unit_cost import unit_costs
from workbench.mask_settings import MaskSettings

TITLES = {"parameters": "Parameters", "block_parameters": "in blocks", "flops": "FLOPs per forward"}


@dataclass(frozen=True, eq=False)
class LiveMask:
    """What decides a mask but for p, α and the thresholds.

    `columns` have one row per head (row = block · heads + head): `score`, comparable across blocks where heads are
    allocated so, `cross`, that of the cross-attention head, and `ratio` r over all samples and steps, absent in a run
    without ratios. `floor` is K_min, `multiple` what neurons are aligned to; `costs` are `unit_costs` with titles.
    """

    columns: dict[str, np.ndarray]
    blocks: int
    heads: int
    floor: int
    neurons: int
    multiple: int
    allocation: str
    prune_neurons: bool
    protects: bool
    costs: list[dict[str, Any]]


def live_mask(run: Run, settings: MaskSettings, scores: HeadScores) -> LiveMask | None:
    """The inputs of the mask that `workbench.mask_plan.plan` would choose for this run; None where a score is missing.

    `scores` are those of the settings' scorer, before protection. p, α and thresholds of the settings are not used.
    """
    geometry, size = run.geometry, run.manifest.clip
    ranked = {
        name: normalised(scores.values[kind]) if settings.allocation == "global-l2" else np.asarray(scores.values[kind])
        for name, kind in (("score", "self"), ("cross", "cross"))
    }
    if any(np.isnan(values).any() for values in ranked.values()):
        return None
    columns = {name: np.asarray(values, float).ravel() for name, values in ranked.items()}
    if "self/ratio" in run.statistics:
        columns["ratio"] = mean_ratio(run, settings.branch).ravel()
    clip = Clip(size["height"], size["width"], size["frames"])
    heads = geometry.blocks * geometry.heads
    costs = [
        {
            "name": name,
            "title": TITLES[name],
            **asdict(cost),
            "dense": cost.of(heads, heads, geometry.blocks * geometry.ffn),
        }
        for name, cost in unit_costs(geometry, clip).items()
    ]
    floor = default_min_heads(geometry.heads) if settings.min_heads is None else settings.min_heads
    multiple = min(neuron_multiple(geometry.ffn), geometry.ffn)
    return LiveMask(
        columns=columns,
        blocks=geometry.blocks,
        heads=geometry.heads,
        floor=floor,
        neurons=geometry.ffn,
        multiple=multiple if settings.neuron_multiple is None else settings.neuron_multiple,
        allocation=settings.allocation,
        prune_neurons=settings.neurons != "none",
        # Without an α of its own a scorer that is not protected has 1.
        protects=settings.alpha is not None or settings.protection != 1,
        costs=costs,
    )
