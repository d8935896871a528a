"""Routers without training: scores of blocks from the timestep alone, by one protocol."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Real

from pare.depth.budget import BudgetSchedule, Numbers
from pare.depth.decision import scores_at
from pare.depth.table import DecisionTable
from pare.errors import InputError


@runtime_checkable
class Router(Protocol):
    """Scores blocks once per step: the higher, the sooner a block runs.

    Called with the timestep t [batch] of 0..1000, the noisy latents [batch, channels, frames, height, width] and, for a
    model with an image encoder, its class token [batch, width]; returns scores [batch, blocks]. A router that works on
    the host says so: it is given the timestep there and no tensor of the device is waited for but that.
    """

    blocks: int
    on_host: bool
    name: str

    def __call__(
        self, timestep: torch.Tensor, latents: torch.Tensor, image: torch.Tensor | None = None
    ) -> torch.Tensor: ...


class ImportanceRouter:
    """Scores by importance [steps, blocks] measured at `timesteps` [steps], linear in between; nothing is trained.

    Any measure of what a block contributes will do; `analysis.block_values.block_values(run).cells()` has the relative
    change ‖B(x) − x‖/‖x‖ of a captured run. Raises InputError for values that are missing.

    >>> router = ImportanceRouter([900.0, 100.0], np.array([[1.0, 2.0], [3.0, 6.0]]))
    >>> router(torch.tensor([500.0]), torch.zeros(1, 1, 1, 1, 1)).tolist()
    [[2.0, 4.0]]
    """

    on_host = True
    name = "importance"

    def __init__(self, timesteps: Numbers, importance: np.ndarray):
        values = np.asarray(importance, float)
        if values.ndim != 2 or len(values) != len(timesteps) or not len(values):
            raise InputError(
                "importance",
                got=f"shape {values.shape} for {len(timesteps)} timesteps",
                expected="[steps, blocks]",
                fix="one row per timestep",
            )
        if np.isnan(values).any():
            step, block = np.argwhere(np.isnan(values))[0]
            raise InputError(
                "importance",
                got=f"none for block {block} at timestep {float(timesteps[step]):g}",
                expected="a value for every block",
                fix="use a run of the dense model",
            )
        order = np.argsort(np.asarray(timesteps, float))
        self.timesteps, self.importance = np.asarray(timesteps, float)[order], values[order]
        self.blocks = values.shape[1]

    def __call__(
        self,
        timestep: Real[torch.Tensor, "batch"],
        latents: Float[torch.Tensor, "batch channels frames height width"],
        image: Float[torch.Tensor, "batch image_width"] | None = None,
    ) -> Float[torch.Tensor, "batch blocks"]:
        """Scores [batch, blocks] by linear interpolation; outside of the measured timesteps the nearest one's."""
        return torch.from_numpy(scores_at(timestep.double().cpu().numpy(), self.timesteps, self.importance))


class StaticRouter:
    """The same scores [blocks] at every timestep, so that a smaller budget runs a part of what a larger one runs.

    >>> router = StaticRouter.of_blocks([0, 3, 4], blocks=5)
    >>> router.scores.tolist()
    [1.0, 0.0, 0.0, 1.0, 1.0]
    """

    on_host = True
    name = "static"

    def __init__(self, scores: Numbers):
        self.scores = np.asarray(scores, float)
        if self.scores.ndim != 1 or np.isnan(self.scores).any():
            raise InputError("static router", got="scores that are missing", expected="one per block", fix="give all")
        self.blocks = len(self.scores)

    @classmethod
    def of_blocks(cls, kept: Sequence[int], blocks: int) -> "StaticRouter":
        """A fixed list of blocks, as in block pruning; `budget` is what runs exactly these."""
        if not all(0 <= block < blocks for block in kept) or not {0, blocks - 1} <= set(kept):
            raise InputError(
                "static router",
                got=f"blocks {sorted(kept)}",
                expected=f"indices of 0 to {blocks - 1} with the first and the last",
                fix="add them",
            )
        return cls([float(block in set(kept)) for block in range(blocks)])

    @property
    def budget(self) -> BudgetSchedule | None:
        """As many blocks as the list has; None for a ranking, which goes with any budget."""
        listed = set(self.scores.tolist()) <= {0.0, 1.0}
        return BudgetSchedule.constant(int(self.scores.sum())) if listed else None

    def __call__(
        self,
        timestep: Real[torch.Tensor, "batch"],
        latents: Float[torch.Tensor, "batch channels frames height width"],
        image: Float[torch.Tensor, "batch image_width"] | None = None,
    ) -> Float[torch.Tensor, "batch blocks"]:
        """The fixed scores for every sample of the batch."""
        return torch.from_numpy(np.broadcast_to(self.scores, (len(timestep), self.blocks)).copy())


class RandomRouter:
    """Random scores, other ones at every timestep: the control that a router has to beat.

    A score depends on the seed and the timestep only, so both guidance branches, and a sample alone or in a batch, are
    routed alike.

    >>> router, t = RandomRouter(blocks=4, seed=1), torch.tensor([500.0, 500.0])
    >>> scores = router(t, torch.zeros(2, 1, 1, 1, 1))
    >>> torch.equal(scores[0], scores[1]), torch.equal(router(t - 1, torch.zeros(2, 1, 1, 1, 1)), scores)
    (True, False)
    """

    on_host = True
    name = "random"

    def __init__(self, blocks: int, seed: int = 0):
        self.blocks, self.seed = blocks, seed

    def __call__(
        self,
        timestep: Real[torch.Tensor, "batch"],
        latents: Float[torch.Tensor, "batch channels frames height width"],
        image: Float[torch.Tensor, "batch image_width"] | None = None,
    ) -> Float[torch.Tensor, "batch blocks"]:
        """Uniform numbers of 0 to 1 from the seed and the bits of every timestep."""
        bits = timestep.cpu().numpy().astype(np.float32).view(np.uint32)
        rows = [np.random.default_rng([self.seed, int(each)]).random(self.blocks) for each in bits]
        return torch.from_numpy(np.stack(rows))


class TableRouter:
    """The decisions of a table: a replay of a run, or decisions edited by hand; `budget` is the table's own.

    A timestep that the table lacks takes the nearest one's. Under another budget the table's scores decide, or, where
    it has none, its decisions first.

    >>> table = DecisionTable((900.0, 300.0), np.array([[True, True, True], [True, False, True]]))
    >>> TableRouter(table)(torch.tensor([310.0]), torch.zeros(1, 1, 1, 1, 1)).tolist()
    [[1.0, 0.0, 1.0]]
    """

    on_host = True
    name = "table"

    def __init__(self, table: DecisionTable):
        self.table, self.blocks = table, table.blocks

    @property
    def budget(self) -> BudgetSchedule:
        """The number of blocks of the table's steps."""
        return self.table.budget

    def __call__(
        self,
        timestep: Real[torch.Tensor, "batch"],
        latents: Float[torch.Tensor, "batch channels frames height width"],
        image: Float[torch.Tensor, "batch image_width"] | None = None,
    ) -> Float[torch.Tensor, "batch blocks"]:
        """Scores that put every block that the table runs before every one that it skips."""
        steps = [self.table.at(float(t)) for t in timestep.cpu()]
        ran = self.table.ran[steps].astype(float)
        if self.table.scores is None:
            return torch.from_numpy(ran)
        scores = self.table.scores[steps]
        # Scores may have been left as they were when a decision was edited: the decision comes first.
        span = scores.max(axis=1, keepdims=True) - scores.min(axis=1, keepdims=True)
        agree = np.where(ran > 0, scores, np.inf)[:, 1:-1].min(axis=1, initial=np.inf) >= np.where(
            ran > 0, -np.inf, scores
        )[:, 1:-1].max(axis=1, initial=-np.inf)
        return torch.from_numpy(scores + np.where(agree[:, None], 0.0, ran * (span + 1)))
