"""What the config of a pruned transformer says: how wide every block is, and which heads and neurons it kept.

Heads are lists of indices; neurons, thousands a block, are bitmaps in hexadecimal digits, four neurons a digit, the
first neuron in the highest bit. `None` stands for all of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from pare.errors import InputError

QueryKeyNorm: TypeAlias = Literal["none", "fold", "exact"]
QUERY_KEY_NORMS: tuple[QueryKeyNorm, ...] = get_args(QueryKeyNorm)
PARTS = ("self_heads", "cross_heads", "neurons")


@dataclass(frozen=True)
class BlockWidth:
    """How many self-attention heads, cross-attention heads and neurons one block has."""

    self_heads: int
    cross_heads: int
    neurons: int


def widths(config: Mapping[str, Any]) -> tuple[BlockWidth, ...]:
    """The widths of all blocks of a transformer, stock or pruned, from its config.

    Raises `InputError` for widths that do not fit the model's number of blocks, heads or neurons.

    >>> widths({"num_layers": 2, "num_attention_heads": 4, "ffn_dim": 32, "self_heads": [4, 3]})
    (BlockWidth(self_heads=4, cross_heads=4, neurons=32), BlockWidth(self_heads=3, cross_heads=4, neurons=32))
    """
    blocks = config["num_layers"]
    columns = []
    for part in PARTS:
        whole = _whole(config, part)
        counts = config.get(part)
        column = [whole] * blocks if counts is None else list(counts)
        if len(column) != blocks or not all(isinstance(each, int) and 1 <= each <= whole for each in column):
            raise _config_error(part, column, f"{blocks} whole numbers from 1 to {whole}")
        columns.append(column)
    return tuple(BlockWidth(*block) for block in zip(*columns, strict=True))


def counts(config: Mapping[str, Any]) -> dict[str, list[int]]:
    """The same by part, as `pare.cost` takes it; empty for a model of which nothing was cut.

    >>> counts({"num_layers": 2, "num_attention_heads": 4, "ffn_dim": 32, "neurons": [8, 16]})
    {'neurons': [8, 16]}
    """
    blocks = widths(config)
    return {part: [getattr(each, part) for each in blocks] for part in PARTS if config.get(part) is not None}


def cost_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """What `pare.cost` is to be told of a transformer beside its geometry, which is that of the base model.

    >>> cost_arguments({"num_layers": 1, "num_attention_heads": 4, "ffn_dim": 32, "self_heads": [3],
    ...     "qk_norm_mode": "exact"})
    {'self_heads': [3], 'whole_query_key': True}
    """
    exact = {"whole_query_key": True} if config.get("qk_norm_mode") == "exact" else {}
    return {**counts(config), **exact}


def kept(config: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Which units of the base model stayed: booleans [blocks, heads] or [blocks, ffn] by part, all where nothing went.

    Raises `InputError` for a config with widths but without indices, and for indices that do not fit the widths.

    >>> config = {"num_layers": 1, "num_attention_heads": 4, "ffn_dim": 8, "neurons": [3], "kept_neurons": ["a1"]}
    >>> kept(config)["neurons"].astype(int).tolist()
    [[1, 0, 1, 0, 0, 0, 0, 1]]
    """
    blocks, result = widths(config), {}
    for part in PARTS:
        whole, entries = _whole(config, part), config.get(f"kept_{part}")
        if entries is None:
            if config.get(part) is not None:
                raise _config_error(f"kept_{part}", "none", f"the indices behind {part}")
            result[part] = np.ones((len(blocks), whole), bool)
            continue
        decode = unpack if part == "neurons" else from_indices
        rows = [decode(entry, whole) for entry in entries]
        if [int(row.sum()) for row in rows] != [getattr(each, part) for each in blocks]:
            raise _config_error(
                f"kept_{part}", f"{[int(row.sum()) for row in rows]} a block", f"as many as {part} says"
            )
        result[part] = np.stack(rows)
    return result


def describe(keep: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The config entries of a model that keeps these; nothing for a part that keeps all.

    >>> describe({"self_heads": np.array([[True, False, True]]), "neurons": np.ones((1, 8), bool)})
    {'self_heads': [2], 'kept_self_heads': [[0, 2]]}
    """
    entries: dict[str, Any] = {}
    for part, rows in keep.items():
        if rows.all():
            continue
        entries[part] = rows.sum(axis=1).tolist()
        entries[f"kept_{part}"] = [pack(row) if part == "neurons" else np.flatnonzero(row).tolist() for row in rows]
    return entries


def is_pruned(config: Mapping[str, Any]) -> bool:
    """Whether any head or neuron of the base model is gone."""
    return any(config.get(part) is not None for part in PARTS)


def pack(row: np.ndarray) -> str:
    """A row of booleans as hexadecimal digits.

    >>> pack(np.array([True, False, False, False, False, False, False, True, True]))
    '818'
    """
    return np.packbits(row).tobytes().hex()[: -(-len(row) // 4)]


def unpack(digits: str, length: int) -> np.ndarray:
    """The row of `length` booleans that `pack` wrote.

    >>> unpack("818", 9).astype(int).tolist()
    [1, 0, 0, 0, 0, 0, 0, 1, 1]
    """
    try:
        bits = np.unpackbits(np.frombuffer(bytes.fromhex(digits + "0" * (len(digits) % 2)), np.uint8))
    except ValueError as error:
        raise _config_error("kept_neurons", digits[:20], "hexadecimal digits") from error
    if len(digits) != -(-length // 4) or bits[length:].any():
        raise _config_error("kept_neurons", f"{len(digits)} digits", f"a bitmap of {length} neurons")
    return bits[:length].astype(bool)


def from_indices(indices: Sequence[int], length: int) -> np.ndarray:
    """The row of `length` booleans that is true at the indices, which ascend.

    >>> from_indices([0, 2], 4).tolist()
    [True, False, True, False]
    """
    if list(indices) != sorted(set(indices)) or not all(0 <= index < length for index in indices):
        raise _config_error("kept heads", list(indices), f"ascending indices from 0 to {length - 1}")
    row = np.zeros(length, bool)
    row[list(indices)] = True
    return row


def _whole(config: Mapping[str, Any], part: str) -> int:
    return config["ffn_dim" if part == "neurons" else "num_attention_heads"]


def _config_error(name: str, got: object, expected: str) -> InputError:
    return InputError(f"transformer config, {name}", got=got, expected=expected, fix="prune the base model again")
