"""What a row costs at inference, and how long a job will take, both from shapes alone."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pare import cost
from pare.depth.budget import BudgetSchedule, shifted_timesteps
from pare.geometry import Geometry
from pare.training.plan import Setup, step_flops, trajectory_flops
from pare.width.budget import Ratios
from workbench.demo.results.rows import Budget, Job, Row, Stage
from workbench.settings import RunSettings

FEW_STEPS = 4
# Measured on the demo model on two idle cores: a step of width distillation of batch 16 at 30 %, and a video of 20 guided
# steps; what of that is not the transformer; scoring a video, which is its optical flow; loading models and saving a student.
STEP_SECONDS, VIDEO_SECONDS, AROUND_SECONDS, SCORE_SECONDS, START_SECONDS = 0.75, 0.8, 0.15, 0.35, 8.0
REFERENCE_BATCH, REFERENCE_RATIO, REFERENCE_FORWARDS = 16, 0.3, 40
SECONDS_A_SAMPLE, MASK_SECONDS = 0.08, 2.0


@dataclass(frozen=True)
class Cost:
    """Parameters of the blocks that run in a step, on average, and operations of a video's forwards through the blocks."""

    active_parameters: float
    flops: float


@dataclass(frozen=True)
class Effort:
    """The model's shapes and usual sampling, and the budget of the table."""

    geometry: Geometry
    run: RunSettings
    budget: Budget

    @classmethod
    def of(cls, model: str, budget: Budget, **settings: Any) -> "Effort":
        """Of a model's own defaults, changed by `settings`; no weights are read."""
        from pare import reference

        return cls(reference.model_geometry(model), RunSettings.of(**settings).filled(model), budget)

    def kept(self, row: Row) -> dict[str, Any]:
        """How many heads and neurons every block of a row keeps, as `pare.cost` takes it."""
        return {} if row.mask is None else asdict(Ratios(ratio=self.budget.ratio).counts(self.geometry))

    def sampling(self, row: Row) -> tuple[list[float], int]:
        """Timesteps of a row's sampler, and forwards a step."""
        assert self.run.steps is not None
        few = any(stage.name == "steps" for stage in row.stages)
        timesteps = shifted_timesteps(FEW_STEPS if few else self.run.steps, self.run.shift or 1.0)
        return list(timesteps), 1 if few or (self.run.guidance or 1) <= 1 else 2

    def share(self, row: Row) -> float:
        """Share of the blocks that run, on average over the steps of a video."""
        settings: dict[str, Any] = {}
        routed = False
        for stage in row.stages:
            routed = routed or stage.name == "joint"
            settings |= dict(stage.settings)
        if not routed:
            return 1.0
        blocks, timesteps = self.geometry.blocks, self.sampling(row)[0]
        paper = BudgetSchedule.paper(blocks)
        budget = BudgetSchedule.linear(settings.get("k_min", paper.k_min), settings.get("k_max", paper.k_max))
        return budget.mean_count(timesteps, blocks) / blocks

    def static_blocks(self, pare: Row) -> int:
        """How many dense blocks have the active parameters of this row, to the nearest whole one; at least two."""
        dense = cost.parameters(self.geometry).in_blocks
        return max(2, round(self.geometry.blocks * self.cost(pare).active_parameters / dense))

    def cost(self, row: Row) -> Cost:
        """What the row runs. All blocks keep as many heads and neurons, so that a share of the blocks is one of the work."""
        kept, share = self.kept(row), self.share(row)
        timesteps, forwards = self.sampling(row)
        whole = cost.flops(self.geometry, self.run.clip, **kept).total * len(timesteps) * forwards
        return Cost(cost.parameters(self.geometry, **kept).in_blocks * share, whole * share)

    def seconds(self, job: Job) -> float:
        """How long a job takes on two idle cores, about."""
        if job.kind == "data":
            return START_SECONDS + SECONDS_A_SAMPLE * self.budget.samples
        if job.kind in ("mask", "student"):
            return MASK_SECONDS
        if job.kind == "scores":
            return SCORE_SECONDS * self.budget.prompts
        if job.kind == "evaluation":
            dense = cost.flops(self.geometry, self.run.clip).total * REFERENCE_FORWARDS
            each = AROUND_SECONDS + (VIDEO_SECONDS - AROUND_SECONDS) * self.cost(job.row).flops / dense
            return START_SECONDS + each * self.budget.prompts
        assert job.stage is not None
        return START_SECONDS + self._training_flops(job.row, job.stage) / self.speed

    def _training_flops(self, row: Row, stage: Stage) -> float:
        kept, clip = self.kept(row), self.run.clip
        if stage.name != "steps":
            return stage.steps * step_flops(
                self.geometry, clip, kept, Setup(stage.name, batch=self.budget.batch, guided=False)
            )
        guided = (self.run.guidance or 1) > 1
        setup = Setup("steps", batch=self.budget.few_steps_batch, guided=guided, regression=0.5)
        assert self.run.steps is not None
        stored = self.budget.trajectories * trajectory_flops(self.geometry, clip, self.run.steps, guided=guided)
        return stored + stage.steps * step_flops(self.geometry, clip, kept, setup)

    @property
    def speed(self) -> float:
        """Operations a second in training, from the reference step."""
        kept = asdict(Ratios(ratio=REFERENCE_RATIO).counts(self.geometry))
        setup = Setup("width", batch=REFERENCE_BATCH)
        return step_flops(self.geometry, self.run.clip, kept, setup) / STEP_SECONDS


def plan_lines(rows: Sequence[Row], jobs: Sequence[Job], effort: Effort) -> list[str]:
    """The plan for people: a line per row, then how many hours."""
    from pare.cost import parameters

    dense = parameters(effort.geometry).in_blocks
    lines = [f"{'row':<38}{'active':>8}{'steps':>8}{'+ III':>7}{'seeds':>7}{'hours':>8}"]
    for row in rows:
        own = sum(effort.seconds(job) for job in jobs if job.row == row) / 3600
        third = sum(stage.steps for stage in row.stages if stage.name == "steps")
        active = effort.cost(row).active_parameters / dense
        lines.append(f"{row.title:<38}{active:>8.1%}{row.steps:>8}{third or '':>7}{row.seeds or '':>7}{own:>8.2f}")
    trainings = [job for job in jobs if job.kind == "training"]
    videos = effort.budget.prompts * sum(job.kind == "evaluation" for job in jobs)
    hours = sum(map(effort.seconds, jobs)) / 3600
    lines.append(
        f"{len(rows)} rows, {len(jobs)} jobs: {len(trainings)} trainings of "
        f"{sum(job.stage.steps for job in trainings if job.stage)} steps, {videos} videos; about {hours:.1f} h on two idle "
        "cores (what rows share is counted once, at the first)"
    )
    return lines
