"""The scorers of heads by name: Eq. 3 and what it is to be held against, all behind one protocol."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from accelerate.utils import align_module_device

from analysis.gate_scores import gate_gradient, gate_taylor, integrated_gradients
from analysis.interventions import leave_one_out
from analysis.probes import Probe
from analysis.recording import bin_centres
from analysis.runs import Run
from analysis.scores import Scores, pare_scores, projected_energy_scores, random_scores
from analysis.stored_magnitude import INPUT_LAYERS, OUTPUT_LAYER, head_squares
from pare.errors import InputError
from pare.gates import gate_shapes, wan_transformer
from pare.progress import Progress, silent


@dataclass(frozen=True, eq=False)
class Evidence:
    """What a scorer may look at; each takes what it needs and refuses what is missing.

    `run`: a capture. `model`: a Wan pipeline or transformer. `probes` and `timesteps` (0..1000): the fixed inputs of
    scorers that run the model. `seed`: of the random control.
    """

    run: Run | None = None
    model: Any = None
    probes: Sequence[Probe] = ()
    timesteps: tuple[float, ...] = bin_centres()[0]
    seed: int = 0


class Scorer(Protocol):
    """Scores every head of a model from the evidence; calls `progress` after every unit of work."""

    def __call__(self, evidence: Evidence, progress: Progress = silent) -> Scores: ...


def magnitude(model: Any) -> Scores:
    """‖(W_Q, W_K, W_V, W_O)‖_F of every head's slices, for image-to-video with the added keys and values.

    Weights only, no sample. Raises InputError for weights that are not loaded and for LoRA that is not fused.
    """
    transformer, shapes = wan_transformer(model), gate_shapes(model)
    values = {}
    for kind, name in (("self", "attn1"), ("cross", "attn2")):
        rows = [
            _squares(getattr(block, name), heads).sqrt().cpu().numpy()
            for block, (heads, _) in zip(transformer.blocks, shapes[f"{kind}_heads"], strict=True)
        ]
        values[kind] = np.full((len(rows), max(map(len, rows))), np.nan)
        for block, row in enumerate(rows):
            values[kind][block, : len(row)] = row
    return Scores("magnitude", values)


def score(name: str, evidence: Evidence, progress: Progress = silent) -> Scores:
    """Run the scorer of this name; InputError for a name that is not in `SCORERS` and for missing evidence."""
    if name not in SCORERS:
        raise InputError("scorer", got=name, expected=", ".join(SCORERS), fix="choose one of them")
    return SCORERS[name](evidence, progress)


def _pare(evidence: Evidence, progress: Progress = silent) -> Scores:
    return pare_scores(_run(evidence))


def _projected_energy(evidence: Evidence, progress: Progress = silent) -> Scores:
    return projected_energy_scores(_run(evidence))


def _gate_gradient(evidence: Evidence, progress: Progress = silent) -> Scores:
    return gate_gradient(_model(evidence), evidence.probes, evidence.timesteps, progress=progress)


def _gate_taylor(evidence: Evidence, progress: Progress = silent) -> Scores:
    return gate_taylor(_model(evidence), evidence.probes, evidence.timesteps, progress=progress)


def _integrated_gradients(evidence: Evidence, progress: Progress = silent) -> Scores:
    return integrated_gradients(_model(evidence), evidence.probes, evidence.timesteps, progress=progress)


def _leave_one_out(evidence: Evidence, progress: Progress = silent) -> Scores:
    return leave_one_out(_model(evidence), evidence.probes, evidence.timesteps, progress=progress)


def _magnitude(evidence: Evidence, progress: Progress = silent) -> Scores:
    return magnitude(_model(evidence))


def _random(evidence: Evidence, progress: Progress = silent) -> Scores:
    if evidence.model is None:
        geometry = _run(evidence).geometry
        return random_scores(geometry.blocks, geometry.heads, evidence.seed)
    heads = [units for units, _ in gate_shapes(evidence.model)["self_heads"]]
    return random_scores(len(heads), max(heads), evidence.seed)


SCORERS: Mapping[str, Scorer] = {
    "pare": _pare,
    "projected_energy": _projected_energy,
    "gate_gradient": _gate_gradient,
    "gate_taylor": _gate_taylor,
    "leave_one_out": _leave_one_out,
    "integrated_gradients": _integrated_gradients,
    "magnitude": _magnitude,
    "random": _random,
}


def _run(evidence: Evidence) -> Run:
    if evidence.run is None:
        raise InputError("scorer", got="no run", expected="a capture of the model", fix="Evidence(run=Run.open(RUN))")
    return evidence.run


def _model(evidence: Evidence) -> Any:
    if evidence.model is None:
        raise InputError(
            "scorer", got="no model", expected="a Wan pipeline", fix="Evidence(model=load_pipeline(MODEL))"
        )
    return evidence.model


def _squares(attention: Any, heads: int) -> torch.Tensor:
    """Sum of squares of one attention module's weights per head [heads], in float64."""
    total = torch.zeros(heads, dtype=torch.float64)
    layers = {name: getattr(attention, name, None) for name in INPUT_LAYERS} | {OUTPUT_LAYER: attention.to_out[0]}
    for name, layer in layers.items():
        if layer is None:
            continue
        if hasattr(layer, "base_layer") and not layer.merged:
            raise InputError(
                "magnitude", got="a LoRA beside the weights", expected="one weight", fix="pipe.fuse_lora()"
            )
        with align_module_device(getattr(layer, "base_layer", layer)):
            if layer.weight.is_meta:
                raise InputError("magnitude", got="weights not loaded", expected="loaded", fix="--offload model")
            total += head_squares(layer.weight.detach(), name, heads).cpu()
    return total
