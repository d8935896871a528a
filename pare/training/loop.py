"""The training loop: AdamW or Muon, warm-up, an exponential moving average, and a state that resumes to the same weights.

Everything random in a step is drawn from a generator seeded by (seed, step), so a state needs no random state beyond these two
numbers, and a run that was killed and resumed ends with the weights of one that was not.
"""

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from pare.errors import Cancelled, InputError
from pare.progress import Progress, silent
from pare.training.curves import Curves
from pare.training.log import LOG, read_log
from pare.training.optimisers import optimisers
from pare.training.parallel import Parallel
from pare.training.state import load_state, save_state


@dataclass(frozen=True)
class LoopSettings:
    """Settings of one training: steps, rates (per group of parameters), schedule, average, and how often it saves.

    `matrix_rate` multiplies the learning rate of the matrices that Muon trains.
    The rate rises over `warmup` steps, holds, and falls linearly to zero over the last `decay_share` of the steps (`schedule`
    hold); a state saved while it holds can be continued to a larger number of steps as if that had been asked from the start.
    With `schedule` cosine it falls along half a cosine after the warm-up. A step averages the gradients of `accumulation`
    batches a process; the weights' average is left out where `ema` is 0. `divergence`: the running mean of the loss (over about
    10 steps) may rise to so many times its lowest value; 0 asks only that it be finite. Parameters that rest learn in the first
    `learning_share` of the steps.
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
    schedule: str = "hold"
    accumulation: int = 1
    divergence: float = 0.0
    learning_share: float = 1.0


class Diverged(RuntimeError):
    """The loss or a gradient stopped being finite; the last good state is kept."""


def rate_factor(step: int, settings: LoopSettings) -> float:
    """The learning rate at a step over its peak: linear warm-up, then constant and linear to zero, or half a cosine.

    >>> settings = LoopSettings(steps=100, learning_rate=1.0, warmup=10, decay_share=0.5)
    >>> [round(rate_factor(step, settings), 2) for step in (0, 9, 49, 75, 99)]
    [0.1, 1.0, 1.0, 0.5, 0.02]
    """
    if settings.schedule == "cosine":
        span = max(1, settings.steps - settings.warmup)
        fall = 0.5 * (1 + math.cos(math.pi * max(0, step - settings.warmup) / span))
        return min(1.0, (step + 1) / max(1, settings.warmup)) * fall
    decay_steps = max(1, round(settings.steps * settings.decay_share))
    return min(1.0, (step + 1) / max(1, settings.warmup), (settings.steps - step) / decay_steps)


def step_generator(seed: int, step: int) -> torch.Generator:
    """The generator of a batch: all that is random in it comes from here. Batches are counted over steps and processes."""
    return torch.Generator().manual_seed((seed * 1_000_003 + step) % (2**63))


def train(
    model: nn.Module,
    loss: Callable[[nn.Module, int, torch.Generator], Any],
    settings: LoopSettings,
    folder: Path,
    *,
    rates: Callable[[str], float] = lambda name: 1.0,
    by_muon: Callable[[str], bool] = lambda name: False,
    rests: Callable[[str], bool] = lambda name: False,
    validate: Callable[[nn.Module, int], dict[str, Any]] | None = None,
    validate_every: int = 0,
    parallel: Parallel | None = None,
    tensorboard: bool = False,
    progress: Progress = silent,
) -> nn.Module:
    """Trains `model` in place, resuming from `folder/state` when there is one, and returns it with the averaged weights.

    Args:
        loss: (model, batch number, generator) -> scalar loss of that batch, or (loss, {name: scalar}) with parts to log. A step
            has `accumulation` batches of each process, so that two processes train as one does with twice the accumulation.
        folder: holds `state/`, `log.jsonl` (step, loss, gradient norm, seconds; validation records) and, where asked for,
            `tensorboard/`.
        rates: multiplier of the learning rate by parameter name.
        by_muon: names of the weight matrices that Muon trains (see `optimisers`); AdamW trains all others.
        rests: names of the parameters that learn in the first `learning_share` of the steps alone.
        validate: called with the averaged model every `validate_every` steps and at the end; its dict is logged.
        parallel: the processes that train together; `model` is what its `place` returned.
    Cancelled from `progress`, or within a validation, saves the state first; a validation that was cut off is made up for.
    Raises:
        Diverged: the loss or gradient norm is not finite, or the loss rose beyond `divergence`; the state on disk is the last
            good one.
        InputError: the state on disk was made with other settings.
    """
    folder.mkdir(parents=True, exist_ok=True)
    group_of = parallel or Parallel()
    whole = group_of.whole(model)
    named = {name: parameter for name, parameter in whole.named_parameters() if parameter.requires_grad}
    training = optimisers(named, settings, rates, by_muon, rests)
    average = {name: parameter.detach().clone() for name, parameter in named.items()} if settings.ema else {}
    first, watch = _restore(folder / "state", named, average, training, settings, group_of)
    batches = settings.accumulation * group_of.count

    def save(done: int) -> None:
        _save(folder / "state", named, average, training, settings, done, watch, group_of)

    def check(done: int) -> None:
        due = validate_every and (done % validate_every == 0 or done == settings.steps)
        if validate is None or not due or not done:
            return
        weights = averaged(whole, average)
        try:
            with weights:
                record = validate(whole, done)
        except Cancelled:
            # It may have come while the trained weights were put back.
            weights.put_back()
            raise
        curves.write({"step": done, "validation": record})

    with Curves(folder, first, tensorboard=tensorboard) if group_of.leads else Curves.none() as curves:
        if group_of.count == 1 and not _validated(folder, first):
            check(first)
        for step in range(first, settings.steps):
            factor = rate_factor(step, settings)
            for group in (group for optimiser in training for group in optimiser.param_groups):
                resting = group["rests"] and step >= settings.learning_share * settings.steps
                group["lr"] = 0.0 if resting else settings.learning_rate * group["rate"] * factor
            sums: dict[str, torch.Tensor] = {}
            for turn in range(settings.accumulation):
                number = step * batches + turn * group_of.count + group_of.rank
                with group_of.alone_until(model, turn == settings.accumulation - 1):
                    found = loss(model, number, step_generator(settings.seed, number))
                    value, parts = found if isinstance(found, tuple) else (found, {})
                    (value / settings.accumulation).backward()
                for name, part in {"loss": value, **parts}.items():
                    sums[name] = sums.get(name, 0) + part.detach() / settings.accumulation
            norm = group_of.full(nn.utils.clip_grad_norm_(named.values(), settings.clip_norm))
            means = dict(
                zip(sums, group_of.mean(torch.stack([each.float() for each in sums.values()])).tolist(), strict=True)
            )
            watch = _watched(watch, means["loss"], norm.item(), step, settings)
            for optimiser in training:
                optimiser.step()
                optimiser.zero_grad(set_to_none=True)
            if average:
                decay = min(settings.ema, (step + 1) / (step + 10))
                targets = [_local(each) for each in average.values()]
                torch._foreach_lerp_(targets, [_local(named[name].detach()) for name in average], 1 - decay)
            done = step + 1
            if done % settings.log_every == 0 or done == settings.steps:
                rate = settings.learning_rate * factor
                curves.write({"step": done, **means, "gradient_norm": norm.item(), "learning_rate": rate})
            saved = False
            try:
                check(done)
                if done % settings.checkpoint_every == 0 or done == settings.steps:
                    save(done)
                    saved = True
                progress(done, settings.steps, f"loss {means['loss']:.4f}")
            except Cancelled:
                # Other processes do not know of it; alone, nothing is lost.
                if not saved and group_of.count == 1:
                    save(done)
                raise
    with torch.no_grad():
        for name, tensor in average.items():
            _local(named[name]).copy_(_local(tensor))
    return model


class averaged:
    """Context in which a model holds the averaged weights; the trained ones return afterwards."""

    def __init__(self, model: nn.Module, average: dict[str, torch.Tensor]):
        self.model, self.average = model, average
        self.kept: dict[str, torch.Tensor] = {}

    def __enter__(self) -> nn.Module:
        named = dict(self.model.named_parameters())
        self.named = {name: named[name] for name in self.average}
        self.kept = {name: parameter.detach().clone() for name, parameter in self.named.items()}
        self._copy(self.average)
        return self.model

    def __exit__(self, *_: object) -> None:
        # A forward without a backward pass leaves gathered weights behind, which would be used once more.
        for module in self.model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()
        self.put_back()

    def put_back(self) -> None:
        """The trained weights again; once more changes nothing."""
        self._copy(self.kept)

    @torch.no_grad()
    def _copy(self, tensors: dict[str, torch.Tensor]) -> None:
        for name, tensor in tensors.items():
            _local(self.named[name]).copy_(_local(tensor))


def _validated(folder: Path, done: int) -> bool:
    """Whether the log has the validation of this step."""
    there = (folder / LOG).is_file()
    return there and any(each["step"] == done and "validation" in each for each in read_log(folder))


def _local(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor, or this process's shard of it."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _watched(watch, loss: float, norm: float, step: int, settings: LoopSettings) -> dict[str, float]:
    """The running mean of the loss and its lowest value after this step. Raises Diverged."""
    # Resumed, it would draw the same batches at the same rate.
    advice = f"fix: begin in another folder with a lower learning rate than {settings.learning_rate:g}; the last good state is kept"
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise Diverged(
            f"training: got loss {loss} and gradient norm {norm} at step {step}; expected finite numbers; {advice}"
        )
    mean = loss if not watch else 0.9 * watch["mean"] + 0.1 * loss
    lowest = min(mean, watch.get("lowest", mean))
    if settings.divergence and mean > settings.divergence * lowest:
        raise Diverged(
            f"training: got a mean loss of {mean:.4g} at step {step}; expected at most {settings.divergence:g} times its lowest "
            f"so far, {lowest:.4g}; {advice}"
        )
    return {"mean": mean, "lowest": lowest}


def _save(folder, named, average, training, settings, done, watch, parallel) -> None:
    tensors = [(f"model.{name}", parameter) for name, parameter in named.items()]
    tensors += [(f"average.{name}", tensor) for name, tensor in average.items()]
    updates = {}
    # A parameter that has had no gradient yet has no moments: absent here, never zero.
    for name, state in _moments(named, training).items():
        tensors += [(f"moment.{key}.{name}", moment) for key, moment in state.items() if key != "step"]
        updates[name] = int(state["step"]) if "step" in state else done
    record = {"step": done, "settings": asdict(settings), "updates": updates, "watch": watch}
    record["batches"] = settings.accumulation * parallel.count
    if parallel.leads:
        save_state(folder, parallel.gathered(sorted(tensors)), record)
    else:
        for _ in parallel.gathered(sorted(tensors)):
            pass
    parallel.wait()


def _moments(named, training) -> dict[str, dict[str, torch.Tensor]]:
    return {
        name: optimiser.state[parameter]
        for name, parameter in named.items()
        for optimiser in training
        if optimiser.state.get(parameter)
    }


def _restore(folder, named, average, training, settings, parallel) -> tuple[int, dict[str, float]]:
    found = load_state(folder)
    if found is None:
        return 0, {}
    tensors, record = found
    _check_settings(folder, record, settings, settings.accumulation * parallel.count)
    owners = {
        parameter: optimiser
        for optimiser in training
        for group in optimiser.param_groups
        for parameter in group["params"]
    }
    with torch.no_grad():
        for name, parameter in named.items():
            parallel.copy_into(parameter, tensors[f"model.{name}"])
            if average:
                parallel.copy_into(average[name], tensors[f"average.{name}"])
        for key in tensors:
            kind, _, rest = key.partition(".")
            if kind == "moment":
                moment, _, name = rest.partition(".")
                like = torch.empty_like(named[name], dtype=tensors[key].dtype)
                parallel.copy_into(like, tensors[key])
                owners[named[name]].state[named[name]][moment] = like
    for name, updates in record["updates"].items():
        if isinstance(owners[named[name]], torch.optim.AdamW):
            owners[named[name]].state[named[name]]["step"] = torch.tensor(float(updates))
    return record["step"], record.get("watch", {})


def _check_settings(folder: Path, record: dict[str, Any], settings: LoopSettings, batches: int) -> None:
    """Raises InputError where the state was made with settings that lead to other weights."""
    wanted = json.loads(json.dumps(asdict(settings)))
    # A state from before a setting existed was made with its default.
    there = {each.name: each.default for each in fields(LoopSettings)} | record["settings"]
    held = settings.schedule == "hold" and record["step"] <= wanted["steps"] * (1 - wanted["decay_share"]) + 1
    free = {"checkpoint_every", "log_every", "divergence"} | ({"steps"} if held else set())
    # Other processes, with as many batches in a step, train the same.
    free |= {"accumulation"} if record.get("batches") == batches else set()
    if different := sorted(key for key in wanted if there.get(key) != wanted[key] and key not in free):
        raise InputError(
            f"training state {folder}",
            got=", ".join(f"{key} {there.get(key)}" for key in different),
            expected=", ".join(f"{key} {wanted[key]}" for key in different),
            fix="use the settings it was made with, or another folder",
        )
