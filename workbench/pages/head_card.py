"""The pinned head's card: role and marks, ratio with its interval and n, ratio over timesteps, frame map."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import streamlit as st
from plotly.colors import sequential

from analysis.aggregate import Cells, average
from analysis.figures.roles import ratio_over_timesteps
from analysis.figures.style import ROLE_COLORS, ROLE_NAMES
from analysis.importance import protected, run_roles
from analysis.marks import MARK_NAMES, HeadMarks, HeadMeans
from analysis.roles import bootstrap_interval, classify, lift, stability
from analysis.runs import Run
from workbench.components.frame_map.component import frame_map
from workbench.components.player.video import latent_frame_of
from workbench.pages import data
from workbench.pages.text import capture_command
from workbench.state import Selection

PLOT = {"displaylogo": False, "modeBarButtonsToRemove": ["lasso2d", "select2d", "autoScale2d"], "displayModeBar": False}
FRAME_LINK = "run"
"""What the frame map and the player of the run's videos are linked by."""


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


def head_facts(
    run: Run, cells: Cells, values: np.ndarray, scores: np.ndarray | None, selection: Selection, cell: tuple[int, int]
) -> HeadFacts:
    """Gather one head's numbers: `cells` of its view, its `values` [sample, step], protected `scores` [block, head]."""
    block, head = cell
    ratio = float(cells.by_head()[block, head])
    there = ~np.isnan(values).all(axis=1)
    low, high = bootstrap_interval(np.nanmean(values[there], axis=1)) if there.any() else (np.nan, np.nan)
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
    )


def over_timesteps(run: Run, selection: Selection, timesteps: np.ndarray, cell: tuple[int, int]) -> pd.DataFrame:
    """The head's ratio per step with its 95 % interval and n samples, one row per branch; `branch` tells them apart."""
    frames = []
    for branch in run.branches if selection.branch is None else [selection.branch]:
        values = data.head_values(run, *cell, selection.changed(branch=branch))
        low, high = bootstrap_interval(values[~np.isnan(values).all(axis=1)])
        columns = {"branch": branch, "timestep": timesteps, "mean": average(values, (0,)), "low": low, "high": high}
        frames.append(pd.DataFrame({**columns, "n": (~np.isnan(values)).sum(axis=0)}))
    return pd.concat(frames, ignore_index=True)


def default_head(
    ratio: np.ndarray, scores: np.ndarray | None, tau_t: float, block: int | None = None
) -> tuple[int, int] | None:
    """The head to show before one is pinned: the most important temporal one, else the most important; None if none.

    With `block`, the one of that block.

    >>> default_head(np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([[9.0, 1.0], [2.0, 3.0]]), tau_t=0.3)
    (1, 0)
    """
    score = -ratio if scores is None else scores
    here = np.ones(len(ratio), bool) if block is None else np.arange(len(ratio)) == block
    for among in (here[:, None] & (ratio < tau_t), here[:, None] & ~np.isnan(ratio)):
        if (among & ~np.isnan(score)).any():
            best = np.where(among & ~np.isnan(score), score, -np.inf).argmax()
            row, column = np.unravel_index(best, ratio.shape)
            return int(row), int(column)
    return None


def protected_scores(run: Run, selection: Selection) -> np.ndarray | None:
    """Eq. 5 over all samples and steps, as the mask has it: importance, times α for temporal heads; None where not captured."""
    importance = data.importance(run, selection.branch)
    if importance is None:
        return None
    return protected(importance, run_roles(run, selection.tau_s, selection.tau_t, selection.branch), selection.alpha)


def show_head_card(
    run: Run,
    cells: Cells,
    scores: np.ndarray | None,
    marks: HeadMarks | None,
    selection: Selection,
    cell: tuple[int, int],
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
    mark = str(marks.letters()[cell]) if marks is not None else ""
    names = " · ".join([ROLE_NAMES[facts.letter], *(MARK_NAMES[letter] for letter in mark)])
    st.html(
        '<div style="display:flex;align-items:center;gap:.6rem;font-size:1.05rem;font-weight:600">'
        f'<span style="background:{color};color:{ink};border-radius:4px;width:1.5rem;text-align:center">'
        f"{facts.letter}</span>Block {cell[0]}, head {cell[1]} · {names}</div>"
    )
    st.markdown("  \n".join([*_lines(facts, run), *_mark_lines(marks, run, cell)]))
    st.plotly_chart(
        ratio_over_timesteps(
            over_timesteps(run, selection, cells.timesteps, cell),
            tau_s=selection.tau_s,
            tau_t=selection.tau_t,
            uniform=facts.uniform,
            height=230,
        ),
        config=PLOT,
        key="ratio_over_timesteps",
        alt=f"Intra-slice ratio of block {cell[0]}, head {cell[1]} over the timesteps, with its 95 % interval.",
    )
    show_frame_map(run, selection, cell)


def show_frame_map(run: Run, selection: Selection, cell: tuple[int, int]) -> None:
    """Which frames look at which, or one line on why there is no map here; it marks the frame that the run's video shows."""
    found = data.frame_maps(run, selection)
    if found is None:
        lacking = "self/frame_map" not in run.statistics
        st.markdown(
            f"Frame map: not captured in this {'run' if lacking else 'part of the run'}."
            + (f" `{capture_command(run)}` captures it." if lacking else "")
        )
        return
    maps, timesteps, samples = found
    with_video = bool(run.videos)
    frame_map(
        maps[cell],
        title=f"Block {cell[0]}, head {cell[1]}",
        palette=list(sequential.Viridis),
        frame=latent_frame_of(selection.video_frame + 1, run.geometry.vae_temporal)[-1] if with_video else None,
        link=FRAME_LINK if with_video else None,
    )
    when = ", ".join(f"{step:.0f}" for step in sorted(timesteps, reverse=True))
    st.caption(f"Mean of t {when} · n = {samples} sample{'s' if samples != 1 else ''}")


def _lines(facts: HeadFacts, run: Run) -> list[str]:
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
    return lines


def _mark_lines(marks: HeadMarks | None, run: Run, cell: tuple[int, int]) -> list[str]:
    """Entropy and first-frame share with 95 % intervals, and what a mark means for the role."""
    if marks is None:
        return []
    tokens = run.num_frames * run.manifest.tokens_per_frame
    lines = []
    if marks.entropy is not None and not np.isnan(marks.entropy.mean[cell]):
        lines.append(f"entropy {_with_error(marks.entropy, cell)} nats, uniform log {tokens} = {np.log(tokens):.2f}")
    if marks.first_frame_share is not None and not np.isnan(marks.first_frame_share.mean[cell]):
        share = _with_error(marks.first_frame_share, cell)
        lines.append(f"first-frame share {share}, uniform 1/{run.num_frames} = {run.uniform:.3f}")
    if marks.uniform[cell]:
        lines.append("**Uniform**: it looks at all tokens nearly alike, so r is near 1/Fl whatever moves.")
    if marks.first_frame_sink[cell]:
        lines.append("**First-frame sink**: a low r comes from frame 0 here, not from following motion.")
    return lines


def _with_error(means: HeadMeans, cell: tuple[int, int]) -> str:
    error = means.error[cell]
    return f"{means.mean[cell]:.3f}" + ("" if np.isnan(error) else f" ± {1.96 * error:.3f}")
