"""What a capture is asked to measure, and how a run's manifest describes it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from analysis.catalogue import (
    BLOCK_STATISTICS,
    CHEAP,
    FRAME_MAP,
    GROUPS,
    IMAGE_ONLY,
    MOMENTS,
    ROW_STATISTICS,
    STATISTICS,
)
from analysis.manifest import BLOCK_AXES, HEAD_AXES, MAP_AXES, Manifest, Statistic
from analysis.rows import ROWS, rows_per_frame
from analysis.summary import summarised
from pare.errors import InputError
from pare.geometry import Geometry

MAP_STEPS = 5
# What safetensors writes about a file and about each of its tensors.
FILE_BYTES, TENSOR_BYTES = 64, 96


@dataclass(frozen=True)
class CaptureSpec:
    """What to measure: names of statistics, all that are cheap and that the model has unless given.

    `samples` limits a statistic to so many samples of a run, spread evenly. Frame maps are kept on the conditional
    branch, of `map_steps` steps: so many, spread evenly over a run, or these indices; a capture without a run keeps
    those of every step unless given indices. Sampled are about `rows` query rows, the same in every block, drawn with
    `seed`.

    >>> CaptureSpec(("self/ratio",), moments=False).statistics
    ('self/ratio',)
    """

    statistics: tuple[str, ...] = CHEAP
    moments: bool = True
    samples: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    map_steps: int | tuple[int, ...] = MAP_STEPS
    rows: int = ROWS
    seed: int = 0

    def __post_init__(self) -> None:
        for name in (*self.statistics, *self.samples):
            if name not in STATISTICS:
                known = ", ".join(STATISTICS)
                raise InputError("statistic", got=name, expected=f"one of {known}", fix="choose one of them")
        for what, number in (("rows", self.rows), ("samples", min(self.samples.values(), default=1))):
            if number < 1:
                raise InputError(what, got=number, expected="a number of at least 1", fix=f"leave {what} out")
        if isinstance(self.map_steps, int) and self.map_steps < 1:
            raise InputError("--maps-steps", got=self.map_steps, expected="at least 1", fix=f"--maps-steps {MAP_STEPS}")

    @classmethod
    def parse(cls, words: str, map_steps: int = MAP_STEPS) -> "CaptureSpec":
        """From the command line: names and groups with commas between; NAME:N in N samples only, the last one holds.

        >>> CaptureSpec.parse("basic,self/entropy:16").samples["self/entropy"]
        16
        """
        names: list[str] = []
        samples: dict[str, int] = {}
        for word in filter(None, (each.strip() for each in words.split(","))):
            name, colon, number = word.partition(":")
            if colon and not number.isdecimal():
                raise InputError("--statistics", got=word, expected="NAME:N, a number of samples", fix=f"{name}:16")
            members = GROUPS.get(name, (name,))
            names += members
            if colon and name != "all" and "moments" not in members:
                samples |= dict.fromkeys(members, int(number))
            elif colon:
                raise InputError("--statistics", got=word, expected="moments of all samples", fix=name)
        known = (*GROUPS, "moments", *STATISTICS)
        for name in names or ["nothing"]:
            if name not in known:
                raise InputError("--statistics", got=name, expected=f"{', '.join(known)}", fix="--statistics all")
        chosen = tuple(dict.fromkeys(name for name in names if name != "moments"))
        kept = {name: number for name, number in samples.items() if name in chosen}
        return cls(chosen, "moments" in names, MappingProxyType(kept), map_steps)

    @classmethod
    def of_sample(cls, manifest: Manifest, index: int) -> "CaptureSpec":
        """What one sample of a run is to have."""
        names = tuple(name for name in manifest.measured(index) if name in STATISTICS)
        map_steps = manifest.statistics[FRAME_MAP].steps if FRAME_MAP in names else None
        rows = manifest.query_rows or {"rows": ROWS, "seed": 0}
        return cls(names, bool(manifest.moments), {}, map_steps or MAP_STEPS, rows["rows"], rows["seed"])

    def describe(
        self,
        geometry: Geometry,
        *,
        steps: int,
        branches: Sequence[str],
        samples: int,
        num_frames: int,
        tokens_per_frame: int,
    ) -> dict[str, Statistic]:
        """The manifest's entry of every statistic that a model of this geometry has, for a run of these lengths."""
        lengths = {"block": geometry.blocks, "head": geometry.heads, "frame_q": num_frames, "frame_k": num_frames}
        drawn = rows_per_frame(num_frames, tokens_per_frame, self.rows)
        sampled = f"from {drawn * num_frames} query rows, {drawn} of every latent frame"
        described: dict[str, Statistic] = {}

        def put(name: str, axes: tuple[str, ...], unit: str, description: str, **more: Any) -> None:
            chosen = {"step": more.get("steps") or range(steps), "branch": more.get("branches") or branches}
            own = lengths | {axis: len(indices) for axis, indices in chosen.items()}
            shape = tuple(own[axis] for axis in axes)
            some = _spread(self.samples.get(name.removesuffix("_error"), samples), samples)
            described[name] = Statistic(
                axes=axes, shape=shape, unit=unit, description=description, samples=some, **more
            )

        for name in filter(self.present(geometry.added_kv_proj_dim is not None).__contains__, STATISTICS):
            unit, description = STATISTICS[name]
            if name == FRAME_MAP:
                kept = _spread(self.map_steps, steps, ends=True) if isinstance(self.map_steps, int) else self.map_steps
                only = {"steps": kept, "branches": ("cond",) if len(branches) > 1 else None}
                put(name, MAP_AXES, unit, description, method=sampled, dtype="float16", **only)
            elif name in ROW_STATISTICS:
                put(name, HEAD_AXES, unit, description, method=sampled)
                put(f"{name}_error", HEAD_AXES, unit, f"standard error of {name} over its query rows", method=sampled)
            else:
                put(name, BLOCK_AXES if name in BLOCK_STATISTICS else HEAD_AXES, unit, description)
        return described

    def describe_moments(self, geometry: Geometry) -> dict[str, Statistic]:
        """The manifest's entry of every moment that a model of this geometry has; none where they are not asked for."""
        lengths = {"block": geometry.blocks, "head": geometry.heads, "dim": geometry.head_dim, "neuron": geometry.ffn}
        return {
            name: Statistic(
                axes=axes,
                shape=tuple(lengths[axis] for axis in axes),
                unit=unit,
                description=description,
                method="mean over tokens, steps and branches of a sample, then over samples",
            )
            for name in self.present_moments(geometry.added_kv_proj_dim is not None)
            for axes, unit, description in [MOMENTS[name]]
        }

    def query_rows(self, num_frames: int, tokens_per_frame: int) -> dict[str, int] | None:
        """The manifest's entry of the sampled rows; None where nothing is estimated from them."""
        if not {*ROW_STATISTICS, FRAME_MAP} & set(self.statistics):
            return None
        drawn = rows_per_frame(num_frames, tokens_per_frame, self.rows)
        return {"rows": self.rows, "per_frame": drawn, "seed": self.seed}

    def present(self, image: bool) -> tuple[str, ...]:
        """The names asked for, less the image part unless cross-attention has an `image` part."""
        return tuple(name for name in self.statistics if image or name not in IMAGE_ONLY)

    def present_moments(self, image: bool) -> tuple[str, ...]:
        """The names of the moments, likewise; none where they are not asked for."""
        return tuple(name for name in MOMENTS if self.moments and (image or name not in IMAGE_ONLY))

    def keeps_map(self, step: int, branch: str) -> bool:
        """Whether the frame map of this step and branch is kept."""
        chosen = isinstance(self.map_steps, int) or step in self.map_steps
        return FRAME_MAP in self.statistics and branch == "cond" and chosen


def disk_bytes(statistics: Mapping[str, Statistic], moments: Mapping[str, Statistic], samples: int) -> int:
    """Bytes of a run's arrays as they stand when the last sample is written, without videos.

    That is the sample files, the summary, and the moments.
    """
    files = samples * FILE_BYTES
    for each in statistics.values():
        cells, size = math.prod(each.shape), {"float16": 2}.get(each.dtype, 4)
        files += (samples if each.samples is None else len(each.samples)) * (cells * size + TENSOR_BYTES)
        files += 12 * cells + 3 * TENSOR_BYTES if summarised(each, samples) else 0
    # Run-level means are float64, a count stands beside them.
    return files + sum(8 * math.prod(each.shape) + 4 * each.shape[0] + 2 * TENSOR_BYTES for each in moments.values())


def _spread(count: int, total: int, ends: bool = False) -> tuple[int, ...] | None:
    """`count` indices below `total` at even distances; None when that is all of them.

    >>> _spread(4, 200), _spread(5, 50, ends=True), _spread(5, 3)
    ((0, 50, 100, 150), (0, 12, 24, 37, 49), None)
    """
    if count >= total:
        return None
    if not ends or count == 1:
        return tuple(index * total // count for index in range(count))
    return tuple(round(index * (total - 1) / (count - 1)) for index in range(count))
