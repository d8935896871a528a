"""The parts of a report that a run alone decides: its heads, its blocks, one head in detail, its routes."""

from typing import Any

import numpy as np
import pandas as pd

from analysis.aggregate import Cells, head_frame_map, read_cells
from analysis.block_values import LENSES, PARTS, block_ratio, block_values
from analysis.figures.blocks import parts_over_timesteps, residual_map
from analysis.figures.heads import frame_map, head_grid
from analysis.figures.roles import (
    mean_ratio_per_block,
    ratio_histogram,
    ratio_over_timesteps,
    roles_per_block,
)
from analysis.figures.routes import decision_map, disagreement_by_step
from analysis.figures.style import ROLE_NAMES
from analysis.figures.tables import (
    decision_table,
    disagreement_table,
    frame_map_table,
    head_table,
    histogram_table,
    part_table,
    role_count_table,
)
from analysis.findings import block_finding
from analysis.head_view import head_view, over_timesteps
from analysis.importance import protected, run_importance, run_roles
from analysis.marks import MARK_NAMES, HeadMarks
from analysis.roles import ROLES, classify, role_counts
from analysis.route_variation import route_variation
from analysis.routes import has_routes, route_array
from analysis.runs import Run
from workbench import recipes
from workbench.report.cut import Cut
from workbench.report.part import Part
from workbench.state import Selection


def chosen(selection: Selection) -> dict[str, Any]:
    """The part of the run that the selection names, as arguments of what reads runs."""
    given = None not in (selection.first_step, selection.last_step)
    steps = range(selection.first_step or 0, (selection.last_step or 0) + 1) if given else None
    return {"sample": selection.sample, "branch": selection.branch, "steps": steps}


def heads(run: Run, selection: Selection, cells: Cells, marks: HeadMarks, cut: Cut | None) -> list[Part]:
    """The grid of roles, the histogram of ratios with its thresholds, and both per block."""
    thresholds: dict[str, Any] = {"tau_s": selection.tau_s, "tau_t": selection.tau_t}
    ratio = cells.by_head()
    letters = classify(ratio, **thresholds)
    removed = None if cut is None else ~cut.self_heads
    table = head_table(cells, **thresholds, marks=marks if cut is None else None, removed=removed)
    counts = role_counts(letters)
    roles = ", ".join(f"{counts[role]} {role}" for role in ROLES)
    crossed = "" if removed is None else f" {int(removed.sum())} heads that the mask removes are crossed."
    command = recipes.roles_command(run, selection, csv="heads.csv")
    by_block = block_ratio(run, **chosen(selection))
    return [
        Part(
            "Role of every head",
            f"{roles} of {int((letters != '').sum())} heads, from the mean ratio over {_n(cells.samples)}."
            f" Numbers have the standard error over samples.{crossed}",
            figure=head_grid(table, **thresholds),
            alt="Grid of all heads by block, coloured and lettered by role.",
            table=table,
            python=recipes.head_grid(run, selection) if cut is None else cut.grid_python(run, selection),
            command=command,
        ),
        Part(
            "Ratios and thresholds",
            f"Intra-slice ratio r of {int((letters != '').sum())} heads; spatial above τs = {selection.tau_s:g}, temporal "
            f"below τt = {selection.tau_t:g}; uniform attention has 1/Fl = {run.uniform:.3f}. {_n(cells.samples, True)}.",
            figure=ratio_histogram(ratio, **thresholds, uniform=run.uniform, height=260),
            alt="Histogram of ratios, coloured by role, with both thresholds.",
            table=histogram_table(ratio, **thresholds),
            python=recipes.ratio_histogram(run, selection),
            command=command,
        ),
        Part(
            "Roles per block",
            f"Number of spatial, mixed and temporal heads in every block. {_n(cells.samples, True)}.",
            figure=roles_per_block(letters, height=260),
            alt="Bars of spatial, mixed and temporal heads in every block.",
            table=role_count_table(letters),
            python=recipes.roles_per_block(run, selection),
            command=command,
        ),
        Part(
            "Mean ratio per block",
            f"Mean over the heads of a block, with 95 % intervals over samples. {_n(_least(by_block), True)}.",
            figure=mean_ratio_per_block(by_block, **thresholds, uniform=run.uniform, height=260),
            alt="Mean ratio of every block with its interval.",
            table=by_block,
            python=recipes.mean_ratio_per_block(run, selection),
            command=recipes.report_command(run, selection),
        ),
    ]


def head(run: Run, selection: Selection, cell: tuple[int, int], marks: HeadMarks) -> list[Part]:
    """The card of one head, its ratio over timesteps, and its frame map where the run has one."""
    where, (block, index) = chosen(selection), cell
    thresholds: dict[str, Any] = {"tau_s": selection.tau_s, "tau_t": selection.tau_t}
    view = head_view(run, block, index, **thresholds, **where)
    name = f"Block {block}, head {index}"
    if not view.role:
        return [Part(name, "Not captured in this part of the run.")]
    odd = [MARK_NAMES[letter] for letter in str(marks.letters()[cell])]
    interval = "" if np.isnan(view.low) else f" [{view.low:.3f}, {view.high:.3f}]"
    facts = [
        ("Role", " · ".join([ROLE_NAMES[view.role], *odd])),
        ("Ratio r", f"{view.ratio:.3f}{interval}, n = {view.n}"),
        ("Uniform attention", f"1/{run.num_frames} = {run.uniform:.3f}, lift {view.lift:.3f}"),
        ("Role holds in", f"{view.stability:.0%} of the sample × step cells"),
        *_ranks(run, selection, cell),
        *_means(marks, cell),
    ]
    pinned = selection.changed(block=block, head=index)
    table = over_timesteps(run, block, index, **where)
    parts = [
        Part(
            name,
            f"Ratio over the timesteps with its 95 % interval over samples. {_n(view.n, True)}.",
            facts=facts,
            figure=ratio_over_timesteps(table, **thresholds, uniform=run.uniform, height=260),
            alt=f"Intra-slice ratio of block {block}, head {index} over the timesteps.",
            table=table,
            python=recipes.ratio_over_timesteps(run, selection, block, index),
            command=recipes.report_command(run, pinned),
        )
    ]
    found = head_frame_map(run, *cell, **where)
    if found is not None:
        shown, timesteps, samples = found
        when = ", ".join(f"{step:.0f}" for step in sorted(timesteps, reverse=True))
        parts.append(
            Part(
                f"{name}: which frames look at which",
                f"Share of attention from every query frame to every key frame, mean of t {when}. {_n(samples, True)}.",
                figure=frame_map(shown, height=360),
                alt=f"Frame map of block {block}, head {index}.",
                table=frame_map_table(shown, samples),
                python=recipes.frame_map(run, selection, block, index),
                command=recipes.report_command(run, pinned),
            )
        )
    return parts


def blocks(run: Run, selection: Selection) -> list[Part]:
    """How much every block changes its input at every timestep, and the chosen block's parts."""
    there = [part for part in LENSES if set(LENSES[part].needs) <= set(run.statistics)]
    if selection.lens not in there:
        return []
    where, lens = chosen(selection), LENSES[selection.lens]
    values = block_values(run, selection.lens, **where)
    turns = selection.lens == "cosine"
    command = recipes.report_command(run, selection)
    parts = [
        Part(
            f"{lens.title} by timestep",
            block_finding(values.by_block(), lens.noun, turns=turns),
            figure=residual_map(
                values.cells(),
                values.timesteps,
                name=lens.symbol,
                samples=values.samples,
                limits=values.limits(turns=turns),
                height=320,
            ),
            alt=f"{lens.symbol} of every block at every timestep.",
            table=values.table(),
            python=recipes.block_map(run, selection, selection.lens),
            command=command,
        )
    ]
    if selection.block is not None:
        there = [part for part in PARTS if part in there]
        frames = {LENSES[part].title: block_values(run, part, **where).of_block(selection.block) for part in there}
        parts.append(
            Part(
                f"Block {selection.block} and its parts",
                f"Norms over the norm of the block's input, with 95 % intervals. {_n(values.samples, True)}.",
                figure=parts_over_timesteps(frames, name="norm / ‖x‖", height=300),
                alt=f"How much block {selection.block} and its parts change its input over the timesteps.",
                table=part_table(frames),
                python=recipes.parts_over_timesteps(run, selection, selection.block, there),
                command=command,
            )
        )
    return parts


def routes(run: Run, selection: Selection) -> list[Part]:
    """What a router decided, where decisions were recorded."""
    if not has_routes(run) or (recorded := run.routes()).empty:
        return []
    samples = sorted(int(each) for each in recorded["sample"].unique())
    row = samples.index(selection.sample) if selection.sample in samples else 0
    scores, ran, times = (route_array(recorded, name) for name in ("score", "ran", "timestep"))
    timesteps = times[0, :, 0]
    prompt = run.manifest.samples[samples[row]].prompt
    parts = [
        Part(
            f"Which blocks ran, sample {samples[row]}",
            f"Recorded decisions for: {prompt}",
            figure=decision_map(ran[row].astype(bool), scores[row], timesteps),
            alt=f"Which blocks ran at every timestep for sample {samples[row]}.",
            table=decision_table(ran[row].astype(bool), scores[row], timesteps),
            python=recipes.decisions(run, row=row, budget=None),
            command=recipes.report_command(run, selection),
        )
    ]
    found = route_variation(recorded)
    if found.samples > 1:
        interval = "" if np.isnan(found.low) else f" [{found.low:.1%}, {found.high:.1%}]"
        parts.append(
            Part(
                "Do decisions follow the content?",
                f"Two samples disagree on {found.disagreement:.1%}{interval} of the decisions; blocks drawn at random "
                f"would on {found.ceiling:.1%}. {_n(found.samples, True)}.",
                figure=disagreement_by_step(found),
                alt="Chance that two samples decide differently on a block, by timestep.",
                table=disagreement_table(found),
                python=recipes.disagreement(run),
                command=recipes.report_command(run, selection),
            )
        )
    return parts


def cells_of(run: Run, selection: Selection) -> Cells:
    """The ratios of the selection's part of the run."""
    return read_cells(run, **chosen(selection))


def _least(by_block: pd.DataFrame) -> int:
    """Samples behind the block that fewest ran; a block that never ran is not in the figure."""
    known = by_block["n"][by_block["n"] > 0]
    return int(known.min()) if len(known) else 0


def _ranks(run: Run, selection: Selection, cell: tuple[int, int]) -> list[tuple[str, str]]:
    if "self/value_norm" not in run.statistics:
        return []
    roles = run_roles(run, selection.tau_s, selection.tau_t, selection.branch)
    scores = protected(run_importance(run, selection.branch)["self"], roles, selection.alpha)
    if np.isnan(scores[cell]):
        return []
    in_block, in_all = (int(np.sum(among > scores[cell])) + 1 for among in (scores[cell[0]], scores))
    times = f", × α = {selection.alpha:g}" if roles[cell] == "T" else ""
    return [
        ("Importance rank", f"{in_block} of {scores.shape[1]} in its block, {in_all} of {scores.size} in all{times}")
    ]


def _means(marks: HeadMarks, cell: tuple[int, int]) -> list[tuple[str, str]]:
    known = (("Entropy", marks.entropy, " nats"), ("First-frame share", marks.first_frame_share, ""))
    return [
        (name, f"{means.mean[cell]:.3f} ± {1.96 * means.error[cell]:.3f}{unit}")
        for name, means, unit in known
        if means is not None and not np.isnan(means.mean[cell])
    ]


def _n(samples: int, alone: bool = False) -> str:
    """ "4 samples", or "n = 4 samples" to stand alone."""
    return ("n = " if alone else "") + f"{samples} sample{'s' if samples != 1 else ''}"
