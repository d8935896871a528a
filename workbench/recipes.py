"""The Python that makes each chart from a run, as text: what "Take out" offers and a report prints beside its figures.

Every text leaves `figure`, the plotly figure, and `table`, the pandas frame behind it. Tests run all of them.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from analysis.block_values import PARTS
from analysis.runs import Run
from workbench.pages.text import command_line, short_path
from workbench.state import Selection

TABLES = "analysis.figures.tables"


def report_arguments(selection: Selection) -> dict[str, Any]:
    """The flags of `pare report` that the selection decides; what equals its default is left out.

    >>> report_arguments(Selection(block=2, head=3, tau_s=0.8, first_step=1, last_step=4))
    {'block': 2, 'head': 3, 'tau_s': 0.8, 'steps': '1-4'}
    """
    names = ("block", "head", "sample", "branch", "lens", "tau_s", "tau_t")
    usual = Selection.model_fields
    given = {name: value for name in names if (value := getattr(selection, name)) != usual[name].default}
    if selection.first_step is not None and selection.last_step is not None:
        given["steps"] = f"{selection.first_step}-{selection.last_step}"
    return given


def report_command(run: Run, selection: Selection) -> str:
    """The command line that makes every chart of this view at once."""
    return command_line("report", short_path(run.folder), out="report.html", **report_arguments(selection))


def roles_command(run: Run, selection: Selection, **more: Any) -> str:
    """The command line that tells the roles of all heads at these thresholds, in the selection's part of the run."""
    part = {name: value for name, value in report_arguments(selection).items() if name in ("sample", "steps")}
    taus = {"tau_s": selection.tau_s, "tau_t": selection.tau_t}
    return command_line("roles", short_path(run.folder), **more, **taus, branch=selection.branch, **part)


def head_grid(
    run: Run, selection: Selection, *, mask: Mapping[str, Any] | None = None, mask_file: Path | None = None
) -> str:
    """Roles of all heads; with the settings of a `mask`, or with a `mask_file`, what it removes."""
    imports = {
        "analysis.aggregate": "read_cells",
        "analysis.figures.heads": "head_grid",
        TABLES: "head_table",
        "analysis.marks": "head_marks",
    }
    marks, removed, plan = "", "", []
    if mask_file is not None:
        del imports["analysis.marks"]
        imports["pare"] = "mask"
        removed = f", removed=~mask.load({short_path(mask_file)!r}).self_heads"
    elif mask is None:
        marks = f", marks=head_marks(run{_part(selection)})"
    else:
        del imports["analysis.marks"]
        imports |= _PLAN_IMPORTS
        plan, removed = [_plan(mask)], ", removed=~planned.self_heads"
    return _script(
        run,
        imports,
        f'cells = read_cells(run, "self/ratio"{_part(selection)})',
        *plan,
        f"table = head_table(cells, {_thresholds(selection)}{marks}{removed})",
        f"figure = head_grid(table, {_thresholds(selection)})",
    )


def block_heads(run: Run, selection: Selection, block: int) -> str:
    """Roles of one block's heads."""
    return _script(
        run,
        {
            "analysis.aggregate": "read_cells",
            "analysis.figures.roles": "ratio_of_heads",
            TABLES: "head_table",
            "analysis.marks": "head_marks",
        },
        f'cells = read_cells(run, "self/ratio"{_part(selection)})',
        f"table = head_table(cells, {_thresholds(selection)}, marks=head_marks(run{_part(selection)}))",
        f'table = table[table["block"] == {block}]',
        f"figure = ratio_of_heads(table, {_thresholds(selection)}, uniform=run.uniform)",
    )


def ratio_histogram(run: Run, selection: Selection) -> str:
    """How many heads have which ratio."""
    return _script(
        run,
        {"analysis.aggregate": "read_cells", "analysis.figures.roles": "ratio_histogram", TABLES: "histogram_table"},
        f'ratio = read_cells(run, "self/ratio"{_part(selection)}).by_head()',
        f"table = histogram_table(ratio, {_thresholds(selection)})",
        f"figure = ratio_histogram(ratio, {_thresholds(selection)}, uniform=run.uniform)",
    )


def roles_per_block(run: Run, selection: Selection) -> str:
    """How many heads of every block have which role."""
    return _script(
        run,
        {
            "analysis.aggregate": "read_cells",
            "analysis.figures.roles": "roles_per_block",
            TABLES: "role_count_table",
            "analysis.roles": "classify",
        },
        f'ratio = read_cells(run, "self/ratio"{_part(selection)}).by_head()',
        f"letters = classify(ratio, {_thresholds(selection)})",
        "table = role_count_table(letters)",
        "figure = roles_per_block(letters)",
    )


def mean_ratio_per_block(run: Run, selection: Selection) -> str:
    """Mean ratio of every block's heads."""
    return _script(
        run,
        {"analysis.block_values": "block_ratio", "analysis.figures.roles": "mean_ratio_per_block"},
        f"table = block_ratio(run{_part(selection)})",
        f"figure = mean_ratio_per_block(table, {_thresholds(selection)}, uniform=run.uniform)",
    )


def ratio_over_timesteps(run: Run, selection: Selection, block: int, head: int) -> str:
    """One head's ratio along the denoising."""
    return _script(
        run,
        {"analysis.head_view": "over_timesteps", "analysis.figures.roles": "ratio_over_timesteps"},
        f"table = over_timesteps(run, {block}, {head}{_part(selection)})",
        f"figure = ratio_over_timesteps(table, {_thresholds(selection)}, uniform=run.uniform)",
    )


def frame_map(run: Run, selection: Selection, block: int, head: int) -> str:
    """One head's attention between frames."""
    return _script(
        run,
        {
            "analysis.aggregate": "head_frame_map",
            "analysis.figures.heads": "frame_map",
            TABLES: "frame_map_table",
        },
        f"shown, timesteps, samples = head_frame_map(run, {block}, {head}{_part(selection)})",
        "table = frame_map_table(shown, samples)",
        "figure = frame_map(shown)",
    )


def head_scatter(
    run: Run,
    selection: Selection,
    x: str,
    y: str,
    color: str,
    names: Mapping[str, str],
    pinned: tuple[int, int] | None = None,
) -> str:
    """All heads by two metrics and a colour, the `pinned` one ringed."""
    ring = "" if pinned is None else f", pinned={pinned!r}"
    wanted = list(dict.fromkeys([x, y, *([color] if color != "role" else [])]))
    return _script(
        run,
        {"analysis.figures.head_scatter": "head_scatter", "analysis.head_metrics": "metric_table"},
        f"table = metric_table(run, {wanted!r}{_part(selection)}, {_thresholds(selection)}, alpha={selection.alpha!r})",
        f"names = {dict(names)!r}",
        f"figure = head_scatter(table, {x!r}, {y!r}, {color!r}, names=names, {_thresholds(selection)}{ring})",
    )


def block_map(run: Run, selection: Selection, lens: str = "residual") -> str:
    """How much every block, or a part of it, changes its input at every timestep."""
    turns = "turns=True" if lens == "cosine" else ""
    return _script(
        run,
        {"analysis.block_values": "LENSES, block_values", "analysis.figures.blocks": "residual_map"},
        f"values = block_values(run, {lens!r}{_part(selection)})",
        "table = values.table()",
        "figure = residual_map(",
        "    values.cells(),",
        "    values.timesteps,",
        f"    name=LENSES[{lens!r}].symbol,",
        "    samples=values.samples,",
        f"    limits=values.limits({turns}),",
        ")",
    )


def parts_over_timesteps(run: Run, selection: Selection, block: int, parts: Sequence[str] = PARTS) -> str:
    """One block and its parts along the denoising; `parts` are lenses that the run has."""
    return _script(
        run,
        {
            "analysis.block_values": "LENSES, block_values",
            "analysis.figures.blocks": "parts_over_timesteps",
            TABLES: "part_table",
        },
        "frames = {",
        f"    LENSES[part].title: block_values(run, part{_part(selection)}).of_block({block})",
        f"    for part in {tuple(parts)!r}",
        "}",
        "table = part_table(frames)",
        'figure = parts_over_timesteps(frames, name="norm / ‖x‖")',
    )


def kept_per_block(run: Run, mask: Mapping[str, Any]) -> str:
    """What a mask at these settings keeps in every block."""
    return _script(
        run,
        {**_PLAN_IMPORTS, "analysis.figures.masks": "kept_per_block", TABLES: "kept_table"},
        _plan(mask),
        "geometry = run.geometry",
        "counts = planned.counts.per_block(geometry.blocks)",
        'sizes = {"self_heads": geometry.heads, "cross_heads": geometry.heads, "neurons": geometry.ffn}',
        "table = kept_table(counts, sizes)",
        "figure = kept_per_block(counts, sizes)",
    )


def kept_in_mask(run: Run, mask_file: Path) -> str:
    """What a mask file keeps in every block."""
    return _script(
        run,
        {"analysis.figures.masks": "kept_per_block", TABLES: "kept_table", "pare": "mask"},
        "geometry = run.geometry",
        f"counts = mask.load({short_path(mask_file)!r}).counts()",
        'sizes = {"self_heads": geometry.heads, "cross_heads": geometry.heads, "neurons": geometry.ffn}',
        "table = kept_table(counts, sizes)",
        "figure = kept_per_block(counts, sizes)",
    )


def cross_heads(run: Run, mask: Mapping[str, Any]) -> str:
    """Scores of the cross-attention heads, and which of them a mask at these settings removes."""
    branch = f", branch={mask['branch']!r}" if mask.get("branch") else ""
    return _script(
        run,
        {
            **_PLAN_IMPORTS,
            "analysis.figures.masks": "kept_heads",
            TABLES: "kept_head_table",
            "analysis.head_scores": "head_scores",
        },
        f"scores = head_scores({mask['scorer']!r}, run.geometry, run=run{branch})",
        _plan(mask, ", scores=scores"),
        'table = kept_head_table(planned.cross_heads, scores.values["cross"])',
        'figure = kept_heads(planned.cross_heads, scores.values["cross"])',
    )


def flips_over_alpha(run: Run, mask: Mapping[str, Any]) -> str:
    """How many picks of self-attention heads the protection changes."""
    return _script(
        run,
        {**_PLAN_IMPORTS, "analysis.figures.masks": "flips_over_alpha", TABLES: "flip_table"},
        _plan(mask),
        "table = flip_table(planned.study)",
        "figure = flips_over_alpha(planned.study, planned.settings.protection)",
    )


def error_per_block(errors: Sequence[Mapping[str, float]]) -> str:
    """The error of every cut block, from the numbers that cutting it measured."""
    rows = [f"    {dict(error)!r}," for error in errors]
    return "\n".join(
        [
            "from analysis.figures.masks import error_per_block",
            f"from {TABLES} import error_table",
            "",
            "errors = [",
            *rows,
            "]",
            "table = error_table(errors)",
            "figure = error_per_block(errors)",
            "figure.show()",
            "",
        ]
    )


def disagreement(run: Run) -> str:
    """How much a router's decisions vary with the content."""
    return _script(
        run,
        {
            "analysis.figures.routes": "disagreement_by_step",
            TABLES: "disagreement_table",
            "analysis.route_variation": "route_variation",
        },
        "found = route_variation(run.routes())",
        "table = disagreement_table(found)",
        "figure = disagreement_by_step(found)",
    )


def block_runs(run: Run, block: int) -> str:
    """How often a router ran a block at every timestep."""
    return _script(
        run,
        {"analysis.block_runs": "block_runs", "analysis.figures.routes": "runs_over_timesteps"},
        f"table = block_runs(run.routes(), {block})",
        "figure = runs_over_timesteps(table)",
    )


def decisions(
    run: Run,
    *,
    row: int | None,
    budget: tuple[int, int] | None,
    edits: Sequence[tuple[int, int]] = (),
) -> str:
    """Which blocks ran at every step: of the sample in this `row` of the recorded ones, else an importance router's.

    Decided again within the `budget` (K_min, K_max) where one is given, then with the `edits` (step, block) turned over.
    """
    imports = {"analysis.figures.routes": "decision_map", TABLES: "decision_table"}
    if row is None:
        imports |= {"analysis.block_values": "block_importance", "numpy": ""}
        lines = [
            "timesteps, importance = block_importance(run)",
            'order = np.argsort(-timesteps, kind="stable")',
            "timesteps, scores = timesteps[order], importance[order]",
        ]
    else:
        imports |= {"analysis.routes": "route_array"}
        lines = [
            "routes = run.routes()",
            f'scores, ran = (route_array(routes, name)[{row}] for name in ("score", "ran"))',
            'timesteps = route_array(routes, "timestep")[0, :, 0]',
            "ran = ran.astype(bool)",
        ]
    if row is None or budget is not None:
        imports |= {"pare.depth.budget": "BudgetSchedule", "pare.depth.decision": "redecide"}
        made = (
            "BudgetSchedule.paper(scores.shape[1])"
            if budget is None
            else "BudgetSchedule.linear({}, {})".format(*budget)
        )
        lines.append(f"ran = redecide(scores[None], {made}, timesteps=timesteps).ran[0]")
    if edits:
        lines += [f"for step, block in {tuple(edits)!r}:", "    ran[step, block] ^= True"]
    return _script(
        run,
        imports,
        *lines,
        "table = decision_table(ran, scores, timesteps)",
        "figure = decision_map(ran, scores, timesteps)",
    )


_PLAN_IMPORTS = {"workbench.mask_plan": "plan", "workbench.mask_settings": "MaskSettings"}


def _plan(mask: Mapping[str, Any], more: str = "") -> str:
    given = ", ".join(f"{name}={value!r}" for name, value in mask.items() if value is not None)
    return f"planned = plan(run, MaskSettings.of({given}){more})"


def _thresholds(selection: Selection) -> str:
    return f"tau_s={selection.tau_s!r}, tau_t={selection.tau_t!r}"


def _part(selection: Selection) -> str:
    """The part of the run that the selection names, as further arguments."""
    given: dict[str, str] = {}
    if selection.sample is not None:
        given["sample"] = repr(selection.sample)
    if selection.branch is not None:
        given["branch"] = repr(selection.branch)
    if selection.first_step is not None and selection.last_step is not None:
        given["steps"] = f"range({selection.first_step}, {selection.last_step + 1})"
    return "".join(f", {name}={value}" for name, value in given.items())


def _script(run: Run, imports: Mapping[str, str], *lines: str) -> str:
    ours = {**imports, "analysis.runs": "Run"}
    first = ["import numpy as np", ""] if "numpy" in ours else []
    names = sorted((module, name) for module, name in ours.items() if name)
    head = [*first, *(f"from {module} import {name}" for module, name in names)]
    # The path as text: whatever it holds stays inside its quotes.
    return "\n".join([*head, "", f"run = Run.open({short_path(run.folder)!r})", *lines, "figure.show()", ""])
