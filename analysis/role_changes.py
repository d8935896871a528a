"""Heads of a student against its teacher's on the same samples: which changed their role, and by how much their ratio."""

import numpy as np
import pandas as pd

from analysis.roles import LETTERS, TAU_S, TAU_T, bootstrap_interval, check_thresholds, classify, overall_ratio
from pare.errors import InputError

COLUMNS = [
    "block",
    "head",
    "teacher",
    "student",
    "teacher_ratio",
    "student_ratio",
    "change",
    "low",
    "high",
    "n",
    "clear",
]


def role_changes(teacher: np.ndarray, student: np.ndarray, tau_s: float = TAU_S, tau_t: float = TAU_T) -> pd.DataFrame:
    """A row per head that the student kept and whose role (Eq. 4) differs from the teacher's, largest change first.

    Ratios [sample, …, block, head] of the same samples in the same order; NaN where a head was cut. `change` is student minus
    teacher with its 95 % interval over samples (a percentile bootstrap of pairs), `n` samples; `clear` where it leaves 0 out.
    Raises InputError for other shapes.

    >>> role_changes(np.full((2, 1, 1), 0.9), np.full((2, 1, 1), 0.6))[["teacher", "student", "change"]].values.tolist()
    [['S', 'M', -0.30000000000000004]]
    """
    check_thresholds(tau_s, tau_t)
    teacher, student = np.asarray(teacher, float), np.asarray(student, float)
    if teacher.shape != student.shape:
        raise InputError(
            "ratios",
            got=f"{list(teacher.shape)} and {list(student.shape)}",
            expected="one shape",
            fix="measure both on the same samples",
        )
    means = overall_ratio(teacher), overall_ratio(student)
    letters = [classify(each, tau_s, tau_t) for each in means]
    differ = (letters[0] != letters[1]) & (letters[0] != "") & (letters[1] != "")
    if not differ.any():
        return pd.DataFrame(columns=COLUMNS)
    pairs = student - teacher
    inner = tuple(range(1, pairs.ndim - 2))
    # Where a head was cut every cell is NaN, so that no mean mixes.
    per_sample = pairs.mean(axis=inner) if inner else pairs
    lows, highs = bootstrap_interval(per_sample[:, differ])
    rows = []
    for (block, head), low, high in zip(np.argwhere(differ), lows, highs, strict=True):
        at = (block, head)
        interval = {"low": low, "high": high, "clear": bool(low > 0 or high < 0)}
        ratios = {"teacher_ratio": means[0][at], "student_ratio": means[1][at], "change": means[1][at] - means[0][at]}
        roles = {"teacher": str(letters[0][at]), "student": str(letters[1][at])}
        rows.append({"block": int(block), "head": int(head), **roles, **ratios, **interval, "n": len(pairs)})
    rows.sort(key=lambda row: -abs(row["change"]))
    return pd.DataFrame(rows, columns=COLUMNS)


def counts_by_block(ratio: np.ndarray, tau_s: float = TAU_S, tau_t: float = TAU_T) -> pd.DataFrame:
    """How many heads of every block have each role: block, S, M, T, of ratios [sample, …, block, head].

    >>> counts_by_block(np.array([0.9, 0.1]).reshape(1, 1, 2)).values.tolist()
    [[0, 1, 0, 1]]
    """
    letters = classify(overall_ratio(ratio), tau_s, tau_t)
    return pd.DataFrame({"block": range(len(letters))} | {each: (letters == each).sum(axis=1) for each in LETTERS})
