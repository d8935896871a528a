"""How far a student is from the data and from its teacher on samples that it was not trained on."""

from collections.abc import Callable
from typing import Any

import torch

from pare.training.data import LatentData
from pare.training.losses import velocity_loss
from pare.training.parallel import computing
from pare.training.sampling import noised
from pare.training.stages import teacher_velocity

SIGMAS = (0.2, 0.5, 0.8)


def held_out_errors(
    teacher: Any, data: LatentData, *, device: torch.device, compute: torch.dtype, sigmas: tuple[float, ...] = SIGMAS
) -> Callable[[Any, int], dict[str, Any]]:
    """A validation: mean squared error of the velocity against ε − x0 (`data`) and the teacher's (`teacher`), for every σ.

    Noise is the same at every call; `n` is the number of held-out samples.
    """
    samples = range(len(data) - data.held_out, len(data))

    @torch.no_grad()
    def validate(student: Any, step: int) -> dict[str, Any]:
        result: dict[str, Any] = {"n": len(samples)}
        for sigma in sigmas:
            errors = {"data": 0.0, "teacher": 0.0}
            for number, index in enumerate(samples):
                batch = data.batch([index]).to(device)
                noise = torch.randn(batch.clean.shape, generator=torch.Generator().manual_seed(number)).to(device)
                level = torch.tensor([sigma], device=device)
                inputs = batch.inputs(noised(batch.clean, noise, level), level)
                with computing(device, compute):
                    velocity = student(**inputs)[0]
                for name, target in (
                    ("data", noise - batch.clean),
                    ("teacher", teacher_velocity(teacher, inputs, compute)),
                ):
                    errors[name] += velocity_loss(velocity, target).item() / len(samples)
            result |= {f"{name} error at sigma {sigma}": round(value, 6) for name, value in errors.items()}
        return result

    return validate
