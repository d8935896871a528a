"""One answer on the Evidence page: its charts, its tables, what made it and what would falsify it."""

from collections.abc import Callable

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from analysis.evidence.answer import Answer
from analysis.evidence.premise import MOTION, OUTCOMES
from analysis.figures import evidence as figures
from workbench.pages.chart import show_chart
from workbench.pages.shell import guard
from workbench.pages.text import plain, short_path
from workbench.stored_evidence import Found, label

TABLE_HEIGHT = 320


def show_answer(found: Found) -> None:
    """The answer's verdict, its charts, and where it is from."""
    answer = found.answer
    assert answer is not None
    st.markdown(f"**{plain(answer.sentence)}**")
    with guard("charts"):
        CHARTS[answer.question](found, answer)
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
            st.code(answer.command, language=None, wrap_lines=True)
        with guard("tables"):
            name = st.selectbox("Table", list(answer.tables), key=f"evidence_table_{answer.question}")
            st.dataframe(answer.tables[name], height=TABLE_HEIGHT, hide_index=True)


def _chart(found: Found, figure: go.Figure, *, key: str, alt: str, table: str, call: str) -> None:
    answer = found.answer
    assert answer is not None and found.path is not None
    python = "\n".join(
        [
            "from analysis.evidence.answer import read_answer",
            "from analysis.figures import evidence as figures",
            "",
            f"answer = read_answer({short_path(found.path)!r})",
            f"table = answer.tables[{table!r}]",
            f"figure = figures.{call}",
            "figure.show()",
        ]
    )
    show_chart(
        figure,
        key=f"evidence_{key}",
        alt=alt,
        table=answer.tables[table],
        python=python,
        command=answer.command or None,
        name=f"evidence-{answer.question}-{key}",
    )


def _roles(found: Found, answer: Answer) -> None:
    _chart(
        found,
        figures.agreement_by_factor(answer.tables["factors"]),
        key="agreement",
        alt=f"Agreement of roles over each factor with its 95 % interval. {answer.sentence}",
        table="factors",
        call="agreement_by_factor(table)",
    )


def _premise(found: Found, answer: Answer) -> None:
    contrasts = answer.tables["contrasts"]
    for group in (MOTION, "appearance"):
        st.header(group.capitalize(), anchor=False)
        _chart(
            found,
            figures.damage_contrasts(contrasts, group),
            key=group,
            alt=f"Damage to {group} by temporal heads less that by each control, with the intervals that decide.",
            table="contrasts",
            call=f"damage_contrasts(table, {group!r})",
        )
    outcomes = answer.tables["outcomes"]
    names = [name for name in OUTCOMES if name in set(outcomes["outcome"])]
    chosen = st.selectbox(
        "Outcome",
        names,
        format_func=lambda name: f"{OUTCOMES[name].group}: {OUTCOMES[name].title}",
        key="evidence_outcome",
    )
    _chart(
        found,
        figures.damage_by_number(outcomes, chosen),
        key="by_number",
        alt=f"Damage, {OUTCOMES[chosen].title}, by how many heads are off, a line per kind of set.",
        table="outcomes",
        call=f"damage_by_number(table, {chosen!r})",
    )


def _alpha(found: Found, answer: Answer) -> None:
    bar = answer.settings.get("resampling_flips")
    chosen = float(answer.settings.get("alpha", 1.5))
    _chart(
        found,
        figures.picks_over_alpha(answer.tables["alphas"], chosen=chosen, bar=bar),
        key="picks",
        alt=f"Picks that α changes and temporal heads kept, by α. {answer.sentence}",
        table="alphas",
        call=f"picks_over_alpha(table, chosen={chosen:g}, bar={bar!r})",
    )


def _scores(found: Found, answer: Answer) -> None:
    table = answer.tables["correlations"]
    kinds = list(dict.fromkeys(table["kind"]))
    words = {"self": "self-attention", "cross": "cross-attention"}
    kind = (
        st.segmented_control("Heads", kinds, default=kinds[0], format_func=words.__getitem__, key="evidence_kind")
        if len(kinds) > 1
        else kinds[0]
    )
    _chart(
        found,
        figures.score_correlations(table, kind or kinds[0]),
        key="correlations",
        alt=f"Rank correlation of every score with the effect of switching a head off. {answer.sentence}",
        table="correlations",
        call=f"score_correlations(table, {(kind or kinds[0])!r})",
    )


def _routes(found: Found, answer: Answer) -> None:
    if len(answer.tables["attributes"]):
        _chart(
            found,
            figures.attribute_differences(answer.tables["attributes"]),
            key="attributes",
            alt=f"How much more samples disagree that differ in an attribute of the content. {answer.sentence}",
            table="attributes",
            call="attribute_differences(table)",
        )
    _chart(
        found,
        figures.disagreement_over_steps(answer.tables["steps"]),
        key="steps",
        alt="Chance that two samples decide differently on a block, by timestep.",
        table="steps",
        call="disagreement_over_steps(table)",
    )


def _averages(found: Found, answer: Answer) -> None:
    left, right = st.columns(2, gap="medium")
    with left:
        _chart(
            found,
            figures.own_role_shares(answer.tables["heads"]),
            key="roles",
            alt=f"Every head's mean ratio against the share of its cells with the role of that mean. {answer.sentence}",
            table="heads",
            call="own_role_shares(table)",
        )
    with right:
        steps: pd.DataFrame | None = answer.tables.get("block_steps")
        if steps is None:
            st.caption("The run has no block norms.")
            return
        _chart(
            found,
            figures.ranks_over_timesteps(steps),
            key="ranks",
            alt="Every block's rank by how much it changes its input, over the timesteps.",
            table="block_steps",
            call="ranks_over_timesteps(table)",
        )


CHARTS: dict[str, Callable[[Found, Answer], None]] = {
    "roles": _roles,
    "premise": _premise,
    "alpha": _alpha,
    "scores": _scores,
    "routes": _routes,
    "averages": _averages,
}
