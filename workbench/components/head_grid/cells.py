"""From one row per head to the dense table that the browser draws."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from pare.errors import InputError

# Bits of the column `flags`.
UNIFORM, FIRST_FRAME_SINK, FLIPPED = 1, 2, 4


def grid_shape(frame: pd.DataFrame, blocks: int | None = None, heads: int | None = None) -> tuple[int, int]:
    """The grid's (blocks, heads): as given, else as many as `frame` names.

    >>> grid_shape(pd.DataFrame({"block": [0, 1], "head": [2, 0], "ratio": [0.5, 0.9]}))
    (2, 3)
    """
    for column in ("block", "head", "ratio"):
        if column not in frame:
            raise _bad(f"columns {', '.join(map(str, frame.columns)) or 'none'}", "columns block, head and ratio")
    shape = tuple(
        int(given) if given is not None else (int(frame[column].max()) + 1 if len(frame) else 0)
        for column, given in (("block", blocks), ("head", heads))
    )
    if min(shape) < 1:
        raise _bad(f"{shape[0]} blocks and {shape[1]} heads", "at least one block and one head")
    return shape[0], shape[1]


def dense_cells(frame: pd.DataFrame, blocks: int, heads: int) -> dict[str, np.ndarray]:
    """Columns ratio (NaN = not captured), flags and removed (int8); row = block * heads + head.

    Raises InputError for indices outside the grid, a head that appears twice, or a ratio outside 0..1.

    >>> dense_cells(pd.DataFrame({"block": [0], "head": [1], "ratio": [0.5]}), 1, 2)["ratio"].tolist()
    [nan, 0.5]
    """
    rows = frame["block"].to_numpy(dtype=np.int64) * heads + frame["head"].to_numpy(dtype=np.int64)
    for column, count in (("block", blocks), ("head", heads)):
        if len(frame) and not frame[column].between(0, count - 1).all():
            raise _bad(f"{column} {frame[column].min()} to {frame[column].max()}", f"{column} 0 to {count - 1}")
    if len(np.unique(rows)) != len(rows):
        raise _bad(f"{len(rows)} rows for {len(np.unique(rows))} heads", "one row per head")
    given = frame["ratio"].to_numpy()
    # Single and double precision stay as they are: the browser counts exactly what Python counts.
    ratio = np.full(blocks * heads, np.nan, dtype=given.dtype if given.dtype == np.float32 else np.float64)
    ratio[rows] = given
    # Rounding in a sum of softmax weights may pass the ends by a little.
    if np.any((ratio < -1e-3) | (ratio > 1 + 1e-3)) or np.any(np.isinf(ratio)):
        raise _bad(f"ratios {np.nanmin(ratio):g} to {np.nanmax(ratio):g}", "intra-slice ratios in 0..1")
    cells = {"ratio": ratio}
    for column in ("flags", "removed"):
        values = np.zeros(blocks * heads, dtype=np.int8)
        if column in frame:
            values[rows] = frame[column].to_numpy().astype(np.int8)
        cells[column] = values
    return cells


def by_ratio(ratio: np.ndarray) -> np.ndarray:
    """The heads of each block from the lowest ratio to the highest, missing ones last [block, head].

    >>> by_ratio(np.array([[0.5, np.nan, 0.1]])).tolist()
    [[2, 0, 1]]
    """
    return np.argsort(ratio, axis=1, kind="stable")


def as_drawn(blocks: int, heads: int, order: np.ndarray | None = None) -> np.ndarray:
    """Which head stands in each column of each row: its number, unless there is an `order` [block, head].

    Raises InputError for an order that does not name every head of each block once.
    """
    plain = np.tile(np.arange(heads), (blocks, 1))
    if order is None:
        return plain
    if order.shape != plain.shape or not np.array_equal(np.sort(order, axis=1), plain):
        raise _bad(f"an order of shape {list(order.shape)}", f"every head once in each of {blocks} blocks of {heads}")
    return order


def column_of(columns: np.ndarray, block: int, head: int) -> tuple[int, int] | None:
    """The cell (row, column) where a head is drawn; None outside the grid.

    >>> column_of(np.array([[2, 0, 1]]), 0, 0)
    (0, 1)
    """
    if not (0 <= block < columns.shape[0] and 0 <= head < columns.shape[1]):
        return None
    return block, int(np.flatnonzero(columns[block] == head)[0])


def drawn_cells(cells: Mapping[str, np.ndarray], columns: np.ndarray) -> dict[str, np.ndarray]:
    """`dense_cells` in the order of the columns, with the `name` (number) of the head in each."""
    blocks, heads = columns.shape
    rows = (np.arange(blocks)[:, None] * heads + columns).ravel()
    return {name: values[rows] for name, values in cells.items()} | {"name": columns.ravel().astype(np.int32)}


def _bad(got: str, expected: str) -> InputError:
    return InputError("head grid", got=got, expected=expected, fix="pass one row per head with its mean ratio")
