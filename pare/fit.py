"""Whether a model and a clip fit into an accelerator's memory, all of it there or one block at a time, and up to what size."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from pare import cost
from pare.errors import InputError
from pare.geometry import PIPELINE_MULTIPLE, Clip, Geometry, check_clip

Offload: TypeAlias = Literal["none", "group"]
OFFLOADS: tuple[Offload, ...] = ("none", "group")
GIB = 2**30


@dataclass(frozen=True)
class Fit:
    """What one forward of a clip needs in one mode of offload, and the largest clip of that shape and length that fits.

    Bytes: `weights` that are there at one time, `activations` of the clip, `budget`. `largest` is None where no size fits.
    """

    offload: Offload
    weights: int
    activations: int
    budget: int
    largest: Clip | None

    @property
    def total(self) -> int:
        """Weights and activations together."""
        return self.weights + self.activations

    @property
    def fits(self) -> bool:
        """Whether the clip itself fits."""
        return self.total <= self.budget


def fits(
    geometry: Geometry,
    clip: Clip,
    gib: int | float,
    *,
    bytes_per_value: int = 2,
    around_bytes: int = 0,
    **kept: Any,
) -> dict[Offload, Fit]:
    """For `none` and `group` offload: does one forward of the clip fit into `gib` GiB, and up to which size would it?

    Without offload all weights of the transformer, and `around_bytes` of text encoder and VAE, are there at once. With
    group offload it is the largest block, or everything outside of the blocks where that is more. Activations are those
    of `pare.cost.memory`, an upper estimate; decoding by the VAE, which comes later and has needs of its own, is not in
    it. `kept` are `pare.cost`'s counts (`self_heads`, `cross_heads`, `neurons`, `whole_query_key`): of a mask,
    `**mask.counts()`. Raises `InputError` for a size of memory that is none and a clip that the model cannot make.

    >>> from pare.geometry import PRESETS
    >>> found = fits(PRESETS["wan2.1-t2v-14b"].geometry, Clip(480, 832, 81), 16)
    >>> found["none"].fits, found["group"].fits, found["group"].largest
    (False, True, Clip(height=896, width=1552, frames=81))
    """
    if not (math.isfinite(gib) and gib > 0):
        raise InputError("--gib", got=gib, expected="a number of GiB above 0", fix="--gib 16")
    check_clip(geometry, clip)
    budget = int(gib * GIB)
    here = {
        "none": cost.parameters(geometry, **kept).total * bytes_per_value + around_bytes,
        "group": largest_group(geometry, **kept) * bytes_per_value,
    }

    def activations(size: Clip) -> int:
        return cost.memory(geometry, size, bytes_per_value=bytes_per_value, **kept).activations

    return {
        mode: Fit(
            mode, here[mode], activations(clip), budget, _largest(geometry, clip, budget - here[mode], activations)
        )
        for mode in OFFLOADS
    }


def largest_group(geometry: Geometry, **kept: Any) -> int:
    """Parameters of the largest thing that group offload holds at one time: a block, or all that lies outside of blocks.

    >>> from pare.geometry import PRESETS
    >>> largest_group(PRESETS["wan2.1-t2v-14b"].geometry)
    351394304
    """
    whole = bool(kept.get("whole_query_key", False))
    columns = [kept.get(name) for name in ("self_heads", "cross_heads", "neurons")]
    rows = [[each] * geometry.blocks if each is None or isinstance(each, int) else list(each) for each in columns]
    blocks = (
        cost.block_parameters(geometry, self_heads=own, cross_heads=cross, neurons=ffn, whole_query_key=whole).total
        for own, cross, ffn in zip(*rows, strict=True)
    )
    return max(*blocks, cost.parameters(geometry, **kept).outside)


def _largest(geometry: Geometry, clip: Clip, room: int, activations: Any) -> Clip | None:
    """The largest clip of the same proportions and length whose activations fit; sizes go in the model's own steps."""
    row, column = (math.lcm(PIPELINE_MULTIPLE, geometry.vae_spatial * patch) for patch in geometry.patch[1:])
    highest = geometry.max_positions * geometry.vae_spatial * geometry.patch[1]
    widest = geometry.max_positions * geometry.vae_spatial * geometry.patch[2]

    def size(steps: int) -> Clip:
        width = max(1, round(steps * row * clip.width / clip.height / column)) * column
        return dataclasses.replace(clip, height=steps * row, width=width)

    # Activations grow with the height, so the last size that fits is found by halving.
    low, high = 0, min(highest // row, int(widest * clip.height / clip.width) // row)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if activations(size(middle)) <= room else (low, middle - 1)
    return size(low) if low else None
