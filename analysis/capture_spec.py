"""What a capture measures: the statistics by name, each with its unit and meaning."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from analysis.manifest import BLOCK_AXES, HEAD_AXES, Statistic
from pare.errors import InputError

# name → unit, what it is.
HEAD_STATISTICS: Mapping[str, tuple[str, str]] = {
    "self/ratio": (
        "share",
        "intra-slice ratio r: attention that stays in the query's latent frame, mean of all queries",
    ),
    "self/value_norm": ("activation", "‖ṽ‖_F of the head's self-attention output over tokens x head_dim"),
    "cross/value_norm": ("activation", "‖ṽ‖_F of the head's cross-attention output, text part"),
    "cross/image_value_norm": ("activation", "‖ṽ‖_F of the head's cross-attention output, image part"),
}
BLOCK_STATISTICS: Mapping[str, tuple[str, str]] = {
    "block/residual_norm": ("activation", "‖B(x) − x‖_F over tokens x width"),
    "block/input_norm": ("activation", "‖x‖_F over tokens x width"),
    "block/cosine": ("cosine", "⟨x, B(x)⟩ / (‖x‖·‖B(x)‖), tokens x width as one vector"),
}


@dataclass(frozen=True)
class CaptureSpec:
    """What to measure: names from `HEAD_STATISTICS` and `BLOCK_STATISTICS`, all that the model has unless given.

    >>> CaptureSpec(("self/ratio",)).statistics
    ('self/ratio',)
    """

    statistics: tuple[str, ...] = (*HEAD_STATISTICS, *BLOCK_STATISTICS)

    def __post_init__(self) -> None:
        known = (*HEAD_STATISTICS, *BLOCK_STATISTICS)
        for name in self.statistics:
            if name not in known:
                raise InputError("statistic", got=name, expected=f"one of {', '.join(known)}", fix="choose one of them")

    def describe(self, transformer: torch.nn.Module, steps: int, branches: tuple[str, ...]) -> dict[str, Statistic]:
        """The manifest's entry of every statistic that this transformer has."""
        blocks, heads = len(transformer.blocks), transformer.blocks[0].attn1.heads
        shapes = {HEAD_AXES: (steps, len(branches), blocks, heads), BLOCK_AXES: (steps, len(branches), blocks)}
        return {
            name: Statistic(axes=axes, shape=shapes[axes], unit=unit, description=description)
            for axes, known in ((HEAD_AXES, HEAD_STATISTICS), (BLOCK_AXES, BLOCK_STATISTICS))
            for name, (unit, description) in known.items()
            if name in self.present(transformer)
        }

    def present(self, transformer: torch.nn.Module) -> tuple[str, ...]:
        """The names asked for, less the image part where the model attends to no image."""
        image = transformer.blocks[0].attn2.add_k_proj is not None
        return tuple(name for name in self.statistics if image or name != "cross/image_value_norm")
