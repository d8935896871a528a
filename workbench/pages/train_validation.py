"""What the validations of a training saw: errors, the oracle's reading, clips beside the teacher's, roles, and the router."""

from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from analysis.role_changes import role_changes
from analysis.roles import classify, overall_ratio
from analysis.roles import role_counts as count_roles
from workbench.pages.chart import show_part
from workbench.pages.shell import bind, guard
from workbench.pages.text import plain
from workbench.pages.videos import described, show_player
from workbench.places import Places
from workbench.report.training import gate_part, nearest, role_part, validation_parts
from workbench.state import Selection
from workbench.training_record import Training

SHOWN_CHANGES = 200


def show_validations(places: Places, training: Training, selection: Selection) -> None:
    """The lower half of the page: everything of a validation, at the step that is chosen."""
    steps = sorted({*training.clips, *training.role_steps})
    if not steps and not len(training.validations):
        st.header("Validations", anchor=False)
        every = training.settings.get("validate_every")
        # Not in the record where it may differ from one start to the next.
        words = "None so far." if every != 0 else "This training has none."
        st.markdown(f"{words} They come with `--validate-every`, `--held-out`, `--clips` and `--roles`.")
        return
    _curves(training)
    if not steps:
        return
    step = chosen_step(steps, selection)
    if len(steps) > 1:
        st.select_slider(
            "Validation at step",
            steps,
            **bind("train_step", step, lambda now: {"training_step": None if now == steps[-1] else int(now)}),
        )
    else:
        st.caption(f"One validation so far, at step {step:,}.")
    with guard("clips"):
        _clips(places, training, step, selection)
    with guard("roles"):
        _roles(training, step, selection)
    with guard("router"):
        _router(training, step)


def chosen_step(steps: list[int], selection: Selection) -> int:
    """The validation nearest to the one that is selected; the last one where none is.

    >>> chosen_step([50, 100], Selection(training_step=60)), chosen_step([50, 100], Selection())
    (50, 100)
    """
    wanted = selection.training_step
    return steps[-1] if wanted is None else min(steps, key=lambda each: abs(each - wanted))


def _curves(training: Training) -> None:
    charts = validation_parts(training)
    if not charts:
        return
    st.header("Held-out samples", anchor=False)
    for column, (name, part) in zip(st.columns(len(charts)), charts.items(), strict=True):
        with column:
            show_part(part, key=f"train_{name}", name=f"{training.stage}-{name}")


def _clips(places: Places, training: Training, step: int, selection: Selection) -> None:
    there = training.clips.get(step)
    if not there:
        return
    st.header("Clips", anchor=False)
    numbers = sorted(there)
    number = numbers[0]
    if len(numbers) > 1:
        number = st.radio("Clip", numbers, format_func=lambda one: f"{one}", horizontal=True, key="train_clip")
    teacher = training.teacher_clip(number)
    files: dict[str, Path] = {} if teacher is None else {"teacher": teacher}
    show_player(
        places, files | {f"student at step {step:,}": there[number]}, selection, tallest=240, key="train_player"
    )
    shown = described(places, there[number], "student")
    st.caption(plain(f"“{shown.prompt}”, seed {shown.seed}"))
    if teacher is None:
        st.caption("The teacher's clip comes with the first validation of a training started from now on.")


def _roles(training: Training, step: int, selection: Selection) -> None:
    tau_s, tau_t = selection.tau_s, selection.tau_t
    part = role_part(training, step, tau_s, tau_t)
    if part is None:
        return
    at = nearest(training.role_steps, step)
    student, teacher = training.ratios(at), training.ratios(None)
    assert student is not None
    st.header(part.title, anchor=False)
    left, right = st.columns([3, 2], gap="medium")
    with left:
        show_part(part, key="train_roles", name=f"{training.stage}-roles-{at}")
    with right:
        words = {
            whose: ", ".join(f"{n} {role}" for role, n in _counted(each.ratio, tau_s, tau_t).items())
            for whose, each in (("Teacher", teacher), ("Student", student))
            if each is not None
        }
        for whose, counted in words.items():
            st.markdown(f"**{whose}** {counted}")
        levels = ", ".join(f"{each:g}" for each in student.sigmas)
        st.caption(
            f"n = {student.samples} samples at σ = {levels}, the same noise each time; τs = {tau_s:g}, τt = {tau_t:g}."
        )
        if teacher is None:
            st.markdown("The teacher's roles were not measured, so there is nothing to hold them against.")
            return
        changes = role_changes(teacher.ratio, student.ratio, tau_s, tau_t)
        if not len(changes):
            st.markdown("No head that was kept changed its role.")
            return
        count, clear = len(changes), int(changes["clear"].sum())
        kept = f"{count} heads that were kept" if count > 1 else "1 head that was kept"
        st.markdown(f"**{kept} changed role**, {clear} with a change of the ratio whose interval leaves 0 out:")
        st.dataframe(changes_table(changes.head(SHOWN_CHANGES)), hide_index=True, height=210, key="train_changes")


def changes_table(changes: pd.DataFrame) -> pd.DataFrame:
    """The heads that changed role, as people read them.

    >>> row = {"block": 2, "head": 6, "teacher": "M", "student": "T", "teacher_ratio": 0.32, "student_ratio": 0.28, "change": -0.04}
    >>> changes_table(pd.DataFrame([row | {"low": -0.05, "high": -0.03, "n": 4, "clear": True}])).values.tolist()
    [[2, 6, 'M → T', '0.320 → 0.280', '-0.040 [-0.050, -0.030]', 'yes']]
    """
    rows = [
        {
            "block": row.block,
            "head": row.head,
            "role": f"{row.teacher} → {row.student}",
            "ratio": f"{row.teacher_ratio:.3f} → {row.student_ratio:.3f}",
            "change [95 %]": f"{row.change:+.3f} [{row.low:+.3f}, {row.high:+.3f}]",
            "clear": "yes" if row.clear else "no",
        }
        for row in changes.itertuples()
    ]
    return pd.DataFrame(rows)


def _router(training: Training, step: int) -> None:
    part = gate_part(training, step)
    if part is None:
        return
    st.header(part.title, anchor=False)
    show_part(part, key="train_gates", name=f"{training.stage}-gates-{nearest(training.role_steps, step)}")
    st.markdown(plain(part.words))


def show_past(names: dict[str, str], shown: str) -> None:
    """The picker of trainings: name → label."""
    st.selectbox(
        "Training",
        list(names),
        format_func=lambda name: names.get(name, name),
        **bind("training_picker", shown, lambda now: {"training": now, "training_step": None}),
    )


def _counted(ratio: Any, tau_s: float, tau_t: float) -> dict[str, int]:
    return count_roles(classify(overall_ratio(ratio), tau_s, tau_t))
