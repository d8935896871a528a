"""What is looked at while a student of the sweep trains: the flow loss of held-out samples, and the motion of its videos."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from analysis.generation import generate
from analysis.metrics.flow import optical_flow
from pare.files import write_bytes
from pare.models import set_flow_shift
from pare.progress import Progress, silent
from pare.training.data import LatentData
from pare.training.validation import SIGMAS, sample_errors
from workbench.call import plain
from workbench.demo.results.video_scores import alone, beside

SCHEMA = "pare-sweep-observation/1"
CPU = torch.device("cpu")


@dataclass(eq=False)
class Observer:
    """Looks at students: `pipe` is the teacher's pipeline, `data` samples that nothing was trained on, `captions` the videos'
    prompts, caption i with seed i, `settings` how they are sampled."""

    pipe: Any
    data: LatentData
    captions: Sequence[str]
    settings: Mapping[str, Any]
    progress: Progress = field(default=silent)

    def observe(self, student: Any) -> dict[str, Any]:
        """`flow_loss` {σ: {data, teacher: a value per held-out sample}}, and a record per video: motion, flow error and SSIM
        against the teacher's, what the oracle says."""
        errors = sample_errors(
            student, self.teacher, self.data, range(len(self.data)), device=CPU, compute=torch.float32
        )
        videos = []
        for number, caption in enumerate(self.captions):
            dense = self.dense[number]
            frames = dense[0] if student is self.teacher else self.video(student, number)
            flow = dense[1] if student is self.teacher else optical_flow(frames)
            videos.append(
                {
                    "prompt": caption,
                    "seed": number,
                    "values": alone(frames, flow, caption) | beside(frames, flow, *dense),
                }
            )
            self.progress(number + 1, len(self.captions), "videos")
        return {"schema": SCHEMA, "sigmas": list(SIGMAS), "videos": videos, "flow_loss": errors}

    def write(self, student: Any, path: Path) -> None:
        """Observe a student into a file, unless that is there."""
        if path.is_file():
            return
        was_training = student.training
        try:
            found = self.observe(student.eval())
        finally:
            student.train(was_training)
        write_bytes(path, (json.dumps(plain(found), indent=1, allow_nan=False) + "\n").encode())

    @cached_property
    def teacher(self) -> Any:
        """The dense model."""
        return self.pipe.transformer

    @cached_property
    def dense(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """The teacher's videos and their flows, once."""
        found = []
        for number in range(len(self.captions)):
            frames = self.video(self.teacher, number)
            found.append((frames, optical_flow(frames)))
            self.progress(number + 1, len(self.captions), "the teacher's videos")
        return found

    def video(self, model: Any, number: int) -> np.ndarray:
        """uint8 [frames, height, width, 3] of a caption, by a model in the teacher's place."""
        teacher, scheduler = self.teacher, self.pipe.scheduler
        self.pipe.transformer = model
        try:
            set_flow_shift(self.pipe, self.settings["shift"])
            generator = torch.Generator("cpu").manual_seed(number)
            with torch.no_grad():
                pixels = generate(
                    self.pipe, self.captions[number], self.settings, generator, "np", lambda message: None
                )[0]
        finally:
            self.pipe.transformer, self.pipe.scheduler = teacher, scheduler
        return np.round(np.clip(pixels, 0, 1) * 255).astype(np.uint8)
