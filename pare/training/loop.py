"""The training loop: AdamW or Muon, warm-up, an exponential moving average, and a state that resumes to the same weights.

Everything random in a step is drawn from a generator seeded by (seed, step), so a state needs no random state beyond these two
numbers, and a run that was killed and resumed ends with the weights of one that was not.
"""

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pare.errors import InputError
from pare.progress import Progress, silent
from pare.training.optimisers import optimisers
from pare.training.state import load_state, save_state


@dataclass(frozen=True)
class LoopSettings:
    """Settings of one training: steps, rates (per group of parameters), schedule, average, and how often it saves.

    `matrix_rate` multiplies the learning rate of the matrices that Muon trains.
    The rate rises over `warmup` steps, holds, and falls linearly to zero over the last `decay_share` of the steps; a state saved
    while it holds can be continued to a larger number of steps as if that had been asked from the start.
    """

    steps: int
    learning_rate: float
    warmup: int = 100
    decay_share: float = 0.3
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.99)
    clip_norm: float = 1.0
    ema: float = 0.999
    checkpoint_every: int = 100
    log_every: int = 10
    seed: int = 0
    matrix_rate: float = 1.0


class Diverged(RuntimeError):
    """The loss or a gradient stopped being finite; the last good state is kept."""


def rate_factor(step: int, settings: LoopSettings) -> float:
    """The learning rate at a step over its peak: linear warm-up, constant, linear decay to zero.

    >>> settings = LoopSettings(steps=100, learning_rate=1.0, warmup=10, decay_share=0.5)
    >>> [round(rate_factor(step, settings), 2) for step in (0, 9, 49, 75, 99)]
    [0.1, 1.0, 1.0, 0.5, 0.02]
    """
    decay_steps = max(1, round(settings.steps * settings.decay_share))
    return min(1.0, (step + 1) / max(1, settings.warmup), (settings.steps - step) / decay_steps)


def step_generator(seed: int, step: int) -> torch.Generator:
    """The generator of a step: all that is random in it comes from here."""
    return torch.Generator().manual_seed((seed * 1_000_003 + step) % (2**63))


def train(
    model: nn.Module,
    loss: Callable[[nn.Module, int, torch.Generator], torch.Tensor],
    settings: LoopSettings,
    folder: Path,
    *,
    rates: Callable[[str], float] = lambda name: 1.0,
    by_muon: Callable[[str], bool] = lambda name: False,
    validate: Callable[[nn.Module, int], dict[str, Any]] | None = None,
    validate_every: int = 0,
    progress: Progress = silent,
) -> nn.Module:
    """Trains `model` in place, resuming from `folder/state` when there is one, and returns it with the averaged weights.

    Args:
        loss: (model, step, generator) -> scalar loss of that step.
        folder: holds `state/` and `log.jsonl` (step, loss, gradient norm, seconds; validation records).
        rates: multiplier of the learning rate by parameter name.
        by_muon: names of the weight matrices that Muon trains (see `optimisers`); AdamW trains all others.
        validate: called with the averaged model every `validate_every` steps and at the end; its dict is logged.
    Raises:
        Diverged: the loss or gradient norm is not finite; the state on disk is the last good one.
        InputError: the state on disk was made with other settings.
    """
    folder.mkdir(parents=True, exist_ok=True)
    named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    training = optimisers(named, settings, rates, by_muon)
    average = {name: parameter.detach().clone() for name, parameter in named.items()}
    first = _restore(folder / "state", named, average, training, settings)
    started = time.perf_counter()
    with (folder / "log.jsonl").open("a") as log:
        for step in range(first, settings.steps):
            for group in (group for optimiser in training for group in optimiser.param_groups):
                group["lr"] = settings.learning_rate * group["rate"] * rate_factor(step, settings)
            value = loss(model, step, step_generator(settings.seed, step))
            value.backward()
            norm = nn.utils.clip_grad_norm_(named.values(), settings.clip_norm)
            if not (math.isfinite(value.item()) and math.isfinite(norm.item())):
                raise Diverged(
                    f"training: got loss {value.item()} and gradient norm {norm.item()} at step {step}; expected finite "
                    f"numbers; fix: resume from the last good state with a lower learning rate than {settings.learning_rate}"
                )
            for optimiser in training:
                optimiser.step()
                optimiser.zero_grad(set_to_none=True)
            decay = min(settings.ema, (step + 1) / (step + 10))
            torch._foreach_lerp_(list(average.values()), [named[name].detach() for name in average], 1 - decay)
            done = step + 1
            if done % settings.log_every == 0 or done == settings.steps:
                record = {"step": done, "loss": value.item(), "gradient_norm": norm.item()}
                log.write(json.dumps(record | {"seconds": round(time.perf_counter() - started, 2)}) + "\n")
                log.flush()
            if validate is not None and validate_every and (done % validate_every == 0 or done == settings.steps):
                with averaged(model, average):
                    log.write(json.dumps({"step": done, "validation": validate(model, done)}) + "\n")
                    log.flush()
            if done % settings.checkpoint_every == 0 or done == settings.steps:
                _save(folder / "state", named, average, training, settings, done)
            progress(done, settings.steps, f"loss {value.item():.4f}")
    with torch.no_grad():
        for name, tensor in average.items():
            named[name].copy_(tensor)
    return model


class averaged:
    """Context in which a model holds the averaged weights; the trained ones return afterwards."""

    def __init__(self, model: nn.Module, average: dict[str, torch.Tensor]):
        self.model, self.average = model, average

    def __enter__(self) -> nn.Module:
        self.kept = {name: p.detach().clone() for name, p in self.model.named_parameters() if name in self.average}
        self._copy(self.average)
        return self.model

    def __exit__(self, *_: object) -> None:
        self._copy(self.kept)

    @torch.no_grad()
    def _copy(self, tensors: dict[str, torch.Tensor]) -> None:
        for name, parameter in self.model.named_parameters():
            if name in tensors:
                parameter.copy_(tensors[name])


def read_log(folder: Path) -> Iterator[dict[str, Any]]:
    """The records of `log.jsonl`, the last one of each kind and step (a resumed run repeats some)."""
    records: dict[tuple[int, bool], dict[str, Any]] = {}
    for line in (folder / "log.jsonl").read_text().splitlines():
        record = json.loads(line)
        records[record["step"], "validation" in record] = record
    yield from (records[key] for key in sorted(records))


def _save(folder, named, average, training, settings, done) -> None:
    tensors = {f"model.{name}": parameter for name, parameter in named.items()}
    tensors |= {f"average.{name}": tensor for name, tensor in average.items()}
    updates = {}
    # A parameter that has had no gradient yet has no moments: absent here, never zero.
    for name, state in _moments(named, training).items():
        tensors |= {f"moment.{key}.{name}": moment for key, moment in state.items() if key != "step"}
        updates[name] = int(state["step"]) if "step" in state else done
    save_state(folder, tensors, {"step": done, "settings": asdict(settings), "updates": updates})


def _moments(named, training) -> dict[str, dict[str, torch.Tensor]]:
    return {
        name: optimiser.state[parameter]
        for name, parameter in named.items()
        for optimiser in training
        if optimiser.state.get(parameter)
    }


def _restore(folder, named, average, training, settings) -> int:
    found = load_state(folder)
    if found is None:
        return 0
    tensors, record = found
    wanted = json.loads(json.dumps(asdict(settings)))
    held = record["step"] <= wanted["steps"] * (1 - wanted["decay_share"]) + 1
    same = {key for key in wanted if record["settings"].get(key) == wanted[key]}
    different = (
        set(wanted) - same - ({"steps", "checkpoint_every", "log_every"} if held else {"checkpoint_every", "log_every"})
    )
    if different:
        raise InputError(
            f"training state {folder}",
            got=", ".join(f"{key} {record['settings'].get(key)}" for key in sorted(different)),
            expected=", ".join(f"{key} {wanted[key]}" for key in sorted(different)),
            fix="use the settings it was made with, or another folder",
        )
    owners = {
        parameter: optimiser
        for optimiser in training
        for group in optimiser.param_groups
        for parameter in group["params"]
    }
    with torch.no_grad():
        for name, parameter in named.items():
            parameter.copy_(tensors[f"model.{name}"])
            average[name].copy_(tensors[f"average.{name}"])
    for key, tensor in tensors.items():
        kind, _, rest = key.partition(".")
        if kind == "moment":
            moment, _, name = rest.partition(".")
            owners[named[name]].state[named[name]][moment] = tensor.clone()
    for name, updates in record["updates"].items():
        if isinstance(owners[named[name]], torch.optim.AdamW):
            owners[named[name]].state[named[name]]["step"] = torch.tensor(float(updates))
    return record["step"]
