"""Head roles and routes of a student while it trains: ratios of a few samples at fixed noise, its teacher's once."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save

from analysis.capture import CaptureSpec, capture
from pare.files import write_bytes
from pare.training.data import LatentData
from pare.training.parallel import computing
from pare.training.plan import SIGMAS
from pare.training.sampling import noised
from pare.training.stages import ran_blocks
from pare.training.validation import Report, nobody
from pare.versions import versions

SCHEMA, ROLES, TEACHER = "pare-roles/1", "roles", "teacher"
RATIO, RAN = "self/ratio", "router/ran"


def validation_roles(
    teacher: Any,
    data: LatentData,
    folder: Path,
    samples: Sequence[int],
    *,
    device: torch.device,
    compute: torch.dtype,
    sigmas: Sequence[float] = SIGMAS,
    writes: bool = True,
    report: Report = nobody,
) -> Callable[[Any, int], dict[str, Any]]:
    """A validation that writes `folder/roles/000100.safetensors`: the student's intra-slice ratios (Eq. 2) at that step.

    `self/ratio` [sample, sigma, block, head] of these samples of the data, heads at their places in the teacher and NaN where
    they were cut; of a routed student also `router/ran` [sample, sigma, block]. The first one writes `teacher.safetensors`
    beside it. Noise is the same at every call. Thresholds belong to whoever reads it.
    """
    spec = CaptureSpec((RATIO,), moments=False)

    @torch.no_grad()
    def measure(model: Any, step: int, whose: str) -> dict[str, np.ndarray]:
        ratios, ran = [], []
        with capture(model, spec) as recorder:
            for number, index in enumerate(samples):
                batch = data.batch([index]).to(device)
                noise = torch.randn(batch.clean.shape, generator=torch.Generator().manual_seed(number)).to(device)
                for sigma in sigmas:
                    report(step, f"validation: roles of the {whose}, sample {number + 1} of {len(samples)}")
                    level = torch.tensor([sigma], device=device)
                    inputs = batch.inputs(noised(batch.clean, noise, level), level)
                    with computing(device, compute):
                        model(**_cast(inputs, model.dtype if whose == TEACHER else None))
                    ratios += [each.arrays[RATIO] for each in recorder.take()]
                    ran.append(ran_blocks(model, 1)[0])
        lengths = (len(samples), len(sigmas))
        arrays = {RATIO: np.stack(ratios).reshape(*lengths, *ratios[0].shape).astype(np.float32)}
        if getattr(model, "is_routing_enabled", False):
            arrays[RAN] = np.stack(ran).reshape(*lengths, -1)
        return arrays

    def write(name: str, arrays: dict[str, np.ndarray], step: int | None) -> None:
        about = {
            "schema": SCHEMA,
            "step": step,
            "sigmas": list(sigmas),
            "samples": list(samples),
            "captions": [data.captions[index] for index in samples],
            "versions": versions(),
        }
        content = save(arrays, metadata={"pare": json.dumps(about, sort_keys=True)})
        write_bytes(folder / ROLES / f"{name}.safetensors", content)

    def validate(student: Any, step: int) -> dict[str, Any]:
        known = folder / ROLES / f"{TEACHER}.safetensors"
        if not known.is_file():
            found = measure(teacher, step, TEACHER)
            if writes:
                write(TEACHER, found, None)
        training = student.training
        try:
            found = measure(student.eval(), step, "student")
        finally:
            student.train(training)
        if writes:
            write(f"{step:06d}", found, step)
        return {"roles": len(samples)}

    return validate


def _cast(inputs: dict[str, Any], dtype: torch.dtype | None) -> dict[str, Any]:
    """The inputs in the precision of a model that is not autocast; timesteps are never rounded."""
    return {
        name: value.to(dtype) if dtype is not None and isinstance(value, torch.Tensor) and name != "timestep" else value
        for name, value in inputs.items()
    }
