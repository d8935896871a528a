"""How far a student is from the data and from its teacher on samples that it was not trained on."""

from collections.abc import Callable, Sequence
from statistics import fmean, stdev
from typing import Any, TypeAlias

import torch

from pare.training.data import LatentData
from pare.training.losses import velocity_loss
from pare.training.parallel import computing
from pare.training.plan import SIGMAS
from pare.training.sampling import noised
from pare.training.stages import teacher_velocity

Report: TypeAlias = Callable[[int, str], None]
"""Told (training step, what a validation is doing); it may raise `Cancelled`."""


def nobody(step: int, message: str) -> None:
    """A report that nobody reads."""


def held_out_errors(
    teacher: Any,
    data: LatentData,
    *,
    device: torch.device,
    compute: torch.dtype,
    sigmas: tuple[float, ...] = SIGMAS,
    report: Report = nobody,
) -> Callable[[Any, int], dict[str, Any]]:
    """A validation: mean squared error of the velocity against ε − x0 (`data`) and the teacher's (`teacher`), for every σ.

    Beside each the standard error of the mean over samples, where there are two or more. Noise is the same at every call; `n` is
    the number of held-out samples.
    """
    samples = range(len(data) - data.held_out, len(data))

    def validate(student: Any, step: int) -> dict[str, Any]:
        def told(message: str) -> None:
            report(step, f"validation: {message}")

        found = sample_errors(
            student, teacher, data, samples, device=device, compute=compute, sigmas=sigmas, report=told
        )
        result: dict[str, Any] = {"n": len(samples)}
        for sigma, errors in found.items():
            for name, values in errors.items():
                key = f"{name} error at sigma {sigma}"
                result[key] = round(fmean(values), 6)
                if len(values) > 1:
                    result[f"{key} standard error"] = round(stdev(values) / len(values) ** 0.5, 6)
        return result

    return validate


@torch.no_grad()
def sample_errors(
    student: Any,
    teacher: Any,
    data: LatentData,
    samples: Sequence[int],
    *,
    device: torch.device,
    compute: torch.dtype,
    sigmas: Sequence[float] = SIGMAS,
    report: Callable[[str], None] = lambda message: None,
) -> dict[float, dict[str, list[float]]]:
    """For every σ the squared error of every sample's velocity, against ε − x0 (`data`) and the teacher's (`teacher`).

    The noise of sample number i of the chosen ones has seed i at every call.
    """
    found: dict[float, dict[str, list[float]]] = {}
    for sigma in sigmas:
        errors: dict[str, list[float]] = {"data": [], "teacher": []}
        for number, index in enumerate(samples):
            report(f"σ = {sigma}, sample {number + 1} of {len(samples)}")
            batch = data.batch([index]).to(device)
            noise = torch.randn(batch.clean.shape, generator=torch.Generator().manual_seed(number)).to(device)
            level = torch.tensor([sigma], device=device)
            inputs = batch.inputs(noised(batch.clean, noise, level), level)
            with computing(device, compute):
                velocity = student(**inputs)[0]
            errors["data"].append(velocity_loss(velocity, noise - batch.clean).item())
            errors["teacher"].append(velocity_loss(velocity, teacher_velocity(teacher, inputs, compute)).item())
        found[sigma] = errors
    return found
