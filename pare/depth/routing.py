"""One decision per denoising step: scores from a router, K from a budget, kept for both guidance branches of the step."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from pare.depth.budget import BudgetSchedule
from pare.depth.decision import choose_blocks, distance_to_flip
from pare.depth.gate import relative_scores, straight_through
from pare.depth.routers import Router
from pare.errors import InputError


@dataclass(frozen=True)
class RoutingConfig:
    """Which blocks run, and how many: a router (None: the model's own learned one) and a budget.

    Without a budget the router's own holds (a decision table, a list of blocks), else the model's, else the paper's 20
    to 35 of 40 in proportion. `dense` runs every block and multiplies its change by the gate of Eq. 11, which is how a
    router is trained; otherwise a skipped block is not called. With `relative` the gate's gradient is that of a score over
    the others' mean (`pare.depth.gate.relative_scores`); what runs is the same.
    """

    router: Router | None = None
    budget: BudgetSchedule | None = None
    dense: bool = False
    relative: bool = False


@dataclass(frozen=True, eq=False)
class StepRoute:
    """What was decided at one step: `scores`, `ran` and `distance` to the flip [batch, blocks], the rest [batch].

    `asked` is the share of blocks before rounding, K(t)/N, `achieved` the share that ran; `milliseconds` what the
    decision took, the router and its one transfer to the host, for the whole batch.
    """

    step: int
    timestep: np.ndarray
    scores: np.ndarray
    ran: np.ndarray
    distance: np.ndarray
    asked: np.ndarray
    achieved: np.ndarray
    milliseconds: float

    @property
    def blocks_run(self) -> np.ndarray:
        """K [batch]."""
        return self.ran.sum(axis=1)

    @property
    def unanimous(self) -> bool:
        """Whether all samples of the batch run the same blocks."""
        return bool((self.ran == self.ran[:1]).all())

    def to_dict(self) -> dict[str, Any]:
        """As JSON values; a distance that does not exist is None."""
        return {
            "step": self.step,
            "timestep": self.timestep.tolist(),
            "blocks_run": self.blocks_run.tolist(),
            "ran": self.ran.tolist(),
            "scores": self.scores.tolist(),
            "distance": [[None if np.isnan(each) else each for each in row] for row in self.distance.tolist()],
            "asked": self.asked.tolist(),
            "achieved": self.achieved.tolist(),
            "milliseconds": self.milliseconds,
        }


@dataclass(frozen=True, eq=False)
class Route:
    """A decision ready to be carried out; `gate` [batch, blocks] where blocks are gated instead of skipped."""

    record: StepRoute
    gate: torch.Tensor | None = None

    def rows(self, device: torch.device) -> Iterator[torch.Tensor | bool]:
        """Block by block: True for all samples of the batch, False for none, else the indices of those it runs for."""
        ran = self.record.ran
        if self.record.unanimous:
            yield from ran[0].tolist()
            return
        # One transfer for all blocks, which does not wait for the device.
        active = [np.flatnonzero(column) for column in ran.T]
        packed = torch.from_numpy(np.concatenate(active)).to(device, non_blocking=True)
        for indices, part in zip(active, packed.split([len(each) for each in active]), strict=True):
            yield part if 0 < len(indices) < len(ran) else len(indices) > 0


class Routing:
    """Decides step by step; remembers the decision of the current step, and the log of the current generation."""

    def __init__(
        self, router: Router, budget: BudgetSchedule, blocks: int, *, dense: bool = False, relative: bool = False
    ):
        if router.blocks != blocks:
            raise InputError(
                "router",
                got=f"scores of {router.blocks} blocks",
                expected=f"{blocks}, as many as the model has",
                fix="a router made for this model",
            )
        self.router, self.blocks, self.dense, self.relative = router, blocks, dense, relative
        self.log: list[StepRoute] = []
        self._current: Route | None = None
        self._announced: int | None = None
        self._branches: set[str] = set()
        self._ended = False
        self.set_budget(budget)

    def set_budget(self, budget: BudgetSchedule) -> None:
        """From the next step on, this budget holds. Raises InputError for one that the model cannot keep."""
        budget.check(self.blocks)
        self.budget = budget

    def end(self) -> None:
        """The generation is over: forget the decision. Its log stays until the next one begins."""
        self._current, self._announced, self._ended = None, None, True
        self._branches.clear()

    def known(self, branch: str | None, announced: int | None, batch: int) -> Route | None:
        """The decision of the current step, where this pass is another branch of it; None where one must be made.

        `branch` and `announced`, the step's index, are what the pipeline says of the pass, None where it says nothing.
        """
        same = self._current is not None and branch is not None and branch not in self._branches
        if not same or announced != self._announced or len(self._current.record.ran) != batch:  # type: ignore[union-attr]
            return None
        assert branch is not None
        self._branches.add(branch)
        return self._current

    def decide(
        self,
        timestep: torch.Tensor,
        latents: torch.Tensor,
        image: torch.Tensor | None = None,
        branch: str | None = None,
        announced: int | None = None,
    ) -> Route:
        """Decide a step anew; `timestep` [batch] of 0..1000, `latents` [batch, channels, frames, height, width].

        One transfer to the host: of the timestep for a router that works there, else of timestep and scores together.
        """
        watch = _Watch(latents.device)
        if self.router.on_host:
            timestep = timestep.cpu()
        with torch.set_grad_enabled(self.dense and torch.is_grad_enabled()):
            scores = self.router(timestep, latents, image)
        together = torch.cat([timestep[:, None].to(scores.device, torch.float64), scores.detach().double()], dim=1)
        host = together.cpu().numpy()
        milliseconds = watch.stop()
        begin = time.perf_counter()
        t, values = host[:, 0], host[:, 1:]
        step = self._step(float(t.max()), branch, announced)
        asked = np.array([self.budget.asked(each, step) for each in t])
        counts = np.array([self.budget.count(each, step, self.blocks) for each in t])
        ran = choose_blocks(values, counts)
        distance = distance_to_flip(values, ran)
        milliseconds += 1000 * (time.perf_counter() - begin)
        record = StepRoute(
            step, t, values, ran, distance, asked / self.blocks, ran.mean(axis=1), round(milliseconds, 4)
        )
        gate = None
        if self.dense:
            device = latents.device
            scores = scores.to(device, torch.float32)
            gate = straight_through(
                relative_scores(scores) if self.relative else scores, torch.from_numpy(ran).to(device)
            )
        self._current, self._announced = Route(record, gate), announced
        self._branches = set() if branch is None else {branch}
        self.log.append(record)
        return self._current

    def _step(self, timestep: int | float, branch: str | None, announced: int | None) -> int:
        """Index of the step that is decided; begins the log of a new generation."""
        last = self.log[-1] if self.log else None
        if last is None or self._ended:
            begins = True
        elif announced is not None:
            begins = announced <= last.step
        else:
            before = float(last.timestep.max())
            begins = timestep > before or (branch is not None and timestep == before)
            if timestep == before and branch is None:
                # Nobody says which pass this is: perhaps another branch of the step, decided again.
                return self.log.pop().step
        self._ended = False
        if begins:
            self.log.clear()
        if announced is not None:
            return announced
        return 0 if last is None or begins else last.step + 1


class _Watch:
    """Milliseconds of what is queued on a device between start and stop, without what was queued before."""

    def __init__(self, device: torch.device):
        self.events: tuple[Any, Any] | None = None
        if device.type == "cuda":
            self.events = (torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True))
            self.events[0].record()
        self.start = time.perf_counter()

    def stop(self) -> float:
        if self.events is None:
            return 1000 * (time.perf_counter() - self.start)
        self.events[1].record()
        # The scores have just arrived on the host, so this waits for nothing.
        self.events[1].synchronize()
        return self.events[0].elapsed_time(self.events[1])
