"""Scores from gates on all heads at once: gradients of the data loss (Michel et al. 2019) and their integral (captum)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from analysis.probes import Probe, data_loss
from analysis.scores import Scores
from pare.errors import InputError
from pare.gates import Gates, gate_shapes, gated, wan_transformer
from pare.progress import Progress, silent

KINDS = ("self", "cross")


@dataclass(frozen=True)
class HeadGates:
    """The gates of all heads of a model as one vector: self-attention block by block, then cross-attention.

    `heads` is the number of heads of every block, per kind.

    >>> HeadGates({"self": (2, 2), "cross": (2, 2)}).arrays(np.arange(8.0))["cross"].tolist()
    [[4.0, 5.0], [6.0, 7.0]]
    """

    heads: dict[str, tuple[int, ...]]

    @classmethod
    def of(cls, model: Any) -> "HeadGates":
        """The layout of a Wan pipeline or transformer."""
        shapes = gate_shapes(model)
        return cls({kind: tuple(units for units, _ in shapes[f"{kind}_heads"]) for kind in KINDS})

    @property
    def count(self) -> int:
        """Heads of both kinds."""
        return sum(sum(widths) for widths in self.heads.values())

    def gates(self, vector: Float[torch.Tensor, "batch gates"]) -> Gates:
        """The vector as gates, a row per sample of the batch; gradients go through."""
        parts = iter(vector.split([width for kind in KINDS for width in self.heads[kind]], dim=1))
        return Gates(**{f"{kind}_heads": [next(parts) for _ in self.heads[kind]] for kind in KINDS})

    def arrays(self, values: np.ndarray) -> dict[str, np.ndarray]:
        """Values [..., gates] as {kind: [..., block, head]}; NaN where a block has fewer heads than another."""
        result, start = {}, 0
        for kind in KINDS:
            widths = self.heads[kind]
            result[kind] = np.full((*values.shape[:-1], len(widths), max(widths)), np.nan)
            for block, width in enumerate(widths):
                result[kind][..., block, :width] = values[..., start : start + width]
                start += width
        return result


def gate_gradients(
    model: Any, probes: Sequence[Probe], timesteps: Sequence[float], *, progress: Progress = silent
) -> np.ndarray:
    """dL/dg of the data loss at g = 1 [sample, step, gates] (order: `HeadGates`), one forward and backward per cell.

    L is the flow-matching loss on clean latents; a teacher's loss would have no gradient here, where student and
    teacher are the same.
    """
    transformer = wan_transformer(model)
    layout, total = HeadGates.of(transformer), len(probes) * len(timesteps)
    _check(probes, timesteps)
    found = np.empty((len(probes), len(timesteps), layout.count))
    with _only_gates_learn(transformer):
        for sample, probe in enumerate(probes):
            for step, timestep in enumerate(timesteps):
                loss = _DataLoss(transformer, layout, probe, timestep, step)
                found[sample, step] = loss.gradient(loss.all_on())[0].numpy()
                message = f"sample {sample + 1} of {len(probes)}, timestep {timestep:g}"
                progress(sample * len(timesteps) + step + 1, total, message)
    return found


def gate_gradient(
    model: Any, probes: Sequence[Probe], timesteps: Sequence[float], *, progress: Progress = silent
) -> Scores:
    """E|dL/dg| over samples and timesteps (Michel et al. 2019, arXiv 1905.10650): how sensitive the loss is to a head."""
    layout = HeadGates.of(model)
    gradients = gate_gradients(model, probes, timesteps, progress=progress)
    return Scores("gate_gradient", layout.arrays(np.abs(gradients).mean(axis=1)))


def gate_taylor(
    model: Any, probes: Sequence[Probe], timesteps: Sequence[float], *, progress: Progress = silent
) -> Scores:
    """|E[g·dL/dg]|: to first order, how much the mean loss changes when the head goes (g from 1 to 0).

    At g = 1 one input's |g·dL/dg| is its |dL/dg|; what tells this score from `gate_gradient` is that the mean over
    samples and timesteps is taken before the absolute value, so that effects of opposite sign cancel as they do in the
    loss.
    """
    layout = HeadGates.of(model)
    gradients = gate_gradients(model, probes, timesteps, progress=progress)
    return Scores("gate_taylor", layout.arrays(gradients.mean(axis=1)), finish="absolute")


def integrated_gradients(
    model: Any, probes: Sequence[Probe], timesteps: Sequence[float], *, points: int = 16, progress: Progress = silent
) -> Scores:
    """Each head's share of the loss that all heads save: −∫ dL/dg_h(α·1) dα over α from 0 to 1, by captum.

    Chosen among captum's methods for what it adds. One head at a time, at g = 1, is what FeatureAblation (the same as
    `leave_one_out`) and the gradient scores see: two heads that stand in for each other both look useless there. The
    path from no head to all heads meets every degree of the others' absence, and the shares add up to L(0) − L(1)
    (completeness; the Aumann-Shapley values of cost sharing). ShapleyValueSampling has the same axiom but costs a
    forward per head for each of many permutations (3,200 heads at 14B); this costs `points` forwards and backwards per
    sample and timestep whatever the number of heads, without sampling noise. Its price: most of the path lies far from
    the model in use, and all heads fade together.

    Gauss-Legendre quadrature; `notes["completeness_error"]` is the largest |Σ shares − (L(0) − L(1))| / |L(0) − L(1)|
    of any sample and timestep: more `points` make it smaller. Memory is that of one forward and backward.
    """
    from captum.attr import IntegratedGradients

    transformer = wan_transformer(model)
    layout, total = HeadGates.of(transformer), len(probes) * len(timesteps) * points
    _check(probes, timesteps)
    shares = np.empty((len(probes), len(timesteps), layout.count))
    errors, done = [], iter(range(1, total + 1))
    with _only_gates_learn(transformer):
        for sample, probe in enumerate(probes):
            for step, timestep in enumerate(timesteps):
                loss = _DataLoss(transformer, layout, probe, timestep, step)
                message = f"sample {sample + 1} of {len(probes)}, timestep {timestep:g}"

                def gradient(
                    inputs: tuple[torch.Tensor, ...], loss: "_DataLoss" = loss, message: str = message, **_: Any
                ) -> tuple[torch.Tensor, ...]:
                    found = loss.gradient(inputs[0])
                    progress(next(done), total, message)
                    return (found,)

                method = IntegratedGradients(loss)
                # Captum's own runs backward after the forward has left its gates, which checkpointing does not allow.
                method.gradient_func = gradient
                ones = loss.all_on().detach()
                share = -method.attribute(ones, torch.zeros_like(ones), n_steps=points, internal_batch_size=1).detach()
                with torch.no_grad():
                    saved = (loss(torch.zeros_like(ones)) - loss(ones)).item()
                errors.append(abs(share.sum().item() - saved) / abs(saved) if saved else float("nan"))
                shares[sample, step] = share[0].numpy()
    notes = {"completeness_error": float(np.max(errors)), "points": float(points)}
    return Scores("integrated_gradients", layout.arrays(shares.mean(axis=1)), notes=notes)


@dataclass(frozen=True)
class _DataLoss:
    """The data loss of one probe at one timestep as a function of all head gates [batch, gates], on the CPU."""

    transformer: Any
    layout: HeadGates
    probe: Probe
    timestep: float
    step: int

    def __call__(self, vector: torch.Tensor) -> torch.Tensor:
        with gated(self.transformer, self.layout.gates(vector)):
            return data_loss(self.transformer, self.probe, self.timestep, step=self.step, batch=len(vector)).cpu()

    def gradient(self, vector: torch.Tensor) -> torch.Tensor:
        with torch.enable_grad(), gated(self.transformer, self.layout.gates(vector)):
            loss = data_loss(self.transformer, self.probe, self.timestep, step=self.step, batch=len(vector))
            return torch.autograd.grad(loss.sum(), vector)[0].cpu()

    def all_on(self) -> torch.Tensor:
        precision = torch.promote_types(self.transformer.dtype, torch.float32)
        return torch.ones(1, self.layout.count, dtype=precision, requires_grad=True)


@contextmanager
def _only_gates_learn(transformer: Any) -> Iterator[None]:
    """No activation is kept for weights whose gradient nobody asks for."""
    learning = [parameter for parameter in transformer.parameters() if parameter.requires_grad]
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)


def _check(probes: Sequence[Probe], timesteps: Sequence[float]) -> None:
    if not probes or not len(timesteps):
        got = f"{len(probes)} samples, {len(timesteps)} timesteps"
        raise InputError("scorer", got=got, expected="at least one each", fix="make_probes(pipe, prompts, settings)")
