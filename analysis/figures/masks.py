"""Figures of a mask: what stays in every block, which cross-attention heads, picks that flip by α, the error of the cut."""

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from analysis.alpha_study import AlphaStudy
from analysis.figures.style import Mark, make_figure, upright

# Each with a pattern, so that no bar is told by colour alone.
PARTS: Mapping[str, tuple[str, str, str, str]] = {
    "self_heads": ("self", "self-attention heads", "#0072B2", ""),
    "cross_heads": ("cross", "cross-attention heads", "#E69F00", "/"),
    "neurons": ("neurons", "neurons", "#009E73", "."),
}
ERRORS: Mapping[str, tuple[str, str, str]] = {
    "dense": ("against the dense block", "#0072B2", "solid"),
    "masking": ("against masking", "#E69F00", "dash"),
}
ABOVE = {"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0}


def kept_per_block(counts: Mapping[str, Sequence[int]], sizes: Mapping[str, int], *, height: int = 280) -> go.Figure:
    """Share of heads and neurons that stay in every block, three bars each.

    `counts` has per part (self_heads, cross_heads, neurons) one number per block, `sizes` how many a block has.

    >>> len(kept_per_block({"self_heads": [7, 6], "neurons": [8, 8]}, {"self_heads": 10, "neurons": 16}).data)
    2
    """
    traces: list[Mark] = []
    for part, (short, name, color, pattern) in PARTS.items():
        if part not in counts:
            continue
        kept, size = np.asarray(counts[part]), sizes[part]
        words = [f"{number:,} of {size:,} {name}" for number in kept]
        bars: Mark = {"type": "bar", "name": short, "x": list(range(len(kept))), "y": kept / size, "customdata": words}
        traces.append(
            bars
            | {"marker": {"color": color, "pattern": {"shape": pattern, "size": 5, "solidity": 0.35}}}
            | {"hovertemplate": "%{customdata}<extra></extra>"}
        )
    blocks = max((len(kept) for kept in counts.values()), default=1)
    return make_figure(
        traces,
        x={"name": "block", "dtick": 1 if blocks <= 16 else 5},
        y={"name": "kept", "range": [0, 1], "tickformat": ".0%"},
        height=height,
        barmode="group",
        bargap=0.25,
        margin={"l": 52, "r": 12, "t": 30, "b": 42},
        showlegend=True,
        legend=ABOVE,
    )


def kept_heads(keep: np.ndarray, scores: np.ndarray, *, height: int = 280) -> go.Figure:
    """Scores of heads [block, head] relative to the largest of their block, with a cross on those that are removed.

    >>> [int(head) for head in kept_heads(np.array([[True, False]]), np.array([[2.0, 1.0]])).data[1].x]
    [1]
    """
    keep, scores = np.asarray(keep, bool), np.asarray(scores, float)
    largest = np.abs(scores).max(axis=1, keepdims=True)
    share = np.divide(scores, largest, out=np.zeros_like(scores), where=largest > 0)
    words = [
        [f"score {score:.3g} · {'kept' if stays else 'removed'}" for score, stays in zip(*row, strict=True)]
        for row in zip(scores, keep, strict=True)
    ]
    block, head = np.nonzero(~keep)
    cells: Mark = {
        "type": "heatmap", "z": share, "zmin": 0, "zmax": 1, "colorscale": "Viridis", "xgap": 1, "ygap": 1,
        "customdata": words, "hovertemplate": "block %{y}, head %{x} · %{customdata}<extra></extra>",
        "colorbar": {"title": {"text": "share of the block's largest", "side": "right"}, "thickness": 10, "outlinewidth": 0},
    }  # fmt: skip
    crosses: list[Mark] = [
        {
            "type": "scatter", "mode": "markers", "x": head, "y": block, "hoverinfo": "skip",
            "marker": {"symbol": "x-thin", "size": 9, "line": {"width": width, "color": color}},
        }
        # A white cross with a dark rim reads on every colour of the scale.
        for width, color in ((4, "#000"), (2, "#fff"))
    ]  # fmt: skip
    blocks, heads = keep.shape
    return make_figure(
        [cells, *crosses],
        x={"name": "head", "dtick": 1 if heads <= 16 else 5},
        y={"name": "block", "dtick": 1 if blocks <= 16 else 5, "autorange": "reversed", "showgrid": False},
        height=height,
        hovermode="closest",
    )


def flips_over_alpha(study: AlphaStudy, alpha: float, *, height: int = 280) -> go.Figure:
    """How many self-attention heads are kept or removed otherwise than without protection, as α grows; `alpha` is marked.

    >>> from analysis.alpha_study import alpha_study
    >>> from pare.width.heads import select_heads
    >>> study = alpha_study(np.array([[3.0, 2.0]]), np.array([["S", "T"]]), lambda s: select_heads(s, 1), (1.0, 2.0))
    >>> [int(count) for count in flips_over_alpha(study, 1.5).data[0].y]
    [0, 2]
    """
    flips = study.per_block.sum(axis=1)
    line: Mark = {
        "type": "scatter", "mode": "lines", "x": study.alphas, "y": flips, "line": {"color": "#D55E00", "shape": "hv"},
        "hovertemplate": "α %{x:.2f} · %{y} picks differ<extra></extra>",
    }  # fmt: skip
    inside = study.alphas[0] <= alpha <= study.alphas[-1]
    return make_figure(
        [line],
        x={"name": "protection α", "range": [float(study.alphas[0]), float(study.alphas[-1])]},
        y={"name": "other picks than at α = 1", "rangemode": "tozero", "tickformat": "d"},
        height=height,
        hovermode="closest",
        shapes=[upright(alpha)] if inside else [],
    )


def error_per_block(errors: Sequence[Mapping[str, float]], *, height: int = 280) -> go.Figure:
    """Relative error of every cut block on the probe: against the dense block, and against masking what was cut.

    `errors` has one mapping per block with `dense` and `masking` (`pare.width.cut_error.BlockError`); a log scale, since
    one is what was removed and the other what its removal added. Zeros, which a log scale has no place for, are left out.

    >>> len(error_per_block([{"dense": 0.2, "masking": 1e-3}]).data)
    2
    """
    traces: list[Mark] = []
    for part, (name, color, dash) in ERRORS.items():
        values = np.array([error.get(part, np.nan) for error in errors], float)
        if np.isfinite(values).any():
            traces.append({
                "type": "scatter", "mode": "lines+markers", "name": name, "x": list(range(len(values))),
                "y": np.where(values > 0, values, np.nan), "line": {"color": color, "dash": dash},
                "hovertemplate": "%{y:.2e} " + name + "<extra></extra>",
            })  # fmt: skip
    return make_figure(
        traces,
        x={"name": "block", "dtick": 1 if len(errors) <= 16 else 5},
        y={"name": "relative error", "type": "log", "dtick": 1, "exponentformat": "power"},
        height=height,
        margin={"l": 62, "r": 12, "t": 30, "b": 42},
        showlegend=True,
        legend=ABOVE,
    )
