"""The pinned head's card: role, ratio with its interval and n, what uniform attention gives, ratio over timesteps."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import streamlit as st

from analysis.aggregate import Cells
from analysis.figures.roles import ratio_over_timesteps
from analysis.figures.style import ROLE_COLORS, ROLE_NAMES
from analysis.importance import protected, run_roles
from analysis.roles import bootstrap_interval, classify, lift, stability
from analysis.runs import Run
from workbench.pages import data
from workbench.state import Selection

PLOT = {"displaylogo": False, "modeBarButtonsToRemove": ["lasso2d", "select2d", "autoScale2d"], "displayModeBar": False}


@dataclass(frozen=True)
class HeadFacts:
    """What the card says of one head; intervals are 95 % bootstrap intervals over the n samples, NaN below two."""

    ratio: float
    low: float
    high: float
    n: int
    letter: str
    lift: float
    uniform: float
    rank_in_block: int | None
    rank_in_all: int | None
    stability: float
    over_steps: pd.DataFrame


def head_facts(
    run: Run, cells: Cells, values: np.ndarray, scores: np.ndarray | None, selection: Selection, cell: tuple[int, int]
) -> HeadFacts:
    """Gather one head's numbers: `cells` of its view, its `values` [sample, step], protected `scores` [block, head]."""
    block, head = cell
    ratio = float(cells.by_head()[block, head])
    there = ~np.isnan(values).all(axis=1)
    low, high = bootstrap_interval(np.nanmean(values[there], axis=1)) if there.any() else (np.nan, np.nan)
    step_low, step_high = bootstrap_interval(values[there])
    over_steps = pd.DataFrame(
        {
            "timestep": cells.timesteps,
            "mean": cells.by_step()[:, block, head],
            "low": step_low,
            "high": step_high,
            "n": int(there.sum()),
        }
    )
    ranks: tuple[int | None, int | None] = (None, None)
    if scores is not None and not np.isnan(scores[block, head]):
        ranks = tuple(int(np.sum(among > scores[block, head])) + 1 for among in (scores[block], scores))  # type: ignore[assignment]
    return HeadFacts(
        ratio=ratio,
        low=float(low),
        high=float(high),
        n=int(there.sum()),
        letter=str(classify(np.array([ratio]), selection.tau_s, selection.tau_t)[0]),
        lift=float(lift(np.array([ratio]), run.num_frames)[0]),
        uniform=run.uniform,
        rank_in_block=ranks[0],
        rank_in_all=ranks[1],
        stability=float(stability(values[:, :, None, None], selection.tau_s, selection.tau_t)[0, 0]),
        over_steps=over_steps,
    )


def default_head(ratio: np.ndarray, scores: np.ndarray | None, tau_t: float) -> tuple[int, int] | None:
    """The head to show before one is pinned: the most important temporal one, else the most important; None if none.

    >>> default_head(np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([[9.0, 1.0], [2.0, 3.0]]), tau_t=0.3)
    (1, 0)
    """
    score = -ratio if scores is None else scores
    for among in (ratio < tau_t, ~np.isnan(ratio)):
        if (among & ~np.isnan(score)).any():
            best = np.where(among & ~np.isnan(score), score, -np.inf).argmax()
            block, head = np.unravel_index(best, ratio.shape)
            return int(block), int(head)
    return None


def protected_scores(run: Run, selection: Selection) -> np.ndarray | None:
    """Eq. 5 over all samples and steps, as the mask has it: importance, times α for temporal heads; None where not captured."""
    importance = data.importance(run, selection.branch)
    if importance is None:
        return None
    return protected(importance, run_roles(run, selection.tau_s, selection.tau_t, selection.branch), selection.alpha)


def show_head_card(
    run: Run, cells: Cells, scores: np.ndarray | None, selection: Selection, cell: tuple[int, int]
) -> None:
    """Draw the card of the head at `cell`."""
    values = data.head_values(run, *cell, selection)
    facts = head_facts(run, cells, values, scores, selection, cell)
    if not facts.letter:
        st.header(f"Block {cell[0]}, head {cell[1]}", anchor=False)
        st.markdown("Not captured in this part of the run.")
        return
    color = ROLE_COLORS[facts.letter]
    ink = "#000" if facts.letter == "M" else "#fff"
    st.html(
        '<div style="display:flex;align-items:center;gap:.6rem;font-size:1.05rem;font-weight:600">'
        f'<span style="background:{color};color:{ink};border-radius:4px;width:1.5rem;text-align:center">'
        f"{facts.letter}</span>Block {cell[0]}, head {cell[1]} · {ROLE_NAMES[facts.letter]}</div>"
    )
    st.markdown(_sentence(facts, run, selection))
    st.plotly_chart(
        ratio_over_timesteps(
            facts.over_steps, tau_s=selection.tau_s, tau_t=selection.tau_t, uniform=facts.uniform, height=250
        ),
        config=PLOT,
        key="ratio_over_timesteps",
        alt=f"Intra-slice ratio of block {cell[0]}, head {cell[1]} over the timesteps, with its 95 % interval.",
    )


def _sentence(facts: HeadFacts, run: Run, selection: Selection) -> str:
    interval = "" if np.isnan(facts.low) else f" [{facts.low:.3f}, {facts.high:.3f}]".replace("[", "\\[")
    lines = [
        f"**r = {facts.ratio:.3f}**{interval} · n = {facts.n} sample{'s' if facts.n != 1 else ''}",
        f"uniform 1/{run.num_frames} = {facts.uniform:.3f} · lift {facts.lift:.3f}",
        f"role stable in {facts.stability:.0%} of the sample × step cells",
    ]
    if facts.rank_in_block is not None:
        blocks, heads = run.geometry.blocks, run.geometry.heads
        lines.append(
            f"importance rank {facts.rank_in_block} of {heads} in its block, "
            f"{facts.rank_in_all} of {blocks * heads} in all" + (", × α" if facts.letter == "T" else "")
        )
    return "  \n".join(lines)
