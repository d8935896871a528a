"""A stage of the training put together: models, data, loss, loop; used by `pare distill`."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open

from pare import models
from pare.compact_text import compact_text
from pare.depth.budget import BudgetSchedule, shifted_timesteps
from pare.depth.routing import RoutingConfig
from pare.errors import InputError
from pare.processes import Process
from pare.progress import Progress
from pare.training.data import LatentData
from pare.training.few_steps import FewStepDistillation, FewStepSettings, Trajectories, write_trajectories
from pare.training.loop import LoopSettings, train
from pare.training.losses import LossWeights
from pare.training.parallel import Parallel
from pare.training.plan import Stage
from pare.training.probe import probe_step
from pare.training.stages import Distillation, StageSettings, frozen, make_router
from pare.training.state import steps_done
from pare.training.validation import Report, held_out_errors
from pare.training.velocities import Velocities, write_velocities
from pare.transformer import PareWanTransformer3DModel
from workbench.distill_plan import regression_steps
from workbench.distill_roles import validation_roles
from workbench.distill_settings import DistillSettings
from workbench.plan import duration, gibi

ROUTER = "router."


def load_teacher(folder: str | Path, compute: torch.dtype) -> Any:
    """The frozen transformer of a folder `transformer/`, in the precision of the forward."""
    return frozen(PareWanTransformer3DModel.from_pretrained(folder, dtype=compute, use_safetensors=True))


def load_student(folder: str | Path) -> tuple[Any, torch.dtype]:
    """The transformer of a folder `transformer/` in float32, ready to train, and the precision it is stored in."""
    model = PareWanTransformer3DModel.from_pretrained(folder, use_safetensors=True, dtype=torch.float32)
    return model.train(), stored_dtype(Path(folder))


def stored_dtype(folder: Path) -> torch.dtype:
    """The precision of the matrices in a folder of safetensors, from a header."""
    # What is shipped in eight bits is trained on and saved in sixteen.
    names = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16, "F8_E4M3": torch.float16}
    with safe_open(min(folder.glob("*.safetensors")), framework="pt") as file:
        matrices = [name for name in file.keys() if name.endswith(".weight")]  # noqa: SIM118 (not a dict)
        found = {file.get_slice(name).get_dtype() for name in matrices}
    # What is kept in float32 lies beside the rest.
    return names[next(iter(sorted(found - {"F32"})), "F32")]


def add_router(student: Any, run: DistillSettings, importance: np.ndarray | None) -> list[str]:
    """Give the student the router that stage II trains, unless it brings one; notes for people."""
    blocks = len(student.blocks)
    budget = choose_budget(run, blocks)
    notes = []
    if student.router is None:
        if run.router == "static" and importance is None:
            raise InputError(
                "--router", got="static, without --run", expected="a run, whose block importance ranks", fix="--run RUN"
            )
        if importance is None:
            notes.append("the router starts with all blocks alike, since no --run gives their importance")
        content = "none" if run.router != "learned" else "image" if student.config.image_dim else "latent"
        router = make_router(
            student,
            content=content,
            importance=importance,
            trains=run.router != "static",
            hidden=run.router_hidden,
            seed=run.seed,
        )
        student.attach_router(router, budget)
    elif run.k_min is not None or run.k_max is not None:
        student.attach_router(student.router, budget)
    student.enable_routing(gated(run))
    return notes


def gated(run: DistillSettings) -> RoutingConfig:
    """Routing for training: every block runs, behind its gate."""
    return RoutingConfig(dense=True, relative=run.router_gradient == "relative")


def choose_budget(run: DistillSettings, blocks: int) -> BudgetSchedule:
    """K(t) as asked, else the paper's in proportion; of a static ranking one K, the mean over the sampler's steps."""
    paper = BudgetSchedule.paper(blocks)
    k_min = paper.k_min if run.k_min is None else run.k_min
    k_max = paper.k_max if run.k_max is None else run.k_max
    budget = BudgetSchedule.linear(k_min, k_max)
    budget.check(blocks)
    if run.router == "static" and k_min != k_max:
        assert run.steps is not None and run.shift is not None
        return BudgetSchedule.constant(int(budget.mean_count(shifted_timesteps(run.steps, run.shift), blocks)))
    return budget


def stage_settings(stage: Stage, run: DistillSettings, image_to_video: bool, processes: int) -> StageSettings:
    """What the loss of a stage is made with."""
    paper = LossWeights.paper(image_to_video=image_to_video)
    weights = {
        name: getattr(paper, name) if (given := getattr(run, f"{name}_weight")) is None else given
        for name in ("feature", "teacher", "data", "temporal")
    }
    common: dict[str, Any] = {"batch": run.batch, "shift": run.shift, "seed": run.seed}
    if stage != "steps":
        return StageSettings(
            weights=LossWeights(**weights),
            feature_blocks=run.feature_blocks,
            no_text_share=run.no_text_share,
            **common,
        )
    assert run.train_steps is not None and run.steps is not None and run.guidance is not None
    return FewStepSettings(
        steps=run.few_steps,
        grid=run.steps,
        guidance=max(1.0, run.guidance),
        regression_batches=regression_steps(run) * run.accumulation * processes,
        **common,
    )


def loop_settings(run: DistillSettings) -> LoopSettings:
    """What the loop is made with."""
    assert run.train_steps is not None and run.learning_rate is not None
    return LoopSettings(
        steps=run.train_steps,
        learning_rate=run.learning_rate,
        warmup=run.warmup,
        weight_decay=run.weight_decay,
        clip_norm=run.clip_norm,
        ema=run.ema,
        checkpoint_every=run.checkpoint_every,
        log_every=run.log_every,
        seed=run.seed,
        schedule="cosine",
        accumulation=run.accumulation,
        divergence=run.divergence or 0.0,
        learning_share=run.router_share,
    )


@contextmanager
def shortened_text(*transformers: Any, device: torch.device, parallel: Parallel) -> Iterator[None]:
    """Inside, text-to-video models on a CPU attend to the padding of their text as one token (`pare.compact_text`).

    On a GPU the kernels want no mask, and of a large model's forward padding is a hundredth.
    """
    with ExitStack() as stack:
        for each in transformers:
            if device.type == "cpu" and not parallel.sharded and each.config.image_dim is None:
                stack.enter_context(compact_text(each))
        yield


def train_stage(
    stage: Stage,
    teacher: Any,
    student: Any,
    data: LatentData,
    run: DistillSettings,
    folder: Path,
    *,
    parallel: Parallel,
    process: Process,
    device: torch.device,
    about: Mapping[str, Any],
    validate: Sequence[Callable[[Any, int], dict[str, Any]]] = (),
    probe_only: bool = False,
    progress: Progress,
) -> tuple[Any, float, int | None]:
    """Train the student of a stage in place; the student with its averaged weights, seconds and (CUDA) peak bytes of a batch.

    With `probe_only` that one batch is all that runs, and nothing is written; stage III is then probed in its second half.
    Otherwise the seconds are the mean over its two kinds of steps.
    """
    compute = models.check_dtype(run.dtype, device)
    image_to_video = student.config.image_dim is not None
    settings = stage_settings(stage, run, image_to_video, parallel.count)
    if stage != "joint" and student.router is not None:
        # The router stays unless asked; blocks are gated, so that all processes run the same ones.
        student.router.requires_grad_(stage == "steps" and run.train_router)
        student.enable_routing(gated(run))
    if run.checkpointing:
        student.enable_gradient_checkpointing()
    trajectories = None
    if isinstance(settings, FewStepSettings) and probe_only:
        settings = replace(settings, regression_batches=0)
    if isinstance(settings, FewStepSettings) and settings.regression_batches:
        # The whole teacher on every device, before it lies in shards: each process samples its own share.
        write_trajectories(
            folder / "trajectories", teacher.to(device), data, settings, run.trajectories, about, device=device,
            compute=compute, process=process, progress=progress,
        )  # fmt: skip
        parallel.wait()
        trajectories = Trajectories(folder / "trajectories")
        if parallel.sharded:
            teacher.to("cpu")
    velocities = None
    if stage != "steps" and run.velocities and not probe_only:
        write_velocities(
            folder / "velocities", teacher.to(device), data, run.velocities, about, shift=settings.shift,
            seed=run.seed, device=device, compute=compute, process=process, progress=progress,
        )  # fmt: skip
        parallel.wait()
        velocities = Velocities(folder / "velocities")
        teacher.to("cpu")
    teacher = (
        teacher
        if velocities is not None and not data.held_out and not run.roles
        else parallel.place(teacher, compute=compute, trains=False, device=device)
    )
    model = parallel.place(student, compute=compute, trains=True, device=device)
    whole = parallel.whole(model)
    loss: Any
    if isinstance(settings, FewStepSettings):
        loss = FewStepDistillation(teacher, whole, data, trajectories, settings, device=device, compute=compute)
    else:
        loss = Distillation(teacher, whole, data, settings, device=device, compute=compute, velocities=velocities)
    assert run.train_steps is not None and run.learning_rate is not None
    regressing = settings.regression_batches if isinstance(settings, FewStepSettings) else 0
    batches = run.accumulation * parallel.count
    done = steps_done(folder / "state")
    # By the batch that a kind of steps begins with, how many of all steps are of it, and how many of those to come.
    first = regressing // batches
    kinds = {
        0: (first, max(0, first - done)),
        regressing: (run.train_steps - first, run.train_steps - max(first, done)),
    }
    seconds, left, peak = 0.0, 0.0, None
    for number, (steps, coming) in kinds.items():
        if steps:
            taken, reached = probe_step(model, loss, parallel, device, run.seed, number)
            seconds += taken * steps / run.train_steps
            left += taken * run.accumulation * coming
            peak = reached if peak is None or reached is None else max(peak, reached)
    memory = "" if peak is None else f", {gibi(peak)} of memory at its peak before the optimiser's moments"
    progress(
        done, run.train_steps, f"a step takes {duration(seconds * run.accumulation)}{memory}; about {duration(left)}"
    )
    if probe_only:
        return whole, seconds, peak
    rate = run.router_rate / run.learning_rate
    checks = [*_measurements(teacher, data, run, folder, device, compute, parallel, progress), *validate]
    train(
        model,
        loss,
        loop_settings(run),
        folder,
        rates=lambda name: rate if name.startswith(ROUTER) else 1.0,
        rests=lambda name: name.startswith(ROUTER),
        validate=_together(checks) if checks else None,
        validate_every=run.validate_every,
        parallel=parallel,
        tensorboard=True,
        progress=progress,
    )
    return whole, seconds, peak


def _measurements(
    teacher: Any,
    data: LatentData,
    run: DistillSettings,
    folder: Path,
    device: torch.device,
    compute: torch.dtype,
    parallel: Parallel,
    progress: Progress,
) -> list[Callable[[Any, int], dict[str, Any]]]:
    """What a validation measures of the student beside the teacher: held-out errors, and the roles of its heads."""
    how: dict[str, Any] = {"device": device, "compute": compute, "report": reporting(progress, run)}
    checks = [held_out_errors(teacher, data, **how)] if data.held_out else []
    if run.roles and run.validate_every:
        samples = range(len(data) - run.roles, len(data))
        checks.append(validation_roles(teacher, data, folder, samples, writes=parallel.leads, **how))
    return checks


def reporting(progress: Progress, run: DistillSettings) -> Report:
    """How a validation says where it is, and hears that it was cancelled."""
    total = run.train_steps or 0
    return lambda step, message: progress(step, total, message)


def _together(checks: list[Callable[[Any, int], dict[str, Any]]]) -> Callable[[Any, int], dict[str, Any]]:
    def validate(student: Any, step: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for check in checks:
            found |= check(student, step)
        return found

    return validate
