"""Write a run: plan it, then measure sample after sample at noised clean latents or along real generations."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import torch

from analysis.attention_calls import describe_attention
from analysis.capture import CaptureSpec, Recorder, capture, output_weight_norms, stack_passes
from analysis.generation import clean_sample, generate, velocity_at
from analysis.manifest import Manifest, Sample
from analysis.routes import join_parts, routes_frame, write_part
from analysis.run_files import run_identity
from analysis.runs import Run
from analysis.sharing import share_run
from pare.errors import InputError
from pare.geometry import Clip, Geometry, latent_frames, tokens_per_frame
from pare.models import set_flow_shift
from pare.processes import THE_ONLY_ONE, Process
from pare.progress import Progress, silent
from pare.versions import versions
from pare.video import write_video

Mode: TypeAlias = Literal["calibration", "trajectory"]
MODES: tuple[Mode, ...] = get_args(Mode)
BINS = 10


def plan(
    pipe: Any,
    *,
    model: Mapping[str, Any],
    geometry: Geometry,
    mode: Mode,
    settings: Mapping[str, Any],
    prompts: Sequence[str],
    samples: int | None = None,
    videos: Sequence[Path] = (),
    bins: int = BINS,
    spec: CaptureSpec | None = None,
) -> Manifest:
    """What a capture will write, all of it known before the first forward.

    `model` is the model's identity, `settings` a filled `RunSettings` as a dict. Sample i has prompt i (the prompts
    start over when there are fewer) and seed `settings["seed"] + i`. Timesteps are the sampler's own along a
    trajectory, the centres of `bins` equal bins of t in calibration. Raises InputError for contradictory inputs.
    """
    check_inputs(mode, prompts, samples, videos)
    clip = Clip(settings["height"], settings["width"], settings["frames"])
    trajectory = mode == "trajectory"
    timesteps, sigmas = _sampler_steps(pipe, settings) if trajectory else bin_centres(bins)
    chosen = [
        Sample(
            prompt=prompts[index % len(prompts)] if prompts else "",
            seed=settings["seed"] + index,
            video=f"videos/{index:05d}.mp4" if trajectory else None,
            source=videos[index].name if videos else None,
        )
        for index in range(len(videos) or samples or len(prompts))
    ]
    spec, measured = spec or CaptureSpec(), branches(mode, settings["guidance"])
    frames, per_frame = latent_frames(geometry, clip.frames), tokens_per_frame(geometry, clip.height, clip.width)
    return Manifest(
        schema="pare-run/1",
        model=dict(model),
        geometry=geometry.to_dict(),
        clip={"height": clip.height, "width": clip.width, "frames": clip.frames, "fps": settings["fps"]},
        num_frames=frames,
        tokens_per_frame=per_frame,
        mode=mode,
        settings={name: value for name, value in settings.items() if name != "dry_run"},
        timesteps=timesteps,
        sigmas=sigmas,
        branches=measured,
        samples=tuple(chosen),
        statistics=spec.describe(
            geometry,
            steps=len(timesteps),
            branches=measured,
            samples=len(chosen),
            num_frames=frames,
            tokens_per_frame=per_frame,
        ),
        moments=spec.describe_moments(geometry),
        query_rows=spec.query_rows(frames, per_frame),
        attention=describe_attention(
            pipe.transformer,
            heads=geometry.heads,
            head_dim=geometry.head_dim,
            tokens=frames * per_frame,
            device=pipe._execution_device,
        ),
        versions=versions(),
    )


def check_inputs(mode: str, prompts: Sequence[str], samples: int | None, videos: Sequence[Path]) -> None:
    """Refuse contradictory inputs of a capture before a model is loaded."""
    if mode not in MODES:
        raise InputError("--mode", got=mode, expected=" or ".join(MODES), fix="--mode calibration")
    if not prompts and not videos:
        raise InputError("--prompts", got="no prompt", expected="one prompt per line", fix="--prompts FILE")
    if samples is not None and samples < 1:
        raise InputError("--samples", got=samples, expected="a number of at least 1", fix="--samples 200")
    if videos and mode == "trajectory":
        raise InputError("--videos", got="with --mode trajectory", expected="prompts", fix="--mode calibration")
    if videos and samples is not None:
        raise InputError("--samples", got="with --videos", expected="one sample per video", fix="leave --samples out")
    if videos and prompts and len(prompts) not in (1, len(videos)):
        raise InputError(
            "--prompts", got=f"{len(prompts)} lines", expected=f"1 or {len(videos)}, as many as videos", fix="one each"
        )


def branches(mode: str, guidance: float | None) -> tuple[str, ...]:
    """The guidance branches that are measured: both along a trajectory that is guided.

    >>> branches("trajectory", 5.0), branches("trajectory", 1.0), branches("calibration", 5.0)
    (('cond', 'uncond'), ('cond',), ('cond',))
    """
    return ("cond", "uncond") if mode == "trajectory" and (guidance or 0) > 1 else ("cond",)


def bin_centres(bins: int = BINS) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Timesteps and sigmas at the centres of equal bins of t in 0..1000, noisiest first.

    >>> bin_centres(2)
    ((750.0, 250.0), (0.75, 0.25))
    """
    if bins < 1:
        raise InputError("bins", got=bins, expected="a number of at least 1", fix=f"bins = {BINS}")
    timesteps = tuple(1000 * (index + 0.5) / bins for index in reversed(range(bins)))
    return timesteps, tuple(t / 1000 for t in timesteps)


def record(
    pipe: Any,
    manifest: Manifest,
    out: str | Path,
    *,
    videos: Sequence[Path] = (),
    resume: bool = False,
    process: Process = THE_ONLY_ONE,
    around: Callable[[Sample], AbstractContextManager[Any]] = nullcontext,
    progress: Progress = silent,
) -> Run:
    """Measure every sample of the manifest and write the run; with `resume`, the samples that are missing.

    Of several processes each measures its share (`process` says which one this is) and the leading one ends the run.
    Every sample is measured within `around(sample)`, which may set the model up for it. Where the model is routed, its
    decisions become a part of the run (`analysis.routes`).

    The pipeline is left as it was found. `progress` is called after every forward or sampler step and may stop the
    capture by raising; the samples on disk stay.
    """
    one = _trajectory_sample if manifest.mode == "trajectory" else _calibration_sample
    per_sample = _units(manifest, videos)
    total = per_sample * len(manifest.samples)
    weights = partial(output_weight_norms, pipe.transformer)
    with share_run(out, manifest, weights, process, units=per_sample, resume=resume) as share:
        writer, identity = share.writer, run_identity(manifest.to_bytes())
        writer.log("start", samples=len(manifest.samples), pending=len(share.mine), process=process.rank)
        with _shifted(pipe, manifest.settings["shift"]):
            for index in share.samples():
                started = time.monotonic()

                def step(message: str, index: int = index) -> None:
                    progress(share.advance(), total, f"sample {index + 1} of {len(manifest.samples)}, {message}")

                generator = torch.Generator("cpu").manual_seed(manifest.samples[index].seed)
                with torch.no_grad(), _freed(pipe), around(manifest.samples[index]):
                    recorder = one(_Work(pipe, manifest, index, videos, writer.folder, step, generator))
                    decisions = _decisions(pipe.transformer)
                steps, measured = len(manifest.timesteps), manifest.measured(index)
                arrays = stack_passes(recorder.take(), steps, manifest.branches, measured)
                if decisions:
                    # Before the sample, whose file says that all of it is there.
                    write_part(writer.folder, index, routes_frame(index, decisions), identity)
                writer.write_sample(index, arrays, recorder.take_moments())
                writer.log(
                    "sample",
                    index=index,
                    seconds=round(time.monotonic() - started, 3),
                    kernels=sorted(recorder.kernels),
                    extra_calls=recorder.extra_calls,
                    **(
                        {"router_milliseconds": round(sum(each.milliseconds for each in decisions), 3)}
                        if decisions
                        else {}
                    ),
                )
        run = share.finish(progress)
        if process.leads:
            join_parts(writer.folder, len(manifest.samples), identity)
        writer.log("end", process=process.rank)
    return run


def _decisions(transformer: Any) -> list[Any]:
    """What a routed transformer decided since its generation began; nothing for any other."""
    return transformer.routing_summary() if getattr(transformer, "is_routing_enabled", False) else []


def _calibration_sample(work: "_Work") -> Recorder:
    pipe, manifest, index, generator = work.pipe, work.manifest, work.index, work.generator
    video = work.videos[index] if work.videos else None
    sample = clean_sample(pipe, work.prompt, manifest.settings, generator, work.step, video)
    with capture(pipe.transformer, CaptureSpec.of_sample(manifest, index)) as recorder:
        for number, t in enumerate(manifest.timesteps):
            noise = torch.randn(sample.clean.shape, generator=generator).to(sample.clean)
            velocity_at(pipe.transformer, sample, noise, t, step=number)
            work.step(f"timestep {t:g}")
    return recorder


def _trajectory_sample(work: "_Work") -> Recorder:
    manifest, sample = work.manifest, work.manifest.samples[work.index]
    with capture(work.pipe, CaptureSpec.of_sample(manifest, work.index)) as recorder:
        frames = generate(work.pipe, work.prompt, manifest.settings, work.generator, "np", work.step)[0]
    made_by = {"model": manifest.model, "prompt": sample.prompt, "seed": sample.seed, "versions": manifest.versions}
    pixels = np.round(np.asarray(frames) * 255).clip(0, 255).astype(np.uint8)
    assert sample.video is not None
    metadata = {**made_by, "settings": manifest.settings}
    write_video(pixels, work.folder / sample.video, manifest.clip["fps"], metadata)
    return recorder


@dataclass(frozen=True)
class _Work:
    """One sample to measure: of which run, with what, where its video goes, and whom to tell of every forward."""

    pipe: Any
    manifest: Manifest
    index: int
    videos: Sequence[Path]
    folder: Path
    step: Callable[[str], None]
    generator: torch.Generator

    @property
    def prompt(self) -> str:
        return self.manifest.samples[self.index].prompt


@contextmanager
def _shifted(pipe: Any, shift: float) -> Iterator[None]:
    own = pipe.scheduler
    set_flow_shift(pipe, shift)
    try:
        yield
    finally:
        pipe.scheduler = own


@contextmanager
def _freed(pipe: Any) -> Iterator[None]:
    """Let offloaded parts go back after a sample, also when it was stopped."""
    try:
        yield
    finally:
        pipe.maybe_free_model_hooks()


def _sampler_steps(pipe: Any, settings: Mapping[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    with _shifted(pipe, settings["shift"]):
        pipe.scheduler.set_timesteps(settings["steps"])
        timesteps = tuple(float(t) for t in pipe.scheduler.timesteps)
        return timesteps, tuple(float(sigma) for sigma in pipe.scheduler.sigmas[: len(timesteps)])


def _units(manifest: Manifest, videos: Sequence[Path]) -> int:
    """How often `progress` is called per sample: after every sampler step and every calibration forward."""
    if manifest.mode == "trajectory":
        return len(manifest.timesteps)
    return (1 if videos else manifest.settings["steps"]) + len(manifest.timesteps)
