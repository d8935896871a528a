"""Figures of the answers to the method's questions: numbers with their intervals, and what means hide."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis.evidence.head_sets import MAGNITUDE, RANDOM, SPATIAL, TEMPORAL, UNIMPORTANT, WORDS
from analysis.evidence.premise import OUTCOMES
from analysis.evidence.roles import FAILS, HOLDS
from analysis.evidence.scores import PREDICTS
from analysis.figures.intervals import DOT, dots, error_bars, hover_words, intervals
from analysis.figures.style import PART_COLORS, ROLE_COLORS, ROLE_NAMES, label, level, make_figure, upright

KIND_LINES = {
    TEMPORAL: (ROLE_COLORS["T"], "solid"),
    SPATIAL: (ROLE_COLORS["S"], "dash"),
    RANDOM: ("#7f7f7f", "dot"),
    UNIMPORTANT: ("#009E73", "dashdot"),
    MAGNITUDE: ("#CC79A7", "longdash"),
}
"""Colour and dash of every kind of set: no two share both."""
SYMBOLS = ("circle", "square-open", "diamond-open", "triangle-up-open", "x-thin-open")


def agreement_by_factor(factors: pd.DataFrame) -> go.Figure:
    """Agreement of roles (Krippendorff's alpha) over every factor that the run varies, with both bars of the rule.

    `factors` is the table of that name of the answer about roles.
    """
    rows = factors[factors["compared"] > 1]
    return intervals(
        [dots(rows, rows["factor"], "agreement", name="agreement", words=["levels", "n"])],
        labels=list(rows["factor"]),
        x={"name": "agreement of roles", "range": [min(0.0, _least(rows, "low")) - 0.03, 1.03]},
        guides={"holds": HOLDS, "fails": FAILS},
    )


def damage_contrasts(contrasts: pd.DataFrame, group: str) -> go.Figure:
    """Damage by the temporal set less that by each control, with the intervals that decide; one `group` of outcomes.

    `contrasts` is the table of that name of the answer about the premise. Right of 0 temporal heads do more damage.
    """
    rows = contrasts[_true(contrasts["decides"]) & (contrasts["group"] == group)]
    rows = rows.assign(low=rows["sure_low"], high=rows["sure_high"])
    names = [f"{OUTCOMES[row.outcome].title} · {row.control}" for row in rows.itertuples()]
    units = {OUTCOMES[name].unit for name in rows["outcome"]}
    return intervals(
        [dots(rows, names, "difference", name="difference", words=["temporal", "other", "n"])],
        labels=names,
        # Two lines: on one they are wider than the chart on a page.
        x={"name": f"damage: temporal − control ({', '.join(sorted(units))})<br>← temporal heads hurt less · more →"},
        guides={"equal": 0.0},
        left=190,
    )


def damage_by_number(outcomes: pd.DataFrame, outcome: str, *, height: int = 300) -> go.Figure:
    """Damage to one outcome by how many heads of every block are off, a line per kind of set, with intervals over prompts.

    `outcomes` is the table of that name of the answer about the premise.
    """
    rows = outcomes[outcomes["outcome"] == outcome]
    counts = sorted(rows["removed"].unique())
    traces = []
    for index, (kind, part) in enumerate(rows.groupby("kind", sort=False)):
        part = part.sort_values("removed")
        color, dash = KIND_LINES.get(str(kind), ("#56B4E9", "longdashdot"))
        # Side by side, so that intervals do not cover one another.
        shift = 0.02 * (counts[-1] if counts else 1) * (index - 2)
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": WORDS.get(str(kind), str(kind)),
                "x": part["removed"] + shift,
                "y": part["damage"],
                "error_y": error_bars(part, "damage"),
                "line": {"color": color, "dash": dash},
                "marker": {"symbol": SYMBOLS[index % len(SYMBOLS)], "size": 9},
                "customdata": hover_words(part, ["dense", "value", "n"]),
                "hovertemplate": "%{y:.3g} · dense %{customdata[0]}, without the heads %{customdata[1]}, "
                "n %{customdata[2]}<extra>%{fullData.name}</extra>",
            }
        )
    about = OUTCOMES[outcome]
    return make_figure(
        traces,
        x={"name": "heads switched off in every block", "tickvals": counts},
        y={"name": f"{about.title} ({about.unit})"},
        height=height,
        hovermode="closest",
        shapes=[level(0.0)],
        showlegend=True,
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        margin={"l": 60, "r": 20, "t": 60, "b": 42},
    )


def picks_over_alpha(alphas: pd.DataFrame, *, chosen: float, bar: float | None, height: int = 300) -> go.Figure:
    """Picks that α changes, with their interval, and what another draw of the samples changes; the chosen α is marked.

    `alphas` is the table of that name of the answer about α.
    """
    shapes, notes = [upright(chosen, "dot")], [label(f"α = {chosen:g}", x=chosen, yref="paper", y=1, xanchor="left")]
    if bar is not None and np.isfinite(bar):
        shapes.append(level(bar, "dash"))
        notes.append(label("another draw of samples", xref="paper", x=1, xanchor="right", y=bar, yanchor="bottom"))
    lines = [("flips", "picks that α changes", 0), ("temporal", "temporal heads kept", 1)]
    return make_figure(
        [
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": words,
                "x": alphas["alpha"],
                "y": alphas[name],
                "error_y": error_bars(alphas, name),
                "line": {"color": PART_COLORS[part + 1][0], "dash": PART_COLORS[part + 1][1]},
                "marker": {"symbol": SYMBOLS[part], "size": 8},
                "hovertemplate": "%{y:.0f}<extra>" + words + "</extra>",
            }
            for name, words, part in lines
        ],
        x={"name": "protection α"},
        y={"name": "heads", "rangemode": "tozero"},
        height=height,
        shapes=shapes,
        annotations=notes,
        showlegend=True,
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        margin={"l": 52, "r": 20, "t": 36, "b": 42},
    )


def score_correlations(correlations: pd.DataFrame, kind: str = "self") -> go.Figure:
    """Spearman's ρ of every score with the effect of switching a head off, inside blocks and over the model.

    `correlations` is the table of that name of the answer about scores; `kind` self or cross.
    """
    rows = correlations[correlations["kind"] == kind]
    inside = rows[rows["scope"] == "block"]
    traces = [
        dots(rows[rows["scope"] == scope], rows[rows["scope"] == scope]["scorer"], "spearman", name=name, words=["n"],
              symbol=SYMBOLS[at], color=PART_COLORS[1 - at][0])
        for at, (scope, name) in enumerate((("block", "inside blocks"), ("model", "all heads")))
    ]  # fmt: skip
    return intervals(
        traces,
        labels=list(inside["scorer"]),
        x={"name": "Spearman's ρ with the effect", "range": [-1.03, 1.03]},
        guides={"predicts": PREDICTS},
        showlegend=True,
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        top=36,
    )


def attribute_differences(attributes: pd.DataFrame) -> go.Figure:
    """How much more samples that differ in an attribute disagree than samples that share it, in share of decisions.

    `attributes` is the table of that name of the answer about routes.
    """
    return intervals(
        [dots(attributes, attributes["attribute"], "difference", name="difference", words=["within", "between", "n"])],
        labels=list(attributes["attribute"]),
        x={"name": "disagreement: differing − sharing it", "tickformat": "~%"},
        guides={"": 0.0},
    )


def disagreement_over_steps(steps: pd.DataFrame, *, height: int = 220) -> go.Figure:
    """Chance that two samples decide differently at each timestep, from t = 1000 on."""
    rows = steps.sort_values("timestep", ascending=False)
    bars = {
        "type": "bar",
        "x": [f"{t:.0f}" for t in rows["timestep"]],
        "y": rows["disagreement"],
        "marker": {"color": DOT},
        "customdata": hover_words(rows, ["n"]),
        "hovertemplate": "%{y:.1%}, n %{customdata[0]}<extra></extra>",
    }
    return make_figure(
        [bars],
        x={"name": "timestep t", "type": "category", "nticks": 12},
        y={"name": "samples disagree", "tickformat": "~%", "rangemode": "tozero"},
        height=height,
    )


def own_role_shares(heads: pd.DataFrame, *, height: int = 300) -> go.Figure:
    """Every head's mean ratio against the share of single cells that have the role of that mean.

    `heads` is the table of that name of the answer about averages. Below one half the mean's role is the exception.
    """
    traces = []
    for letter, name in ROLE_NAMES.items():
        rows = heads[heads["role"] == letter]
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": f"{letter} {name}",
                "x": rows["ratio"],
                "y": rows["own"],
                "marker": {
                    "color": ROLE_COLORS[letter],
                    "symbol": {"S": "circle", "M": "diamond", "T": "triangle-up"}[letter],
                    "size": 8,
                },
                "customdata": hover_words(rows, ["block", "head", "own_low", "own_high", "n"]),
                "hovertemplate": "block %{customdata[0]}, head %{customdata[1]} · own role in %{y:.0%} "
                "[%{customdata[2]}, %{customdata[3]}], n %{customdata[4]}<extra></extra>",
            }
        )
    return make_figure(
        traces,
        x={"name": "mean ratio r", "range": [0, 1]},
        y={"name": "cells with the mean's role", "range": [-0.03, 1.05], "tickformat": ".0%"},
        height=height,
        hovermode="closest",
        shapes=[level(0.5)],
        showlegend=True,
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        margin={"l": 60, "r": 20, "t": 36, "b": 42},
    )


def ranks_over_timesteps(block_steps: pd.DataFrame, *, height: int = 300) -> go.Figure:
    """Every block's rank by how much it changes its input, 1 = most, along the denoising; its number at both ends.

    `block_steps` is the table of that name of the answer about averages.
    """
    rows = block_steps.sort_values("timestep", ascending=False)
    blocks = sorted(rows["block"].unique())
    traces = []
    for at, block in enumerate(blocks):
        part = rows[rows["block"] == block]
        color, dash = PART_COLORS[at % len(PART_COLORS)]
        ends = [str(block)] + [""] * (len(part) - 2) + ([str(block)] if len(part) > 1 else [])
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers+text",
                "x": part["timestep"],
                "y": part["rank"],
                "text": ends,
                "textposition": ["middle left"] + ["middle right"] * (len(part) - 1),
                "line": {"color": color, "dash": dash, "width": 1.5},
                "marker": {"size": 5, "color": color},
                "customdata": hover_words(part, ["mean", "n"]),
                "hovertemplate": f"block {block} · rank %{{y}} · change %{{customdata[0]}}, n %{{customdata[1]}}<extra></extra>",
            }
        )
    return make_figure(
        traces,
        x={"name": "timestep t", "range": [1040, -40]},
        y={"name": "rank of the block", "autorange": "reversed", "dtick": 1 if len(blocks) <= 12 else 5},
        height=height,
        hovermode="closest",
    )


def _true(values: pd.Series) -> pd.Series:
    return values.fillna(False).astype(bool)


def _least(rows: pd.DataFrame, column: str) -> float:
    values = pd.to_numeric(rows[column], errors="coerce").dropna()
    return float(values.min()) if len(values) else 0.0
