"""Clips of a student while it trains, from held-out captions with fixed seeds, its teacher's beside them, and the oracle."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pare.errors import InputError
from pare.models import set_flow_shift
from pare.training.parallel import computing
from pare.training.validation import Report, nobody
from pare.versions import versions
from pare.video import write_video

CLIPS, TEACHER = "clips", "teacher"


def validation_clips(
    pipe: Any,
    folder: Path,
    captions: Sequence[str],
    settings: Mapping[str, Any],
    *,
    teacher_settings: Mapping[str, Any],
    compute: torch.dtype,
    writes: bool = True,
    report: Report = nobody,
) -> Callable[[Any, int], dict[str, Any]]:
    """A validation that writes `folder/clips/000100-0.mp4` … of the student at that step, caption i with seed i.

    The first one also writes `clips/teacher-0.mp4` …, of the same captions and seeds, as the teacher is sampled
    (`teacher_settings`). Where captions and size are those of the moving digits, it gives the share of clips in which the oracle
    reads what the caption asked for (`oracle digit`, `oracle colour`, …, each with its n). `pipe` is the teacher's pipeline; it has
    its own transformer again afterwards.
    """

    def generate(number: int, how: Mapping[str, Any], step: int, whose: str) -> np.ndarray:
        def stepped(_: Any, index: int, timestep: Any, given: dict[str, Any]) -> dict[str, Any]:
            done = f"step {index + 1} of {how['steps']}"
            report(step, f"validation: {whose} clip {number + 1} of {len(captions)}, {done}")
            return given

        with computing(pipe._execution_device, compute):
            video = pipe(
                prompt=captions[number],
                negative_prompt=how.get("negative_prompt"),
                height=how["height"],
                width=how["width"],
                num_frames=how["frames"],
                num_inference_steps=how["steps"],
                guidance_scale=how["guidance"],
                generator=torch.Generator("cpu").manual_seed(number),
                callback_on_step_end=stepped,
                output_type="np",
            ).frames[0]
        return np.round(np.clip(video, 0, 1) * 255).astype(np.uint8)

    def write(frames: np.ndarray, name: str, number: int, about: Mapping[str, Any]) -> None:
        if writes:
            known = {"prompt": captions[number], "seed": number, "versions": versions()}
            write_video(frames, folder / CLIPS / f"{name}-{number}.mp4", settings["fps"], {**about, **known})

    def validate(student: Any, step: int) -> dict[str, Any]:
        scores: dict[str, list[float]] = {}
        with _sampling(pipe, student, settings):
            for number, caption in enumerate(captions):
                frames = generate(number, settings, step, "student's")
                write(frames, f"{step:06d}", number, {"step": step})
                for name, value in oracle_scores(frames, caption).items():
                    scores.setdefault(name, []).append(float(value))
        with _sampling(pipe, pipe.transformer, teacher_settings):
            for number in range(len(captions)):
                if writes and not (folder / CLIPS / f"{TEACHER}-{number}.mp4").is_file():
                    write(generate(number, teacher_settings, step, "teacher's"), TEACHER, number, {"model": TEACHER})
        shares = {f"oracle {name}": sum(values) / len(values) for name, values in scores.items()}
        # A still digit has no direction to be right about.
        counts = {f"oracle {name} n": len(values) for name, values in scores.items()}
        return {"clips": len(captions)} | shares | counts

    return validate


def oracle_scores(frames: np.ndarray, caption: str) -> dict[str, float]:
    """What the oracle says of a clip of moving digits; nothing of other clips."""
    from analysis.metrics.moving_digits import read, score
    from analysis.metrics.moving_digits_factors import parse_caption
    from workbench.demo.settings import DATA

    try:
        factors = parse_caption(caption)
        reading = read(frames, DATA)
    except (ValueError, InputError):
        return {}
    return {name: float(value) for name, value in score(reading, factors).items() if value is not None}


@contextmanager
def _sampling(pipe: Any, student: Any, settings: Mapping[str, Any]) -> Any:
    """The pipeline with the student in it and a sampler as asked, both put back afterwards."""
    before, scheduler, training = pipe.transformer, pipe.scheduler, student.training
    pipe.transformer = student.eval()
    try:
        set_flow_shift(pipe, settings["shift"])
        if settings.get("first_order"):
            steps = list(range(settings["steps"]))
            config = pipe.scheduler.config
            pipe.scheduler = type(pipe.scheduler).from_config(config, solver_order=1, disable_corrector=steps)
        yield
    finally:
        pipe.transformer, pipe.scheduler = before, scheduler
        student.train(training)
