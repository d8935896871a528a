"""The Python behind the charts of the Compare page, as text: it leaves `figure` and `table`. Tests run all of them."""

from collections.abc import Mapping
from pathlib import Path

from analysis.runs import Run
from workbench.pages.text import command_line, short_path
from workbench.state import Selection

FIGURES = "analysis.figures.differences"


def run_command(a: Run, b: Run, statistic: str, selection: Selection) -> str | None:
    """The command line that prints the same differences; None where steps or a sample are chosen, which it does not take."""
    if selection.sample is not None or selection.first_step is not None:
        return None
    places = (short_path(run.folder) for run in (a, b))
    return command_line("compare", *places, statistic=statistic, branch=selection.branch)


def head_differences(a: Run, b: Run, statistic: str, selection: Selection) -> str:
    """B − A of every head."""
    return _script(
        {"analysis.run_difference": "run_difference", "analysis.runs": "Run", FIGURES: "difference_grid"},
        _difference(a, b, statistic, selection),
        "table = found.table()",
        "figure = difference_grid(found)",
    )


def block_differences(a: Run, b: Run, lens: str, selection: Selection, symbol: str) -> str:
    """B − A of every block."""
    return _script(
        {"analysis.run_difference": "run_difference", "analysis.runs": "Run", FIGURES: "difference_per_block"},
        _difference(a, b, lens, selection),
        "table = found.table()",
        f"figure = difference_per_block(found, name={symbol!r})",
    )


def mask_agreement(a: Path, b: Path, part: str) -> str:
    """Which heads two masks keep."""
    return _script(
        {"pare": "mask", FIGURES: "agreement_table, mask_agreement"},
        f"a, b = (mask.load(path) for path in {_two(a, b)})",
        f"table = agreement_table(a, b, {part!r})",
        f"figure = mask_agreement(a, b, {part!r})",
    )


def mask_flips(a: Path, b: Path) -> str:
    """How many heads of every block two masks decide otherwise."""
    return _script(
        {"pare": "mask", FIGURES: "flip_table, flips_per_block"},
        f"a, b = (mask.load(path) for path in {_two(a, b)})",
        "table = flip_table(a, b)",
        "figure = flips_per_block(a, b)",
    )


def metric_effects(a: Path, b: Path) -> str:
    """Every metric of two scored sets of videos."""
    return _script(
        {
            "analysis.score_comparison": "pair_scores, score_table",
            "workbench.video_sets": "open_videos",
            FIGURES: "metric_effects",
        },
        f"a, b = (open_videos(folder) for folder in {_two(a, b)})",
        "table = score_table(pair_scores(a.table, b.table), a.metrics)",
        "figure = metric_effects(table)",
    )


def measured_effects(a: Path, b: Path) -> str:
    """Every metric of two sets of videos, measured anew."""
    return _script(
        {
            "analysis.score_comparison": "sorted_by_effect",
            "workbench.commands.compare": "compare",
            FIGURES: "metric_effects",
        },
        f"found = compare(*{_two(a, b)})",
        'table = sorted_by_effect([row for row in found["metrics"] if row["of"] == "each"])',
        "figure = metric_effects(table)",
    )


def _difference(a: Run, b: Run, statistic: str, selection: Selection) -> str:
    given = {"branch": repr(selection.branch) if selection.branch is not None else None}
    given["sample"] = None if selection.sample is None else repr(selection.sample)
    if selection.first_step is not None and selection.last_step is not None:
        given["steps"] = f"range({selection.first_step}, {selection.last_step + 1})"
    part = "".join(f", {name}={value}" for name, value in given.items() if value is not None)
    runs = ", ".join(f"Run.open({short_path(run.folder)!r})" for run in (a, b))
    return f"found = run_difference({runs}, {statistic!r}{part})"


def _two(a: Path, b: Path) -> str:
    # Paths as text: whatever they hold stays inside their quotes.
    return f"({short_path(a)!r}, {short_path(b)!r})"


def _script(imports: Mapping[str, str], *lines: str) -> str:
    head = [f"from {module} import {names}" for module, names in sorted(imports.items())]
    return "\n".join([*head, "", *lines, "figure.show()", ""])
