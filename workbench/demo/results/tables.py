"""The tables and answers of the page as Markdown, from results alone."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from analysis.paired import Difference, Mean
from workbench.demo.results.answers import QUESTIONS, WORDS, Verdict, answer, bars, changes, in_points, is_clear
from workbench.demo.results.effort import Cost
from workbench.demo.results.measured import ORACLE, Results
from workbench.demo.results.page import NOT_YET
from workbench.demo.results.rows import Row

NONE = "–"


def grid(names: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table.

    >>> print(grid(["a", "b"], [["1", "2"]]))
    | a | b |
    |---|---|
    | 1 | 2 |
    """
    head = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    return "\n".join([*head, *("| " + " | ".join(line) + " |" for line in lines)])


def number(value: float, digits: int = 1, sign: bool = False) -> str:
    """A number for people; a dash where there is none.

    >>> number(-1.25, 2, sign=True), number(float("nan"))
    ('−1.25', '–')
    """
    if not math.isfinite(value):
        return NONE
    return f"{value:{'+' if sign else ''}.{digits}f}".replace("-", "−")


def interval(found: Mean | Difference, digits: int, sign: bool = False) -> str:
    """` [low, high]`; nothing where there is none."""
    if not math.isfinite(found.low):
        return ""
    return f" [{number(found.low, digits, sign)}, {number(found.high, digits, sign)}]"


def change(found: Difference, digits: int, teacher: bool) -> str:
    """The row's own mean and, but for the teacher, its difference with the interval."""
    if not found.n:
        return NONE
    own = number(found.mean_b, digits)
    return own if teacher else f"{own}: {number(found.difference, digits, sign=True)}{interval(found, digits, True)}"


def measured(rows: Sequence[Row], results: Results) -> list[Row]:
    """The rows that have at least one measured training."""
    return [row for row in rows if results.seeds(row)]


def scores_table(rows: Sequence[Row], results: Results) -> str:
    """The oracle's scores in percent, with the difference to the teacher in points."""
    lines = []
    for row in measured(rows, results):
        cells = []
        for score in ORACLE:
            found = in_points(results.to_teacher(row, score))
            cells.append(change(found, 1, row.group == "teacher"))
        lines.append([row.title, _trainings(row, results), *cells])
    moving = sum(count for speed, count in ((s, int(w.sum())) for s, w in results.speeds().items()) if speed != "still")
    note = (
        f"{len(results.keys)} prompts, {moving} of them moving (direction is asked of those alone). Percent right: points to "
        "the teacher."
    )
    return "\n\n".join([grid(["row", "trainings", *ORACLE], lines), note, _missing(rows, results)]).strip()


def motion_table(rows: Sequence[Row], results: Results) -> str:
    """Motion with its difference to the teacher, and the error, PSNR and SSIM against the teacher's videos."""
    lines = []
    for row in measured(rows, results):
        teacher = row.group == "teacher"
        cells = [change(results.to_teacher(row, "flow_magnitude"), 3, teacher)]
        for name, digits in (("flow_error", 3), ("psnr", 2), ("ssim", 3)):
            found = results.mean(row, name) if not teacher else Mean(0, 0, math.nan, math.nan, math.nan)
            cells.append(f"{number(found.mean, digits)}{interval(found, digits)}" if found.n else NONE)
        lines.append([row.title, _trainings(row, results), *cells])
    names = ["row", "trainings", "motion, px/frame", "flow error, px/frame", "PSNR, dB", "SSIM"]
    note = f"n = {len(results.keys)} videos a training."
    return "\n\n".join([grid(names, lines), note])


def cost_table(
    rows: Sequence[Row], results: Results, cost: Callable[[Row], Cost], never_run: Callable[[Row], int]
) -> str:
    """Active and stored parameters, operations and seconds of a video."""
    dense = next(cost(row) for row in rows if row.group == "teacher")
    seconds = results.seconds.get("rows", {})
    lines = []
    for row in measured(rows, results):
        own = cost(row)
        stored = results.scores[row.evaluation(results.seeds(row)[0])]["parameters"] - never_run(row)
        time: Any = seconds.get(row.key)
        timed = [NONE, NONE] if time is None else [
            number(time["median"], 2), f"{number(time['over_teacher']['mean'], 2)}"
            + interval(Mean(**time["over_teacher"]), 2),
        ]  # fmt: skip
        share = own.active_parameters / dense.active_parameters
        cells = [
            f"{own.active_parameters / 1e6:.2f} M ({share:.0%})",
            f"{stored / 1e6:.2f} M",
            f"{own.flops / 1e9:.0f}",
        ]
        lines.append([row.title, *cells, *timed])
    names = ["row", "active in blocks", "stored", "GFLOP a video", "seconds a video", "of the teacher's"]
    machines = sorted({f"{each['rounds']} videos, {each['machine']}" for each in seconds.values()})
    note = (
        f"Seconds: median of videos of all rows in turn ({'; '.join(machines)}); of the teacher's in the same turn, the brackets "
        "over these videos." if machines else "Seconds are not measured yet."
    )  # fmt: skip
    return "\n\n".join([grid(names, lines), note])


def bars_text(rows: Sequence[Row], results: Results) -> str:
    """Each bar: met or missed, by how much, and whether the interval agrees."""
    found = bars(rows, results)
    if not found:
        return NOT_YET
    lines = []
    for bar in found:
        word = ("met" if bar.met else "missed") + ("" if bar.sure else ", not surely")
        points = f"{number(bar.points.difference, 1, sign=True)}{interval(bar.points, 1, sign=True)}"
        lines.append([bar.row, bar.score, points, f"−{bar.allowed:g}", word])
    missed = sum(not bar.met for bar in found)
    told = f"{len(found) - missed} of {len(found)} met by the mean. *Not surely*: the interval reaches over the bar."
    return "\n\n".join([grid(["row", "score", "points to the teacher", "may lose", ""], lines), told])


def answers_text(rows: Sequence[Row], results: Results) -> str:
    """Every question with its answer and the numbers behind it."""
    parts = []
    for question in QUESTIONS:
        verdicts = answer(question, rows, results)
        parts.append(f"**{question.text}** {verdicts[0].answer.capitalize()}: {verdicts[0].reason}.")
        shown = [_evidence(verdict) for verdict in verdicts if verdict.improvement is not None]
        if shown:
            parts.append("\n".join(shown))
    return "\n\n".join(parts)


def _evidence(verdict: Verdict) -> str:
    found = verdict.improvement
    assert found is not None
    name = WORDS.get(verdict.metric, verdict.metric)
    return (
        f"- {name}: {number(found.mean_a, 3)} without, {number(found.mean_b, 3)} with; better by "
        f"{number(found.difference, 3, sign=True)}{interval(found, 3, sign=True)}, n = {found.n} of {found.prompts} prompts "
        f"({verdict.answer}: {verdict.reason})"
    )


def losses_text(rows: Sequence[Row], results: Results) -> str:
    """What every main row, and those of longer training, lost or gained: in all prompts, and by the speed they ask for."""
    shown = [row for row in measured(rows, results) if row.group in ("main", "longer")]
    if not shown:
        return NOT_YET
    speeds = results.speeds()
    lines = []
    for row in shown:
        for score, found in changes(row, results).items():
            digits, name = (3, "motion, px/frame") if score == "flow_magnitude" else (1, f"{score}, points")
            lines.append([row.title, name, *(_change(found.get(where), digits) for where in ("all", *speeds))])
    return grid(["row", "score", "all prompts", *(f"{where} ({int(n.sum())})" for where, n in speeds.items())], lines)


def _change(found: Difference | None, digits: int) -> str:
    if found is None:
        return NONE
    cell = f"{number(found.difference, digits, sign=True)}{interval(found, digits, sign=True)}"
    return f"**{cell}**" if is_clear(found) else cell


def _trainings(row: Row, results: Results) -> str:
    return NONE if row.group == "teacher" else str(len(results.seeds(row)))


def _missing(rows: Sequence[Row], results: Results) -> str:
    absent = [row.title for row in rows if not results.seeds(row)]
    fewer = [f"{row.title} ({len(results.seeds(row))} of {row.seeds} trainings)" for row in measured(rows, results)
             if len(results.seeds(row)) < row.seeds]  # fmt: skip
    told = [
        f"Not measured yet: {', '.join(absent)}." if absent else "",
        f"In part: {', '.join(fewer)}." if fewer else "",
    ]
    return " ".join(each for each in told if each)
