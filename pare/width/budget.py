"""How much to remove: counts from the pruning ratio p, and the p that meets a target, accounted by `pare.cost`."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from pare import cost
from pare.errors import InputError
from pare.geometry import Clip, Geometry
from pare.width.heads import check_ratio, kept_count
from pare.width.neuron_count import kept_neurons

# p is searched in these steps, so that the ratio found can be typed and gives the same counts.
RATIO_STEPS = 10_000
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
TARGETS = ("parameters", "flops", "gib")


@dataclass(frozen=True)
class Counts:
    """How many heads and neurons stay in every block: one number for all blocks, or one per block."""

    self_heads: int | tuple[int, ...]
    cross_heads: int | tuple[int, ...]
    neurons: int | tuple[int, ...]

    def per_block(self, blocks: int) -> dict[str, list[int]]:
        """The same as one number for every one of `blocks` blocks.

        >>> Counts(7, (6, 8), 448).per_block(2)
        {'self_heads': [7, 7], 'cross_heads': [6, 8], 'neurons': [448, 448]}
        """
        return {
            part: list(number) if isinstance(number, tuple) else [number] * blocks
            for part, number in asdict(self).items()
        }


@dataclass(frozen=True)
class Ratios:
    """Pruning ratios: `ratio` p for everything, or apart for what has one of its own; `prune_neurons` False keeps all.

    `min_heads` is the floor K_min per block (default: 8 of 40 in proportion), `neuron_multiple` the alignment.

    >>> from pare.geometry import PRESETS
    >>> Ratios().counts(PRESETS["wan2.1-t2v-14b"].geometry)
    Counts(self_heads=28, cross_heads=28, neurons=9600)
    """

    ratio: float = 0.3
    self_ratio: float | None = None
    cross_ratio: float | None = None
    neuron_ratio: float | None = None
    prune_neurons: bool = True
    min_heads: int | None = None
    neuron_multiple: int | None = None

    def counts(self, geometry: Geometry) -> Counts:
        """What stays in every block of a model. Raises InputError for values out of range, naming the flag."""
        for name in ("ratio", "self_ratio", "cross_ratio", "neuron_ratio"):
            if (value := getattr(self, name)) is not None:
                check_ratio(value, "--" + name.replace("_", "-"))
        neurons = kept_neurons(geometry.ffn, self._or_p(self.neuron_ratio), self.neuron_multiple)
        return Counts(
            self_heads=kept_count(geometry.heads, self._or_p(self.self_ratio), self.min_heads),
            cross_heads=kept_count(geometry.heads, self._or_p(self.cross_ratio), self.min_heads),
            neurons=neurons if self.prune_neurons else geometry.ffn,
        )

    def at(self, ratio: float) -> "Ratios":
        """The same with another p; ratios of their own stay."""
        return Ratios(**{**asdict(self), "ratio": ratio})

    def _or_p(self, own: float | None) -> float:
        return self.ratio if own is None else own


@dataclass(frozen=True)
class Target:
    """A size to come down to: at most `value` stored parameters, operations per forward of a clip, or GiB of memory.

    `kind` is parameters, flops or gib. GiB are the transformer's weights and the activations of one forward, at
    `bytes_per_value`, as `pare.cost.memory` counts them.
    """

    kind: str
    value: float

    def __post_init__(self) -> None:
        if self.kind not in TARGETS:
            raise InputError("target", got=self.kind, expected=" or ".join(TARGETS), fix="Target('gib', 16)")
        if not 0 < self.value < float("inf"):
            raise InputError(
                f"--target-{self.kind}", got=self.value, expected="a number above 0", fix="a size to reach"
            )


def predict(geometry: Geometry, clip: Clip | None, counts: Counts, dtype: str = "bfloat16") -> dict[str, Any]:
    """What a model with these counts costs beside the dense one; without a clip, its parameters alone.

    Parameters stored and in the blocks; operations per forward of the clip and their ratio to the dense model's; bytes
    of the weights and of weights plus activations in `dtype`.

    >>> from pare.geometry import PRESETS
    >>> found = predict(PRESETS["wan2.1-t2v-14b"].geometry, Clip(480, 832, 81), Counts(28, 28, 9600))
    >>> round(found["block_parameters"] / 1e9, 3), round(found["flop_ratio"], 3)
    (9.808, 0.699)
    """
    if dtype not in BYTES:
        raise InputError("--dtype", got=dtype, expected=f"one of {', '.join(BYTES)}", fix="--dtype bfloat16")
    kept = asdict(counts)
    after, dense = cost.parameters(geometry, **kept), cost.parameters(geometry)
    found: dict[str, Any] = {
        "parameters": after.total,
        "block_parameters": after.in_blocks,
        "dense_parameters": dense.total,
        "dense_block_parameters": dense.in_blocks,
        "dtype": dtype,
        "weight_bytes": after.total * BYTES[dtype],
        "dense_weight_bytes": dense.total * BYTES[dtype],
    }
    if clip is not None:
        work, all_work = cost.flops(geometry, clip, **kept).total, cost.flops(geometry, clip).total
        found |= {
            "flops": work,
            "dense_flops": all_work,
            "flop_ratio": work / all_work,
            "memory_bytes": cost.memory(geometry, clip, bytes_per_value=BYTES[dtype], **kept).total,
            "dense_memory_bytes": cost.memory(geometry, clip, bytes_per_value=BYTES[dtype]).total,
            "clip": asdict(clip),
        }
    return found


def ratio_for(
    geometry: Geometry, ratios: Ratios, target: Target, *, clip: Clip | None = None, dtype: str = "bfloat16"
) -> float:
    """The smallest p, in steps of 0.0001, whose counts meet the target: as little is removed as that allows.

    Counts, and so costs, never grow with p, which makes bisection exact. Ratios of their own do not move. Raises
    InputError where the floors keep the model above the target, and for operations or GiB without a clip.

    >>> from pare.geometry import PRESETS
    >>> ratio_for(PRESETS["wan2.1-t2v-14b"].geometry, Ratios(), Target("parameters", 10.05e9))
    0.3
    """
    size = _size(geometry, target.kind, clip, dtype)

    def meets(step: int) -> bool:
        return size(ratios.at(step / RATIO_STEPS).counts(geometry)) <= target.value

    low, high = 0, RATIO_STEPS - 1
    if not meets(high):
        least = size(ratios.at(high / RATIO_STEPS).counts(geometry))
        raise InputError(
            f"--target-{target.kind}",
            got=f"{target.value:.6g}",
            expected=f"at least {least:.6g}, what stays at the floors",
            fix="another target, a lower --min-heads, or other ratios of their own",
        )
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if meets(middle) else (middle + 1, high)
    return low / RATIO_STEPS


def _size(geometry: Geometry, kind: str, clip: Clip | None, dtype: str) -> Callable[[Counts], float]:
    if kind == "parameters":
        return lambda counts: cost.parameters(geometry, **asdict(counts)).total
    if clip is None:
        raise InputError(f"--target-{kind}", got="no size", expected="a clip", fix="add --height, --width and --frames")
    if kind == "flops":
        return lambda counts: cost.flops(geometry, clip, **asdict(counts)).total
    return lambda counts: cost.memory(geometry, clip, bytes_per_value=BYTES[dtype], **asdict(counts)).total / 2**30
