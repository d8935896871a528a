"""Multiply attention heads and feed-forward neurons of a Wan transformer by factors, while a context lasts.

A head is gated where it meets the output projection (the input of `attn.to_out[0]`), a neuron where it meets the second
linear layer of the feed-forward network. A factor of 0 is therefore the same, to rounding, as zero columns in that
layer's weight, and a factor of 1 is the model itself, bit for bit.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Shaped

from pare.errors import InputError
from pare.passes import ForwardPass, each_pass, wan_transformer

__all__ = ["Gates", "Schedule", "apply_gate", "check_gates", "gate_shapes", "gated", "wan_transformer"]

# A tensor or array over blocks, or one entry per block where blocks differ in width (None: leave the block alone).
PerBlock: TypeAlias = torch.Tensor | np.ndarray | Sequence[torch.Tensor | np.ndarray | None]

FACTORS = ("self_heads", "cross_heads", "neurons")
MEANS = {"self_heads": "self_means", "cross_heads": "cross_means", "neurons": "neuron_means"}


@dataclass(frozen=True, eq=False)
class Gates:
    """Factors g of heads and neurons: booleans (True = keep) or numbers, which may require gradients; None: all 1.

    `self_heads` and `cross_heads` are [blocks, heads], `neurons` [blocks, ffn]; a leading batch axis gives every sample
    of a batch its own. For image-to-video the cross factor acts on the sum of the text and the image part, which share
    the output projection. With a mean a gated output v becomes g·v + (1 − g)·mean instead of g·v: `self_means` and
    `cross_means` are [blocks, heads, head_dim], `neuron_means` [blocks, ffn].

    >>> Gates(self_heads=torch.ones(2, 4), neurons=np.ones((2, 32), bool)).parts()
    ('self_heads', 'neurons')
    """

    self_heads: PerBlock | None = None
    cross_heads: PerBlock | None = None
    neurons: PerBlock | None = None
    self_means: PerBlock | None = None
    cross_means: PerBlock | None = None
    neuron_means: PerBlock | None = None

    def parts(self) -> tuple[str, ...]:
        """Names of the factors that are given."""
        return tuple(part for part in FACTORS if getattr(self, part) is not None)


Schedule: TypeAlias = Callable[[ForwardPass], Gates | None]


@contextmanager
def gated(model: Any, gates: Gates | Schedule) -> Iterator[None]:
    """Gate every forward of a Wan pipeline's transformer (or of a Wan transformer) inside the block.

    `gates` holds for all forwards, or is a function of the pass (step, branch, timestep) that returns the gates of that
    forward, None for none. Contexts may be nested: inner gates act on what the outer ones left, so factors multiply.
    Gradients reach factors and means; run backward inside the block. LoRA adapters are to be loaded before it begins.
    Captured head norms are taken before the gates; block norms and the velocity after.

    No hook stays after a normal end, an exception or Ctrl-C. Raises InputError for a model that is no Wan transformer,
    a compiled one, gates that do not fit its shapes, and a gate function under gradient checkpointing.

    >>> with gated(pipe, Gates(self_heads=mask.self_heads)):  # doctest: +SKIP
    ...     video = pipe(prompt).frames
    """
    transformer = wan_transformer(model)
    shapes = gate_shapes(transformer)
    current: list[Gates | None] = [None]

    def begin(this: ForwardPass) -> None:
        assert callable(gates)
        if transformer.gradient_checkpointing and torch.is_grad_enabled():
            # The recomputation would see the gates of a later pass.
            raise InputError(
                "gates",
                got="a function of the pass, with gradient checkpointing",
                expected="fixed gates",
                fix="disable_gradient_checkpointing()",
            )
        current[0] = gates(this)
        if current[0] is not None:
            check_gates(current[0], shapes)

    with ExitStack() as stack:
        parts: tuple[str, ...] = FACTORS
        if isinstance(gates, Gates):
            check_gates(gates, shapes)
            current[0], parts = gates, gates.parts()
        else:
            stack.enter_context(each_pass(transformer, begin))
        for part in parts:
            for index, block in enumerate(transformer.blocks):
                layer = _consumer(block, part)
                handle = layer.register_forward_pre_hook(_gate_hook(current, part, index, shapes[part][index]))
                stack.callback(handle.remove)
        yield


def apply_gate(
    values: Float[torch.Tensor, "batch tokens width"],
    factor: Shaped[torch.Tensor, "units"] | Shaped[torch.Tensor, "samples units"],
    mean: Shaped[torch.Tensor, "units unit_width"] | None = None,
) -> Float[torch.Tensor, "batch tokens width"]:
    """g·v + (1 − g)·mean for every unit (a head: head_dim values, a neuron: one); g·v without a mean.

    `samples` is the batch, or 1. A factor of exactly 1 leaves values as they are bit for bit, whatever the mean: one
    that was never measured is NaN. The gradient for such a factor takes a mean that is not finite as 0.

    >>> apply_gate(torch.tensor([[[1.0, 2.0, 3.0, 4.0]]]), torch.tensor([True, False])).tolist()
    [[[1.0, 2.0, 0.0, 0.0]]]
    """
    if factor.ndim == 2 and len(factor) not in (1, len(values)):
        raise InputError(
            "gates", got=f"{len(factor)} samples", expected=f"a batch of {len(values)}", fix="one row each"
        )
    units = rearrange(values, "batch tokens (unit width) -> batch tokens unit width", unit=factor.shape[-1])
    gate = rearrange(torch.atleast_2d(factor).to(units), "samples unit -> samples 1 unit 1")
    result = units * gate
    if mean is not None:
        result = result + _rest(gate, mean.to(units))
    return rearrange(result, "batch tokens unit width -> batch tokens (unit width)")


def gate_shapes(model: Any) -> dict[str, tuple[tuple[int, int], ...]]:
    """(units, values per unit) of every block: {self_heads: ((heads, head_dim), …), …, neurons: ((ffn, 1), …)}."""
    transformer = wan_transformer(model)
    widths = dict.fromkeys(FACTORS, transformer.config.attention_head_dim) | {"neurons": 1}
    return {
        part: tuple((_consumer(block, part).in_features // width, width) for block in transformer.blocks)
        for part, width in widths.items()
    }


def check_gates(gates: Gates, shapes: dict[str, tuple[tuple[int, int], ...]]) -> None:
    """Raise InputError unless factors and means fit the shapes of `gate_shapes`."""
    for part in FACTORS:
        factors, means = getattr(gates, part), getattr(gates, MEANS[part])
        if factors is None and means is not None:
            raise InputError(MEANS[part], got="no factors", expected=f"{part} beside them", fix=f"give {part}")
        for values, name in ((factors, part), (means, MEANS[part])):
            if values is None:
                continue
            blocks = values.shape[-2] if name == part and hasattr(values, "shape") else len(values)
            if blocks != len(shapes[part]):
                raise InputError(
                    name, got=f"{blocks} blocks", expected=f"{len(shapes[part])}", fix="gates of this model"
                )
            for block, (units, width) in enumerate(shapes[part]):
                entry = _entry(values, block, batched=name == part)
                if entry is None:
                    continue
                expected = [units] if name == part or width == 1 else [units, width]
                fits = list(entry.shape[-len(expected) :]) == expected
                if not fits or entry.ndim > len(expected) + int(name == part):
                    raise InputError(
                        f"{name}, block {block}",
                        got=f"shape {list(entry.shape)}",
                        expected=f"{expected}",
                        fix="gates of this model",
                    )


def _rest(gate: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
    """(1 − g)·mean, −0 where g is 1: the one number that every number stays the same with when it is added."""
    known = torch.where((gate == 1) & ~mean.isfinite(), 0, mean)
    # Of the two ways to write 1 − g one gives +0 for g = 1 and one −0; both have the gradient −1.
    return torch.where(known.signbit(), 1 - gate, -(gate - 1)) * known


def _consumer(block: Any, part: str) -> Any:
    """The linear layer that reads the gated values."""
    if part == "neurons":
        return block.ffn.net[2]
    return (block.attn1 if part == "self_heads" else block.attn2).to_out[0]


def _gate_hook(current: list[Gates | None], part: str, block: int, shape: tuple[int, int]) -> Callable[..., Any]:
    def gate(module: torch.nn.Module, args: tuple[Any, ...]) -> Any:
        gates = current[0]
        factors = None if gates is None else getattr(gates, part)
        factor = None if factors is None else _entry(factors, block, batched=True)
        if factor is None:
            return None
        means = getattr(gates, MEANS[part])
        mean = None if means is None else _entry(means, block, batched=False)
        return apply_gate(args[0], factor, None if mean is None else mean.reshape(shape)), *args[1:]

    return gate


def _entry(values: PerBlock, block: int, *, batched: bool) -> torch.Tensor | None:
    """One block's part; a whole tensor of factors may have a batch axis in front of the blocks."""
    if isinstance(values, torch.Tensor | np.ndarray):
        entry = values[:, block] if batched and values.ndim == 3 else values[block]
    else:
        entry = values[block]
    if isinstance(entry, np.ndarray):
        entry = torch.from_numpy(np.require(entry, requirements=["C", "W"]))
    return entry
