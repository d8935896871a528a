"""The questions of the page, answered by a rule that was written before anything was measured."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from analysis.paired import Difference
from workbench.demo.results.measured import ORACLE, Results
from workbench.demo.results.rows import Row

Answer = Literal["yes", "no", "undecided", "not measured"]
# Points below the teacher that an oracle score may lose.
BARS = {"pare": 3.0, "four-steps": 5.0, "pare-longer": 3.0, "four-steps-longer": 5.0}
WORDS = {
    "flow_error": "flow error against the teacher's video, px/frame",
    "motion_gap": "distance of the motion from the teacher's, px/frame",
    "asked": "share of what was asked for (digit, colour, direction, speed)",
    "direction": "direction right",
    "flow_magnitude": "motion, px/frame",
}
LOWER_IS_BETTER = ("flow_error", "motion_gap")


@dataclass(frozen=True)
class Question:
    """Does `row` do better than `other`, which differs in one thing? The first metric decides; all are shown."""

    text: str
    row: str
    other: str
    metrics: tuple[str, ...]


@dataclass(frozen=True)
class Verdict:
    """An answer, by one metric: the improvement of `row` over `other` (above 0 is better) and why it is decided or not."""

    answer: Answer
    metric: str
    reason: str
    improvement: Difference | None = None


QUESTIONS = (
    Question("Does temporal protection help motion, all else equal?", "pare", "alpha-1",
             ("flow_error", "motion_gap", "direction")),
    Question("Does a content-aware router beat a timestep-only one?", "pare", "timestep", ("asked", "flow_error")),
    Question("Does the order of the stages matter: is width first, then routing, better than both at once?",
             "pare", "no-width", ("asked", "flow_error")),
    Question("Is routing better than leaving out a fixed set of blocks?", "pare", "static", ("asked", "flow_error")),
    Question("Are heads chosen by PARE better than random ones?", "pare", "random", ("asked", "flow_error")),
    Question("Is PARE's cut better than one by uniform magnitude?", "pare", "magnitude", ("asked", "flow_error")),
    Question("Is PARE's cut better than cutting the heads of lowest temporal attention?", "pare", "low-temporal",
             ("asked", "flow_error")),
    Question("Does L_temp help motion?", "pare", "no-temporal", ("flow_error", "motion_gap")),
    Question("Does L_feat help?", "pare", "no-features", ("asked", "flow_error")),
    Question("Does more training of the same kind help?", "pare-longer", "pare", ("asked", "flow_error")),
)  # fmt: skip


def decide(improvement: Difference, trainings: int, spread: float, metric: str) -> Verdict:
    """The rule: no where not one video differs; yes or no where the 95 % interval leaves zero out and, unless several
    trainings are in it, the difference is larger than what another training seed alone changes (`spread`); else undecided.

    `trainings` is how many training seeds are in the interval; `spread` NaN where it is not known.

    >>> decide(Difference(200, 200, 0.5, 0.6, 0.1, 0.05, 0.15), 1, 0.02, "asked").answer
    'yes'
    >>> decide(Difference(200, 200, 0.5, 0.6, 0.1, -0.05, 0.25), 1, 0.02, "asked").reason
    'the interval holds zero'
    """
    if improvement.difference == improvement.low == improvement.high == 0:
        return Verdict("no", metric, "no video differs, so it changes nothing here", improvement)
    if not improvement.clear:
        return Verdict("undecided", metric, "the interval holds zero", improvement)
    if trainings < 2:
        if math.isnan(spread):
            return Verdict("undecided", metric, "how much another training seed changes is not measured", improvement)
        if abs(improvement.difference) <= spread:
            reason = f"no larger than what another training seed changes, {spread:.3g}"
            return Verdict("undecided", metric, reason, improvement)
    found: Answer = "yes" if improvement.difference > 0 else "no"
    return Verdict(found, metric, "better" if found == "yes" else "worse", improvement)


def answer(question: Question, rows: Sequence[Row], results: Results) -> list[Verdict]:
    """A verdict per metric of the question; one that says so where a row is not measured."""
    by_key: Mapping[str, Row] = {row.key: row for row in rows}
    pair = [by_key.get(key) for key in (question.other, question.row)]
    verdicts = []
    for metric in question.metrics:
        first, second = pair
        if first is None or second is None or not results.seeds(first) or not results.seeds(second):
            missing = [key for key, row in zip((question.other, question.row), pair, strict=True)
                       if row is None or not results.seeds(row)]  # fmt: skip
            return [Verdict("not measured", metric, f"{', '.join(missing)} not measured yet")]
        found, seeds = results.between(first, second, metric)
        if not found.n:
            return [Verdict("not measured", metric, "no training seed that both rows have")]
        if metric in LOWER_IS_BETTER:
            found = turned(found)
        spread = max((results.training_spread(row, metric) for row in (first, second)), key=_known)
        verdicts.append(decide(found, len(seeds), spread, metric))
    return verdicts


def _known(value: float) -> float:
    return -math.inf if math.isnan(value) else value


def turned(found: Difference) -> Difference:
    """A − B in place of B − A.

    >>> turned(Difference(2, 2, 1.0, 3.0, 2.0, 1.0, 4.0)).low
    -4.0
    """
    return Difference(found.n, found.prompts, found.mean_a, found.mean_b, -found.difference, -found.high, -found.low)


@dataclass(frozen=True)
class Bar:
    """Whether a row keeps an oracle score: points less than the teacher (`difference` below 0), and the points it may lose."""

    row: str
    score: str
    points: Difference
    allowed: float

    @property
    def met(self) -> bool:
        """By the mean."""
        return self.points.difference >= -self.allowed

    @property
    def sure(self) -> bool:
        """Whether the interval agrees with the mean."""
        return self.points.low >= -self.allowed if self.met else self.points.high < -self.allowed


def bars(rows: Sequence[Row], results: Results) -> list[Bar]:
    """Every oracle score of the rows that have a bar and are measured, in points of a hundred."""
    found = []
    for row in rows:
        if row.key in BARS and results.seeds(row):
            for score in ORACLE:
                points = in_points(results.to_teacher(row, score))
                if points.n:
                    found.append(Bar(row.title, score, points, BARS[row.key]))
    return found


def in_points(found: Difference) -> Difference:
    """Shares as points of a hundred.

    >>> in_points(Difference(4, 4, 0.5, 0.25, -0.25, -0.5, 0.0)).difference
    -25.0
    """
    numbers = (found.mean_a, found.mean_b, found.difference, found.low, found.high)
    return Difference(found.n, found.prompts, *(100 * each for each in numbers))


def changes(row: Row, results: Results) -> dict[str, dict[str, Difference]]:
    """Score → speed asked for, or all → a row's difference to the teacher, where there is one.

    Scores of the oracle in points, motion in px/frame; in all prompts and by the speed that the prompt asks for.
    """
    everywhere: dict[str, np.ndarray | None] = {"all": None, **results.speeds()}
    found: dict[str, dict[str, Difference]] = {}
    for score in (*ORACLE, "flow_magnitude"):
        by_speed = {where: results.to_teacher(row, score, prompts) for where, prompts in everywhere.items()}
        found[score] = {
            where: change if score == "flow_magnitude" else in_points(change)
            for where, change in by_speed.items()
            if change.n
        }
    return found


def is_clear(change: Difference) -> bool:
    """Whether the interval leaves zero out.

    >>> [is_clear(Difference(4, 4, 0.5, 0.5, 0.0, low, high)) for low, high in ((-1.0, 1.0), (-2.0, -1.0), (0.0, 1.0))]
    [False, True, False]
    """
    return change.low > 0 or change.high < 0
