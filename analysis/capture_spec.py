"""What a capture measures: the statistics by name, each with its unit and meaning."""

from collections.abc import Mapping
from dataclasses import dataclass

from analysis.manifest import BLOCK_AXES, HEAD_AXES, Statistic
from pare.errors import InputError
from pare.geometry import Geometry

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

    def describe(self, geometry: Geometry, steps: int, branches: int) -> dict[str, Statistic]:
        """The manifest's entry of every statistic that a model of this geometry has, for so many steps and branches."""
        blocks = (steps, branches, geometry.blocks)
        shapes = {HEAD_AXES: (*blocks, geometry.heads), BLOCK_AXES: blocks}
        names = self.present(geometry.added_kv_proj_dim is not None)
        return {
            name: Statistic(axes=axes, shape=shapes[axes], unit=unit, description=description)
            for axes, known in ((HEAD_AXES, HEAD_STATISTICS), (BLOCK_AXES, BLOCK_STATISTICS))
            for name, (unit, description) in known.items()
            if name in names
        }

    def present(self, image: bool) -> tuple[str, ...]:
        """The names asked for, less the image part unless cross-attention has an `image` part."""
        return tuple(name for name in self.statistics if image or name != "cross/image_value_norm")
