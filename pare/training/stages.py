"""Stages I and II: what a pruned student, and a student with its router, learn from the frozen teacher (PARE, section 4)."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from pare.depth.learned import HIDDEN, LearnedRouter
from pare.training.data import Batch, LatentData, epochs_and_samples
from pare.training.features import block_outputs
from pare.training.losses import LossWeights, feature_loss, temporal_loss, velocity_loss
from pare.training.parallel import computing
from pare.training.plan import check_without_teacher
from pare.training.sampling import FEATURE_BLOCKS, choose_feature_blocks, noised, shifted_sigma

# At 512 the router would be a sixth of the demo model.
SMALL_HIDDEN = 64


@dataclass(frozen=True)
class StageSettings:
    """What a batch is drawn from and how its losses are weighed.

    `batch` is that of one process; `shift` the flow shift of inference; `no_text_share` of the samples have the empty text, so
    that the student can be guided (0: none, as the paper says nothing of it).
    """

    batch: int = 1
    shift: float = 3.0
    weights: LossWeights = field(default_factory=LossWeights)
    feature_blocks: int = FEATURE_BLOCKS
    no_text_share: float = 0.1
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Draw:
    """One training batch: clean latents and conditions, noise ε, σ [batch]."""

    batch: Batch
    noise: torch.Tensor
    sigma: torch.Tensor

    @property
    def noised(self) -> torch.Tensor:
        """x_t = (1 − σ)·x0 + σ·ε."""
        return noised(self.batch.clean, self.noise, self.sigma)

    @property
    def target(self) -> torch.Tensor:
        """ε − x0, the velocity of the data (Eq. 1)."""
        return self.noise - self.batch.clean


def draw(
    data: LatentData, settings: StageSettings, number: int, generator: torch.Generator, device: torch.device
) -> Draw:
    """Batch `number` of the training: its samples by the seed, the rest from the generator: u ~ U(0, 1), σ shifted."""
    batch = data.at(number, settings.batch, settings.seed)
    sigma = shifted_sigma(torch.rand(len(batch.clean), generator=generator), settings.shift)
    noise = torch.randn(batch.clean.shape, generator=generator)
    text = drop_texts(batch.text, data.empty, settings.no_text_share, generator)
    batch = Batch(batch.clean, text, batch.image, batch.condition)
    return Draw(batch.to(device), noise.to(device), sigma.to(device))


def drop_texts(text: torch.Tensor, empty: torch.Tensor, share: float, generator: torch.Generator) -> torch.Tensor:
    """The texts, `share` of them replaced by the empty one."""
    dropped = torch.rand(len(text), generator=generator) < share
    return torch.where(dropped[:, None, None], empty.to(text), text)


class Distillation:
    """The loss of stages I and II, for `pare.training.loop.train`.

    The teacher's velocity is the conditional one, without guidance. L_feat compares `feature_blocks` random blocks; where the
    student is routed, of those that run, and in the samples that run them (Eq. 15). A loss of weight 0 is not computed, and a
    teacher that no loss needs is not run. With `velocities` (`pare.training.velocities`) it is never run, and may be None.
    """

    def __init__(
        self,
        teacher: Any,
        student: Any,
        data: LatentData,
        settings: StageSettings,
        *,
        device: torch.device,
        compute: torch.dtype = torch.float32,
        velocities: Any = None,
    ):
        if velocities is not None:
            check_without_teacher(settings.weights.feature, settings.no_text_share)
        self.velocities = velocities
        self.teacher, self.student, self.data, self.settings = teacher, student, data, settings
        self.device, self.compute = device, compute

    def __call__(
        self, model: Any, number: int, generator: torch.Generator
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The weighted loss of batch `number` and its parts; `model` is the student, perhaps in a wrapper."""
        weights = self.settings.weights
        this, stored = self._draw(number, generator)
        inputs = this.batch.inputs(this.noised, this.sigma)
        wanted = range(len(self.student.blocks)) if weights.feature else ()
        with computing(self.device, self.compute), block_outputs(self.student, wanted) as ours:
            velocity = model(**inputs)[0]
        parts = {}
        if weights.feature or weights.teacher or weights.temporal:
            ran = ran_blocks(self.student, len(this.sigma))
            chosen = []
            if weights.feature:
                chosen = choose_feature_blocks(
                    np.flatnonzero(ran.any(axis=0)).tolist(), generator, self.settings.feature_blocks
                )
            theirs: dict[int, torch.Tensor] = {}
            if stored is not None:
                target = stored
            else:
                with block_outputs(self.teacher, chosen) as theirs:
                    target = teacher_velocity(self.teacher, inputs, self.compute)
            if weights.feature:
                active = [torch.from_numpy(ran[:, block].copy()) for block in chosen]
                parts["feature"] = feature_loss([ours[i] for i in chosen], [theirs[i] for i in chosen], active)
            if weights.teacher:
                parts["teacher"] = velocity_loss(velocity, target)
            if weights.temporal:
                parts["temporal"] = temporal_loss(velocity, target)
        if weights.data:
            parts["data"] = velocity_loss(velocity, this.target)
        return weights.total(parts), parts | routing_metrics(self.student, self.device)

    def _draw(self, number: int, generator: torch.Generator) -> tuple["Draw", torch.Tensor | None]:
        if self.velocities is None:
            return draw(self.data, self.settings, number, generator, self.device), None
        places = epochs_and_samples(self.data.trained, number, self.settings.batch, self.settings.seed)
        this, stored = self.velocities.draw(self.data, places)
        moved = Draw(this.batch.to(self.device), this.noise.to(self.device), this.sigma.to(self.device))
        return moved, stored.to(self.device)


@torch.no_grad()
def teacher_velocity(teacher: Any, inputs: dict[str, Any], compute: torch.dtype) -> torch.Tensor:
    """The frozen teacher's velocity, float32."""
    cast = {
        name: value.to(teacher.dtype) if isinstance(value, torch.Tensor) and name != "timestep" else value
        for name, value in inputs.items()
    }
    with computing(inputs["hidden_states"].device, compute):
        return teacher(**cast)[0].float()


def ran_blocks(student: Any, batch: int) -> np.ndarray:
    """Which blocks ran in the student's last forward, [batch, blocks]; all where it is not routed."""
    if not getattr(student, "is_routing_enabled", False):
        return np.ones((batch, len(student.blocks)), bool)
    return student.routing_summary()[-1].ran


def routing_metrics(student: Any, device: torch.device) -> dict[str, torch.Tensor]:
    """How many blocks ran on average in the last forward; nothing where the student is not routed."""
    if not getattr(student, "is_routing_enabled", False):
        return {}
    return {"blocks_run": torch.tensor(float(student.routing_summary()[-1].blocks_run.mean()), device=device)}


def frozen(model: Any) -> Any:
    """The model in evaluation mode, with no parameter that takes a gradient."""
    return model.requires_grad_(False).eval()


def make_router(
    student: Any,
    *,
    content: str,
    importance: np.ndarray | None = None,
    trains: bool = True,
    hidden: int | None = None,
    seed: int = 0,
) -> LearnedRouter:
    """A router for a student: three layers, last one zero, its bias the standardised importance of the teacher's blocks.

    Args: `content`: latent, image or none (timestep only); `importance` [blocks]; `trains` False: a ranking that stays, which
    is block pruning by importance; `hidden`: width of the layers, 512, in models narrower than 1,024 by default 64; `seed`: of
    its first layers. A router without importance begins with all blocks alike.
    """
    config = student.config
    width = config.image_dim if content == "image" else 1280
    if hidden is None:
        hidden = HIDDEN if config.num_attention_heads * config.attention_head_dim >= 1024 else SMALL_HIDDEN
    # All processes begin with the same one.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        router = LearnedRouter(
            len(student.blocks), content=content, channels=config.out_channels, content_width=width, hidden=hidden
        )
    if importance is not None:
        router.set_importance(torch.from_numpy(np.asarray(importance, float)))
    return router.requires_grad_(trains)
