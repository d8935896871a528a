"""The pruning mask: which self-attention heads, cross-attention heads and neurons of every block stay."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_safetensors

from pare.errors import InputError
from pare.files import write_bytes
from pare.geometry import Geometry

SCHEMA = "pare-mask/1"
PARTS = ("self_heads", "cross_heads", "neurons")
# Bytes: three tensors and settings fit into far less.
LONGEST_HEADER = 1 << 20
# What the metadata groups under a name, where it is there.
GROUPS = ("model", "settings", "run", "predicted", "neuron_passes")


@dataclass(frozen=True, eq=False)
class Mask:
    """True = keep: `self_heads` and `cross_heads` [blocks, heads], `neurons` [blocks, ffn].

    `metadata` may hold model (model_id, config_hash), settings (ratio, alpha, tau_s, tau_t, seed, scorer), run (path,
    hash), predicted (parameters, flops) and versions; a mask from elsewhere may hold nothing.

    >>> Mask(*(np.ones((2, 4), bool) for _ in range(3))).counts()
    {'self_heads': [4, 4], 'cross_heads': [4, 4], 'neurons': [4, 4]}
    """

    self_heads: np.ndarray
    cross_heads: np.ndarray
    neurons: np.ndarray
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for part in PARTS:
            values = getattr(self, part)
            if values.dtype != np.bool_ or values.ndim != 2 or len(values) != len(self.self_heads):
                raise InputError(
                    f"mask, {part}",
                    got=f"{values.dtype} {list(values.shape)}",
                    expected="booleans [blocks, heads] or [blocks, ffn], as many blocks in each",
                    fix="write the mask with pare mask",
                )
            if not values.any(axis=1).all():
                block = int(np.flatnonzero(~values.any(axis=1))[0])
                raise InputError(
                    f"mask, {part}", got=f"block {block} keeps none", expected="at least one", fix="keep one"
                )

    def counts(self) -> dict[str, list[int]]:
        """How many of each stay, per block."""
        return {part: getattr(self, part).sum(axis=1).tolist() for part in PARTS}

    @property
    def model_id(self) -> str:
        """The model the mask was made for, `unknown` where it does not say."""
        return str(self.metadata.get("model", {}).get("model_id", "unknown"))


def save(mask: Mask, path: str | Path) -> Path:
    """Write the mask as one safetensors file in one piece; the same mask gives the same bytes."""
    content = json.dumps({"schema": SCHEMA, **mask.metadata}, sort_keys=True, ensure_ascii=False)
    # One metadata key only: safetensors writes several in an order that changes from process to process.
    arrays = {part: np.ascontiguousarray(getattr(mask, part)) for part in PARTS}
    write_bytes(path, to_safetensors(arrays, metadata={"pare": content}))
    return Path(path)


def load(path: str | Path) -> Mask:
    """Read a mask. Raises InputError for a missing, unreadable or foreign file."""
    if not Path(path).is_file():
        raise InputError("MASK", got=path, expected="a mask file", fix="write one with pare mask RUN --out MASK")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = json.loads((file.metadata() or {}).get("pare", "{}"))
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise InputError(str(path), got=error, expected="a safetensors file", fix="write it again") from error
    if not isinstance(metadata, dict) or not all(isinstance(metadata.get(name, {}), dict) for name in GROUPS):
        raise InputError(str(path), got="other metadata", expected=f"that of {SCHEMA}", fix="write the mask again")
    schema = metadata.pop("schema", SCHEMA)
    if schema != SCHEMA or set(arrays) != set(PARTS):
        raise InputError(
            str(path),
            got=f"{schema} with {sorted(arrays)}",
            expected=f"{SCHEMA} with {sorted(PARTS)}",
            fix="use a mask",
        )
    return Mask(**arrays, metadata=metadata)


def is_mask(path: str | Path) -> bool:
    """Whether a file looks like a mask by its safetensors header, which is all that is read; `load` checks the rest."""
    try:
        with Path(path).open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= LONGEST_HEADER:
                return False
            header = json.loads(file.read(length))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(header, dict) and set(header) - {"__metadata__"} == set(PARTS)


def check(mask: Mask, geometry: Geometry, model: Mapping[str, Any]) -> None:
    """Raise InputError unless the mask fits a model: its shapes, and its configuration where the mask names one.

    `model` is the model's identity (model_id, config_hash); both models are named in the message.
    """
    name = model.get("model_id", "this model")
    expected = {
        "self_heads": (geometry.blocks, geometry.heads),
        "cross_heads": (geometry.blocks, geometry.heads),
        "neurons": (geometry.blocks, geometry.ffn),
    }
    for part, shape in expected.items():
        if getattr(mask, part).shape != shape:
            raise InputError(
                f"mask, {part}",
                got=f"{list(getattr(mask, part).shape)} of model {mask.model_id}",
                expected=f"{list(shape)} of model {name}",
                fix="use a mask of this model",
            )
    own = mask.metadata.get("model", {}).get("config_hash")
    if own and model.get("config_hash") and own != model["config_hash"]:
        raise InputError(
            "mask",
            got=f"a mask of {mask.model_id} (config {str(own)[:12]})",
            expected=f"one of {name} (config {model['config_hash'][:12]})",
            fix="use a mask of this model",
        )


def diff(a: Mask, b: Mask) -> dict[str, Any]:
    """What two masks of the same shape keep apart: per part, how many both keep, only one keeps, and the overlap.

    Overlap = kept by both / kept by either (Jaccard); `blocks` lists it per block.
    """
    result: dict[str, Any] = {}
    for part in PARTS:
        left, right = getattr(a, part), getattr(b, part)
        if left.shape != right.shape:
            raise InputError(
                f"masks, {part}",
                got=f"{list(left.shape)} and {list(right.shape)}",
                expected="the same shape",
                fix="compare masks of one model",
            )
        both, either = left & right, left | right
        result[part] = {
            "both": int(both.sum()),
            "only_a": int((left & ~right).sum()),
            "only_b": int((right & ~left).sum()),
            "overlap": float(both.sum() / either.sum()),
            "blocks": (both.sum(axis=1) / either.sum(axis=1)).tolist(),
            "changed": np.argwhere(left != right).tolist() if part != "neurons" else None,
        }
    return result


def to_json(mask: Mask) -> dict[str, Any]:
    """The mask for reading: metadata, counts, and the indices that stay per block (neurons: only where some went)."""
    kept = {
        part: [np.flatnonzero(row).tolist() for row in getattr(mask, part)] for part in ("self_heads", "cross_heads")
    }
    if not mask.neurons.all():
        kept["neurons"] = [np.flatnonzero(row).tolist() for row in mask.neurons]
    shapes = {part: list(getattr(mask, part).shape) for part in PARTS}
    return {"schema": SCHEMA, **mask.metadata, "shapes": shapes, "counts": mask.counts(), "kept": kept}
