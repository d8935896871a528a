"""Evidence: the questions the method raises, each with its answer for the open run's model, and a button that measures it."""

from contextlib import suppress
from pathlib import Path

import streamlit as st

from analysis.evidence.answer import QUESTIONS, Answer
from analysis.runs import Run
from pare.errors import InputError
from workbench.components.copy_button.component import copy_button
from workbench.pages.data import LOOK_SECONDS
from workbench.pages.evidence_jobs import show_measure
from workbench.pages.evidence_view import show_about, show_answer
from workbench.pages.kept import kept
from workbench.pages.prune_work import finished_jobs
from workbench.pages.report_button import give_report, view_link
from workbench.pages.shell import Shell, choose, empty_state, guard, open_shell, unfinished_state
from workbench.pages.text import command_line, plain, short_path
from workbench.places import Places
from workbench.report.evidence import evidence_report, verdict_words
from workbench.state import Selection
from workbench.stored_evidence import Found, find_answers

BADGES = {
    "yes": ":blue-badge[:material/check: Yes]",
    "no": ":orange-badge[:material/close: No]",
    "undecided": ":gray-badge[:material/question_mark: Undecided]",
    "stale": ":red-badge[:material/history: Stale]",
    "damaged": ":red-badge[:material/error: Unreadable]",
    "none": ":gray-badge[Not measured]",
}
STYLE = """<style>
[class*="st-key-question_"] button { min-height: 1.9rem; }
[class*="st-key-question_"] button :is(div, p) { width: 100%; text-align: left; justify-content: flex-start; }
[class*="st-key-question_"] [data-testid="stMarkdown"] p { font-size: 0.85rem; }
.st-key-evidence_about [data-testid="stMarkdown"] :is(p, li) { font-size: 0.9rem; }
</style>"""
WORDS = {"here": "", "other run": "from another run of this model"}


@kept(st.cache_data, ttl=LOOK_SECONDS, max_entries=8)
def answer_names(places: Places, finished: int) -> list[str]:
    """Names of all folders with an answer, as fresh as `run_names`, and fresh whenever `finished` jobs are one more.

    The page draws itself once when a job ends, so that what it made must be found at once.
    """
    return places.answers()


def answered(found: dict[str, Found], first: str) -> list[tuple[Answer, Path]]:
    """The answers that there are with their files, that of the open question first."""
    there = [(each.answer, each.path) for each in found.values() if each.answer is not None and each.path is not None]
    return sorted(there, key=lambda each: each[0].question != first)


def show_list(found: dict[str, Found], selection: Selection) -> None:
    """Every question with its verdict; a click opens it."""
    st.html(STYLE)
    for question, title in QUESTIONS.items():
        each = found[question]
        with st.container(border=True, gap=None, key=f"question_{question}"):
            st.button(
                title,
                key=f"open_{question}",
                on_click=choose,
                kwargs={"question": question},
                type="primary" if question == selection.question else "tertiary",
                width="stretch",
            )
            state = each.answer.verdict if each.answer is not None else each.state
            about = []
            if each.answer is not None:
                n = each.answer.n
                about = [f"{n[name]} {name}" for name in ("samples", "prompts", "videos", "heads") if n.get(name)][:3]
                about += each.answer.limits
                about += ["stored with the demo"] if each.stored else []
                about += [WORDS[each.state]] if WORDS.get(each.state) else []
            st.markdown(f"{BADGES[state]} {plain(', '.join(about))}")


def show_question(run: Run, found: Found, selection: Selection, places: Places) -> None:
    """The open question: its answer where there is one, what is wrong with one, and how to get one."""
    st.header(QUESTIONS[found.question], anchor=False)
    if found.problem:
        st.warning(plain(found.problem), icon=":material/warning:")
    if found.answer is not None:
        show_answer(found)
    else:
        st.markdown("Not answered for this run's model yet. This command answers it, and so does the button:")
        command = command_line("evidence", found.question, short_path(run.folder), out=f"evidence-{found.question}")
        st.code(command, language=None, wrap_lines=True)
    with guard("measuring"):
        show_measure(run, found.question, selection, places, found.answer if found.state == "here" else None)
    if found.answer is not None:
        show_about(found.answer)


def show_page(shell: Shell) -> None:
    run, selection, places = shell.run, shell.selection, shell.places
    if run is None:
        empty_state(places, shell.names)
        return
    if not run.finished:
        unfinished_state(run)
        return
    with guard("evidence"):
        finished = 0
        # A job table that cannot be read is said in the sidebar; answers are read without it.
        with suppress(InputError):
            finished = finished_jobs(places, "evidence")
        try:
            found = find_answers(places, run.manifest.model, run.hash, answer_names(places, finished))
        except (InputError, OSError):
            # A folder that went away since the last look.
            answer_names.clear()
            found = find_answers(places, run.manifest.model, run.hash, answer_names(places, finished))
        text, button = st.columns([4, 1], vertical_alignment="top")
        with text:
            answers = answered(found, selection.question)
            st.title(plain(verdict_words(run.model_id, [answer for answer, _ in answers])), anchor=False)
        with button, st.container(horizontal=True, horizontal_alignment="right"):
            copy_button("Copy link", None, key="copy_link")
            if answers:
                link = view_link(st.context.url, selection)
                give_report(
                    lambda: evidence_report(answers, link=link),
                    name=f"{run.folder.name}-evidence",
                    help="One HTML file that opens offline: every answer with its verdict, rule, charts, tables and command.",
                )
        questions, detail = st.columns([2, 3], gap="medium")
        with questions:
            show_list(found, selection)
        with detail, guard("question"):
            show_question(run, found[selection.question], selection, places)


show_page(open_shell(poll_jobs=False))
