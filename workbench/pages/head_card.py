"""The pinned head's card: role and marks, ratio over timesteps and branches, frame map, norms, importance by every scorer."""

import numpy as np
import streamlit as st
from plotly.colors import sequential

from analysis.figures.heads import frame_map as figure_of_map
from analysis.figures.roles import ratio_over_timesteps
from analysis.figures.style import ROLE_COLORS, ROLE_NAMES, ink_on
from analysis.figures.tables import frame_map_table
from analysis.findings import FEW
from analysis.head_view import HeadView
from analysis.importance import protected
from analysis.marks import MARK_NAMES, HeadMarks, HeadMeans
from analysis.roles import classify
from analysis.runs import Run
from analysis.score_ranks import Rank
from pare.geometry import Clip
from pare.width.unit_cost import head_alone
from workbench import recipes
from workbench.components.frame_map.component import frame_map
from workbench.components.player.video import latent_frame_of
from workbench.pages import data, head_data
from workbench.pages.chart import show_chart, take_out
from workbench.pages.drawn import drawn
from workbench.pages.shell import guard
from workbench.pages.text import capture_command
from workbench.places import Places
from workbench.plan import tera
from workbench.state import Selection

FRAME_LINK = "run"
"""What the frame map and the player of the model's videos are linked by."""
SCORER_NAMES = {
    "pare": "PARE (Eq. 3)",
    "protected": "protected (Eq. 5)",
    "projected_energy": "projected energy",
    "temporal_attention": "temporal attention",
    "effect": "ablation effect",
    "random": "random (control)",
}


def protected_scores(run: Run, selection: Selection) -> np.ndarray | None:
    """Eq. 5 over all samples and steps, as the mask has it: importance, times α for temporal heads; None where not captured."""
    importance = data.importance(run, selection.branch)
    if importance is None:
        return None
    roles = classify(data.ratio_of_mask(run, selection.branch), selection.tau_s, selection.tau_t)
    return protected(importance, roles, selection.alpha)


def show_head_card(
    run: Run,
    places: Places,
    scores: np.ndarray | None,
    marks: HeadMarks | None,
    selection: Selection,
    cell: tuple[int, int],
    *,
    linked: bool,
) -> None:
    """Draw the card of the head at `cell`; `scores` are the protected ones [block, head]. `linked`: a video plays below."""
    view = head_data.view_of_head(run, selection, cell)
    if not view.role:
        st.header(f"Block {cell[0]}, head {cell[1]}", anchor=False)
        st.markdown("Not captured in this part of the run.")
        return
    _show_name(view, marks, cell)
    st.markdown("  \n".join([*_lines(view, run), *_mark_lines(marks, run, cell), *_norm_lines(run, selection, cell)]))
    chart, frames = st.columns(2, gap="small")
    with chart, guard("ratio over timesteps"):
        _show_ratio(run, selection, cell)
    with frames, guard("frame map"):
        show_frame_map(run, selection, cell, linked=linked)
    with guard("importance"), st.container(key="head_ranks"):
        found = head_data.ranks_of_head(run, selection.branch, cell, scores)
        known = {each.scorer for each in found}
        # The control stays last.
        measured = [each for each in head_data.measured_ranks(run, places, cell) if each.scorer not in known]
        found = [*found[:-1], *measured, *found[-1:]]
        if found:
            st.markdown(rank_lines(found))
            few = min((one.n for one in found if one.n and not np.isnan(one.low)), default=FEW)
            st.caption(
                "Intervals and ± are of 95 %, over samples"
                + (f"; of fewer than {FEW} samples they are too narrow." if few < FEW else ".")
                + (f" {head_data.measured_words(run, places)}" if measured else "")
            )
        else:
            st.markdown("No scorer finds what it needs in this run. Capture it again with value norms.")
    st.markdown(alone_line(run))


def _show_name(view: HeadView, marks: HeadMarks | None, cell: tuple[int, int]) -> None:
    ink = ink_on(ROLE_COLORS[view.role])
    mark = str(marks.letters()[cell]) if marks is not None else ""
    names = " · ".join([ROLE_NAMES[view.role], *(MARK_NAMES[letter] for letter in mark)])
    st.html(
        '<div style="display:flex;align-items:center;gap:.6rem;font-size:1.05rem;font-weight:600">'
        f'<span style="background:{ROLE_COLORS[view.role]};color:{ink};border-radius:4px;width:1.5rem;text-align:center">'
        f"{view.role}</span>Block {cell[0]}, head {cell[1]} · {names}</div>"
    )


def _show_ratio(run: Run, selection: Selection, cell: tuple[int, int]) -> None:
    table = head_data.head_over_timesteps(run, selection, cell)
    show_chart(
        drawn(
            ratio_over_timesteps, table, tau_s=selection.tau_s, tau_t=selection.tau_t, uniform=run.uniform, height=220
        ),
        key="ratio_over_timesteps",
        alt=f"Intra-slice ratio of block {cell[0]}, head {cell[1]} over the timesteps, with its 95 % interval.",
        table=table,
        python=recipes.ratio_over_timesteps(run, selection, *cell),
        command=recipes.report_command(run, selection.changed(block=cell[0], head=cell[1])),
        name=f"{run.folder.name}-block-{cell[0]}-head-{cell[1]}-ratio",
    )  # fmt: skip


def show_frame_map(run: Run, selection: Selection, cell: tuple[int, int], *, linked: bool) -> None:
    """Which frames look at which, or one line on why there is no map here; it marks the frame that the video shows."""
    found = data.frame_map(run, selection, cell)
    if found is None:
        lacking = "self/frame_map" not in run.statistics
        st.markdown(
            f"Frame map: not captured in this {'run' if lacking else 'part of the run'}."
            + (f" `{capture_command(run)}` captures it." if lacking else "")
        )
        return
    shown, timesteps, samples = found
    frame_map(
        shown,
        title=f"Block {cell[0]}, head {cell[1]}",
        palette=list(sequential.Viridis),
        frame=latent_frame_of(selection.video_frame + 1, run.geometry.vae_temporal)[-1] if linked else None,
        link=FRAME_LINK if linked else None,
    )
    when = ", ".join(f"{step:.0f}" for step in sorted(timesteps, reverse=True))
    st.caption(f"Mean of t {when} · n = {samples} sample{'s' if samples != 1 else ''}")
    take_out(
        lambda: figure_of_map(shown),
        key="frame_map",
        alt=f"Attention of block {cell[0]}, head {cell[1]} from query frames to key frames.",
        table=lambda: frame_map_table(shown, samples),
        python=recipes.frame_map(run, selection, *cell),
        command=recipes.report_command(run, selection.changed(block=cell[0], head=cell[1])),
        name=f"{run.folder.name}-block-{cell[0]}-head-{cell[1]}-frames",
    )


def rank_lines(found: list[Rank]) -> str:
    """Scores and ranks as a table.

    >>> print(rank_lines([Rank("pare", 3.0, 2.5, 3.5, 20, 1, 10, 4, 80)]).splitlines()[2])
    | PARE (Eq. 3) | 3 \\[2.5, 3.5] | 20 | 1 of 10 | 4 of 80 |
    """
    rows = ["| Importance by | score | n | in block | in all |", "|:--|--:|--:|--:|--:|"]
    for one in found:
        interval = "" if np.isnan(one.low) else f" \\[{one.low:.4g}, {one.high:.4g}]"
        name = SCORER_NAMES.get(one.scorer, one.scorer.replace("_", " "))
        rows.append(
            f"| {name} | {one.score:.4g}{interval} | {one.n or '–'} | {one.in_block} of {one.heads} | "
            f"{one.in_all} of {one.all_heads} |"
        )
    return "\n".join(rows)


def alone_line(run: Run) -> str:
    """What removing one self-attention head alone saves."""
    size = run.manifest.clip
    found = head_alone(run.geometry, Clip(size["height"], size["width"], size["frames"]))
    parameters, flops = found["parameters"], found["flops"]
    # A student's run is laid out for the model that it was cut from.
    of = "" if data.captured_heads(run) in (None, run.geometry.blocks * run.geometry.heads) else " of the dense model's"
    return (
        f"Removing it alone saves {parameters['saved']:,.0f} parameters ({parameters['share']:.2%}{of}) and "
        f"{tera(flops['saved'])} a forward ({flops['share']:.2%}{of})."
    )


def _lines(view: HeadView, run: Run) -> list[str]:
    interval = "" if np.isnan(view.low) else f" \\[{view.low:.3f}, {view.high:.3f}]"
    return [
        f"**r = {view.ratio:.3f}**{interval} · n = {view.n} sample{'s' if view.n != 1 else ''} · "
        f"uniform 1/{run.num_frames} = {run.uniform:.3f}",
        f"lift (r − uniform)/(1 − uniform) = {_minus(view.lift)} · role stable in {view.stability:.0%} of the sample × step cells",
    ]


def _mark_lines(marks: HeadMarks | None, run: Run, cell: tuple[int, int]) -> list[str]:
    """Entropy and first-frame share with 95 % intervals, and what a mark means for the role."""
    if marks is None:
        return []
    tokens = run.num_frames * run.manifest.tokens_per_frame
    lines = []
    if marks.entropy is not None and not np.isnan(marks.entropy.mean[cell]):
        entropy = _with_error(marks.entropy, cell)
        lines.append(f"entropy {entropy} nats, uniform log {tokens} = {np.log(tokens):.2f}{_n(marks.entropy.samples)}")
    if marks.first_frame_share is not None and not np.isnan(marks.first_frame_share.mean[cell]):
        share = _with_error(marks.first_frame_share, cell)
        count = _n(marks.first_frame_share.samples)
        lines.append(f"first-frame share {share}, uniform 1/{run.num_frames} = {run.uniform:.3f}{count}")
    if marks.uniform[cell]:
        lines.append("**Uniform**: it looks at all tokens nearly alike, so r is near 1/Fl whatever moves.")
    if marks.first_frame_sink[cell]:
        lines.append("**First-frame sink**: a low r comes from frame 0 here, not from following motion.")
    return lines


def _norm_lines(run: Run, selection: Selection, cell: tuple[int, int]) -> list[str]:
    parts = []
    for words, cells in head_data.norms(run, selection).items():
        mean, error = cells.by_head()[cell], cells.error_by_head()[cell]
        if not np.isnan(mean):
            parts.append(
                f"{words} {mean:.3g}" + ("" if np.isnan(error) else f" ± {1.96 * error:.2g}") + _n(cells.samples)
            )
    return parts


def _n(samples: int) -> str:
    return f" · n = {samples}"


def _minus(value: float) -> str:
    return f"{value:.3f}".replace("-", "−")


def _with_error(means: HeadMeans, cell: tuple[int, int]) -> str:
    error = means.error[cell]
    return f"{means.mean[cell]:.3f}" + ("" if np.isnan(error) else f" ± {1.96 * error:.3f}")
