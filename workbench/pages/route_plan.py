"""What a run's router decided, what it would decide at another budget or by hand, and what that costs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st

from analysis.block_values import LENSES, block_importance
from analysis.route_variation import RouteVariation, route_variation
from analysis.routes import NAME, PARTS, has_routes, route_array
from analysis.runs import Run
from pare import cost, reference
from pare.depth.budget import BudgetSchedule, fewest, shifted_timesteps
from pare.depth.costs import CostTable
from pare.depth.decision import Redecision, redecide, scores_at
from pare.depth.table import DecisionTable
from pare.errors import InputError
from pare.geometry import Clip
from workbench.pages.data import stamp
from workbench.pages.kept import kept
from workbench.pages.run_model import model_of
from workbench.places import Places
from workbench.state import Selection


@dataclass(frozen=True, eq=False)
class Decisions:
    """`scores`, `ran` and `distance` [sample, step, block] at `timesteps` [step] of these samples of a run.

    `recorded`: a router made them. Otherwise they are what an importance router would decide from the run's block
    norms, the same for every sample, so that there is one row; `variation` is None then.
    """

    samples: tuple[int, ...]
    timesteps: np.ndarray
    scores: np.ndarray
    ran: np.ndarray
    distance: np.ndarray
    recorded: bool
    variation: RouteVariation | None = None

    @property
    def blocks(self) -> int:
        """Blocks of the model."""
        return self.scores.shape[2]

    def row(self, sample: int | None) -> int:
        """Where this sample's decisions are; the first ones for a sample without any."""
        return self.samples.index(sample) if sample in self.samples else 0


@dataclass(frozen=True, eq=False)
class RoutePlan:
    """The decisions of one sample that would run next: at `budget` (None: as they were made), with `edited` cells turned.

    `ran`, `edited` and `distance` are [step, block]. Predicted for a video of `steps` steps: `mean_count` blocks a step,
    `share` of the block FLOPs, `flops` of the blocks with all forwards, `seconds` where a cost table is known. `steps_at`
    [step]: how many of the video's steps are nearest to each step that is shown.
    """

    budget: BudgetSchedule | None
    ran: np.ndarray
    edited: np.ndarray
    distance: np.ndarray
    table: DecisionTable
    steps: int
    steps_at: np.ndarray
    mean_count: float
    share: float
    flops: float
    seconds: float | None

    @property
    def changed(self) -> int:
        """How many decisions were turned over by hand."""
        return int(self.edited.sum())


def decisions_of(run: Run) -> Decisions | None:
    """What a run has to show: recorded decisions, else an importance router's; None for a run without block norms."""
    if has_routes(run):
        return _recorded(run, str(run.folder), routes_stamp(run))
    if set(LENSES["residual"].needs) <= set(run.statistics):
        return _by_importance(run, str(run.folder), stamp(run.folder))
    return None


def routes_stamp(run: Run) -> tuple[int, ...]:
    """Changes whenever the run or its decisions do."""
    paths = [run.folder / NAME, run.folder / PARTS]
    return (*stamp(run.folder), *(path.stat().st_mtime_ns for path in paths if path.exists()))


@kept(st.cache_resource, max_entries=4)
def _recorded(_run: Run, folder: str, when: tuple[int, ...]) -> Decisions:
    routes = _run.routes()
    if routes.empty:
        raise InputError(
            folder, got="decisions of no finished sample", expected="at least one sample", fix="pare route … --resume"
        )
    samples = tuple(int(each) for each in sorted(routes["sample"].unique()))
    scores, ran, distance, timesteps = (route_array(routes, name) for name in ("score", "ran", "distance", "timestep"))
    if scores.shape[2] != _run.geometry.blocks:
        raise InputError(
            folder, got=f"decisions on {scores.shape[2]} blocks", expected=f"{_run.geometry.blocks}", fix="record again"
        )
    return Decisions(samples, timesteps[0, :, 0], scores, ran.astype(bool), distance, True, route_variation(routes))


@kept(st.cache_resource, max_entries=4)
def _by_importance(_run: Run, folder: str, when: tuple[int, ...]) -> Decisions:
    timesteps, importance = _importance(_run)
    order = np.argsort(-timesteps, kind="stable")
    timesteps, scores = timesteps[order], importance[order][None]
    again = redecide(scores, BudgetSchedule.paper(scores.shape[2]), timesteps=timesteps)
    return Decisions(_run.finished[:1], timesteps, scores, again.ran, again.distance, False)


def _importance(run: Run) -> tuple[np.ndarray, np.ndarray]:
    timesteps, importance = block_importance(run)
    if np.isnan(importance).any() or not len(importance):
        raise InputError(
            str(run.folder),
            got="block norms that are missing",
            expected="every block at every step",
            fix="capture the dense model",
        )
    return timesteps, importance


def budget_of(run: Run, decisions: Decisions, selection: Selection) -> BudgetSchedule | None:
    """The budget that was chosen; None where nothing was, and the decisions stand as they were made."""
    if selection.k_min is None and selection.k_max is None:
        return None
    low, high = bounds(run, decisions, selection)
    return BudgetSchedule.linear(low, high)


def bounds(run: Run, decisions: Decisions, selection: Selection) -> tuple[int, int]:
    """K_min and K_max that are chosen, else those of the recorded budget, else the paper's in proportion."""
    blocks, least = decisions.blocks, fewest(decisions.blocks)
    usual = BudgetSchedule.paper(blocks)
    recorded = (run.manifest.settings.get("routing") or {}).get("budget") if decisions.recorded else None
    if recorded is not None:
        usual = BudgetSchedule.from_dict(recorded)
    low = round(usual.k_min) if selection.k_min is None else selection.k_min
    high = round(usual.k_max) if selection.k_max is None else selection.k_max
    low, high = (min(low, high), high) if selection.k_min is None else (low, max(low, high))
    return min(max(low, least), blocks), min(max(high, least), blocks)


def route_plan(run: Run, decisions: Decisions, selection: Selection, model: str, costs: CostTable | None) -> RoutePlan:
    """Decide again from the stored scores, without running the model, and turn the edited cells over; `model` has its widths."""
    row, blocks = decisions.row(selection.sample), decisions.blocks
    budget = budget_of(run, decisions, selection)
    ran, distance = decisions.ran[row], decisions.distance[row]
    if budget is not None:
        again = redecide(decisions.scores[row], budget, timesteps=decisions.timesteps)
        ran, distance = again.ran, again.distance
    edited = np.zeros(ran.shape, bool)
    for step, block in selection.edits:
        # A link may name steps that this run's table lacks.
        if step < ran.shape[0] and 0 < block < blocks - 1:
            edited[step, block] = True
    now = ran ^ edited
    about = {"from": run.folder.name, "sample": decisions.samples[row] if decisions.recorded else None}
    table = DecisionTable(tuple(float(t) for t in decisions.timesteps), now, decisions.scores[row], about)
    timesteps = sampler_timesteps(run, decisions)
    executed = _executed(run, decisions, table, budget, timesteps, by_table=decisions.recorded or bool(edited.any()))
    per_block, forwards = block_flops(run, model), 2 if (run.manifest.settings.get("guidance") or 0) > 1 else 1
    return RoutePlan(
        budget=budget,
        ran=now,
        edited=edited,
        distance=np.where(edited, np.nan, distance),
        table=table,
        steps=len(timesteps),
        steps_at=np.bincount([table.at(float(t)) for t in timesteps], minlength=len(now)),
        mean_count=float(executed.sum(axis=1).mean()),
        share=float((executed * per_block).sum() / (per_block.sum() * len(timesteps))),
        flops=float((executed * per_block).sum() * forwards),
        seconds=None
        if costs is None
        else costs.seconds(blocks_run=int(executed.sum()), steps=len(timesteps), forwards=forwards),
    )


def sampler_timesteps(run: Run, decisions: Decisions) -> np.ndarray:
    """The timesteps of a video: the recorded ones, or the sampler's of the run's settings for a calibration run."""
    if decisions.recorded or run.manifest.mode == "trajectory":
        return decisions.timesteps
    settings = run.manifest.settings
    return np.array(shifted_timesteps(int(settings.get("steps") or 20), float(settings.get("shift") or 1.0)))


def _executed(
    run: Run,
    decisions: Decisions,
    table: DecisionTable,
    budget: BudgetSchedule | None,
    timesteps: np.ndarray,
    *,
    by_table: bool,
) -> np.ndarray:
    """Which blocks run at the sampler's timesteps [step, block]: the table's nearest row, or decided at each."""
    if by_table:
        return table.ran[[table.at(float(t)) for t in timesteps]]
    # Scored in between exactly as `--router importance` does; decisions are kept with falling timesteps.
    scores = scores_at(timesteps, decisions.timesteps[::-1], decisions.scores[0][::-1])
    again: Redecision = redecide(scores, budget or BudgetSchedule.paper(decisions.blocks), timesteps=timesteps)
    return again.ran


def block_flops(run: Run, model: str) -> np.ndarray:
    """Operations of every block in one forward; with the widths of a pruned model where its config is at hand."""
    return _block_flops(run, model, str(run.folder))


@kept(st.cache_data, max_entries=16)
def _block_flops(_run: Run, model: str, folder: str) -> np.ndarray:
    try:
        reference.weights_folder(model)
        kept: dict[str, Any] = reference.cost_arguments(model)
    except InputError:
        kept = {}
    size, blocks = _run.manifest.clip, _run.geometry.blocks
    clip = Clip(size["height"], size["width"], size["frames"])
    return np.array(
        [
            cost.flops(_run.geometry, clip, blocks_run=[index == block for index in range(blocks)], **kept).total
            for block in range(blocks)
        ]
    )


def cost_table(places: Places, run: Run) -> CostTable | None:
    """A measured table for this model and clip: beside the run, or in the workspace; None where there is none."""
    size = run.manifest.clip
    models = {run.model_id, model_of(run, places)}
    wanted = {name: size[name] for name in ("height", "width", "frames")}
    for folder in (run.folder, places.workspace):
        for path in sorted(folder.glob("*.json")) if folder.is_dir() else []:
            table = _cost_table(str(path), path.stat().st_mtime_ns)
            if table is None or table.blocks != run.geometry.blocks:
                continue
            alike = all(table.about.get(name) == value for name, value in wanted.items())
            if alike and table.about.get("model") in models:
                return table
    return None


@kept(st.cache_data, max_entries=64)
def _cost_table(path: str, stamp: int) -> CostTable | None:
    try:
        return CostTable.load(Path(path))
    except InputError:
        return None


def turned(edits: tuple[tuple[int, int], ...], step: int, block: int) -> tuple[tuple[int, int], ...]:
    """The edits after one more click: a cell that was turned over turns back.

    >>> turned(((2, 3),), 1, 4), turned(((1, 4), (2, 3)), 1, 4)
    (((1, 4), (2, 3)), ((2, 3),))
    """
    return tuple(sorted({*edits} ^ {(step, block)}))
