"""The neurons that stay in every block of a model on disk: its feed-forward weights are read block by block."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pare.errors import InputError
from pare.geometry import Geometry
from pare.progress import Progress, silent
from pare.stored_weights import open_weights
from pare.width.neurons import TAU_FFN, NeuronChoice, activation_importance, diverse, highest, neuron_importance

SCORERS = ("pare", "activation", "magnitude", "random")


@dataclass(frozen=True, eq=False)
class Neurons:
    """The neurons of a model that stay, `keep` bool [blocks, ffn]; `skipped` per block and pass, `taus` of the passes.

    `skipped` and `taus` are empty for scorers without Eq. 7.
    """

    keep: np.ndarray
    taus: tuple[float, ...] = ()
    skipped: tuple[tuple[int, ...], ...] = ()


def select_neurons(
    scorer: str,
    geometry: Geometry,
    count: int,
    *,
    weights: Path | None = None,
    mean_square: np.ndarray | None = None,
    tau: float = TAU_FFN,
    seed: int = 0,
    device: str = "auto",
    progress: Progress = silent,
) -> Neurons:
    """Choose `count` neurons in every block of a model.

    `scorer`: pare (Eq. 6 and 7), activation (root mean square of what a neuron adds; `mean_square` [blocks, ffn] is the
    moment `ffn/activation_square`), magnitude (Eq. 6 alone) or random (from `seed`, no weights). `weights` is the
    transformer's folder; one block's feed-forward weights are in memory at a time. `device` auto is the fastest here.
    Raises InputError for an unknown scorer and for what it needs and is not there.
    """
    if scorer not in SCORERS:
        raise InputError("--neurons", got=scorer, expected=f"one of {', '.join(SCORERS)}", fix="--neurons pare")
    if scorer == "random":
        # A stream of its own: heads are drawn from the seed itself.
        drawn = np.random.default_rng([seed, 1]).random((geometry.blocks, geometry.ffn))
        return _joined([highest(torch.from_numpy(row), count) for row in drawn])
    if scorer == "activation" and mean_square is None:
        fix = "give a RUN with moments, or --neurons pare"
        raise InputError("--neurons", got="activation without moments", expected="a run that has them", fix=fix)
    if weights is None:
        raise InputError("--neurons", got=f"{scorer} without weights", expected="a model", fix="--model MODEL")
    chosen = []
    for block, (up, down) in enumerate(_feed_forward(weights, geometry, _device(device))):
        if scorer == "pare":
            chosen.append(diverse(up, down, count, tau=tau))
        elif scorer == "magnitude":
            chosen.append(highest(neuron_importance(up, down), count))
        else:
            assert mean_square is not None
            chosen.append(highest(activation_importance(mean_square[block], down), count))
        progress(block + 1, geometry.blocks, f"neurons of block {block}")
    return _joined(chosen)


def _feed_forward(
    weights: Path, geometry: Geometry, device: torch.device
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """(W_up [ffn, dim], W_down [dim, ffn]) of every block."""
    with open_weights(weights) as stored:
        for block in range(geometry.blocks):
            names = (f"blocks.{block}.ffn.net.0.proj.weight", f"blocks.{block}.ffn.net.2.weight")
            shapes = (geometry.ffn, geometry.dim), (geometry.dim, geometry.ffn)
            up, down = (stored.tensor(*each).to(device) for each in zip(names, shapes, strict=True))
            yield up, down


def _joined(chosen: list[NeuronChoice]) -> Neurons:
    longest = max((each.passes for each in chosen), key=len)
    skipped = [tuple(one.skipped for one in each.passes) for each in chosen] if longest else []
    return Neurons(np.stack([each.keep for each in chosen]), tuple(one.tau for one in longest), tuple(skipped))


def _device(device: str) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    # Apple's GPUs have no float64, which the exact look needs.
    if device.startswith("mps"):
        return torch.device("cpu")
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise InputError("--device", got=device, expected="auto, cpu or cuda", fix="--device auto") from error
