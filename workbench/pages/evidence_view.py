"""One answer on the Evidence page: its charts, its tables, what made it and what would falsify it."""

from collections.abc import Callable
from pathlib import Path

import streamlit as st

from analysis.evidence.answer import Answer
from analysis.evidence.premise import MOTION, OUTCOMES
from workbench.pages.chart import csv_button, show_part
from workbench.pages.shell import guard
from workbench.pages.text import plain
from workbench.report import evidence as charts
from workbench.report.part import Part
from workbench.stored_evidence import Found, label

TABLE_HEIGHT = 320
SHORT_TABLE = 8
"""Up to so many rows a table is as high as they are."""


def show_answer(found: Found) -> None:
    """The answer's verdict, its charts, and where it is from."""
    answer = found.answer
    assert answer is not None and found.path is not None
    st.markdown(f"**{plain(answer.sentence)}**")
    with guard("charts"):
        CHARTS[answer.question](found, answer, found.path)
    st.caption(plain(label(found)))


def show_about(answer: Answer) -> None:
    """The claim, what would falsify it, what was measured and by which command, and the tables."""
    with st.container(key="evidence_about", gap="small"):
        for title, text in (
            ("Claim", answer.claim),
            ("What would falsify it", answer.rule),
            ("Measured", answer.measured),
        ):
            st.markdown(f"**{title}.** {plain(text)}")
        st.markdown("\n".join(f"- {plain(note)}" for note in answer.notes))
        if answer.command:
            st.caption("The command that made this answer:")
            st.code(answer.command, language=None, wrap_lines=True)
        with guard("tables"):
            name = st.selectbox("Table", list(answer.tables), key=f"evidence_table_{answer.question}")
            table = answer.tables[name]
            st.dataframe(table, height=TABLE_HEIGHT if len(table) > SHORT_TABLE else "content", hide_index=True)
            csv_button(table, name=f"evidence-{answer.question}-{name}", key=f"evidence_{answer.question}")


def _chart(found: Found, part: Part | None, *, key: str) -> None:
    if part is not None:
        show_part(part, key=f"evidence_{key}", name=f"evidence-{found.question}-{key}")


def _roles(found: Found, answer: Answer, path: Path) -> None:
    _chart(found, charts.agreement(answer, path), key="agreement")


def _premise(found: Found, answer: Answer, path: Path) -> None:
    for group in (MOTION, "appearance"):
        st.header(group.capitalize(), anchor=False)
        _chart(found, charts.contrasts(answer, path, group), key=group)
    chosen = st.selectbox(
        "Outcome",
        charts.outcomes_of(answer),
        format_func=lambda name: f"{OUTCOMES[name].group}: {OUTCOMES[name].title}",
        key="evidence_outcome",
    )
    _chart(found, charts.damage(answer, path, chosen), key="by_number")


def _alpha(found: Found, answer: Answer, path: Path) -> None:
    _chart(found, charts.picks(answer, path), key="picks")


def _scores(found: Found, answer: Answer, path: Path) -> None:
    kinds = charts.kinds_of(answer)
    kind = (
        st.segmented_control(
            "Heads", kinds, default=kinds[0], format_func=charts.KINDS.__getitem__, key="evidence_kind"
        )
        if len(kinds) > 1
        else kinds[0]
    )
    _chart(found, charts.correlations(answer, path, kind or kinds[0]), key="correlations")


def _routes(found: Found, answer: Answer, path: Path) -> None:
    _chart(found, charts.attributes(answer, path), key="attributes")
    _chart(found, charts.disagreement(answer, path), key="steps")


def _averages(found: Found, answer: Answer, path: Path) -> None:
    left, right = st.columns(2, gap="medium")
    with left:
        _chart(found, charts.own_roles(answer, path), key="roles")
    with right:
        ranks = charts.ranks(answer, path)
        if ranks is None:
            st.caption("The run has no block norms.")
        _chart(found, ranks, key="ranks")


CHARTS: dict[str, Callable[[Found, Answer, Path], None]] = {
    "roles": _roles,
    "premise": _premise,
    "alpha": _alpha,
    "scores": _scores,
    "routes": _routes,
    "averages": _averages,
}
