"""Scores of heads: by the scorers that read a run alone, held for every branch, and what was measured for Evidence."""

from pathlib import Path

import streamlit as st

from analysis.runs import Run
from analysis.score_table import COLUMN
from analysis.scores import Scores, scores_by_branch
from pare.errors import InputError
from workbench.pages.data import LOOK_SECONDS, open_run, stamp
from workbench.pages.kept import kept
from workbench.pages.text import command_line, short_path
from workbench.places import Places
from workbench.state import MEASURED_SCORERS, RUN_SCORERS, Selection
from workbench.stored_evidence import Found, find_answers


def run_scores(run: Run, scorer: str, branch: str | None) -> Scores:
    """The scores of one of `analysis.scores.RUN_SCORERS` on a branch (None: on all); raises `InputError` as that does."""
    if branch is not None:
        run.branch_index(branch)
    return _by_branch(str(run.folder), stamp(run.folder), scorer)[branch]


@kept(st.cache_resource, max_entries=12)
def _by_branch(folder: str, when: tuple[int, ...], scorer: str) -> dict[str | None, Scores]:
    return scores_by_branch(open_run(Path(folder)), scorer)


def measured_scores(run: Run, places: Places) -> Found:
    """The answer to "which scores predict the effect" for the run's model, with the scores of the scorers that run it."""
    return _measured(places, str(run.folder), stamp(run.folder))


@kept(st.cache_resource, ttl=LOOK_SECONDS * 5, max_entries=8)
def _measured(places: Places, folder: str, when: tuple[int, ...]) -> Found:
    run = open_run(Path(folder))
    return find_answers(places, run.manifest.model, run.hash, places.answers())["scores"]


def scorers_of(run: Run, places: Places) -> list[str]:
    """The scorers that heads of this run can be ranked by: from the run alone, and measured ones where there is an answer."""
    answer = measured_scores(run, places).answer
    columns = () if answer is None or "heads" not in answer.tables else answer.tables["heads"].columns
    return [*RUN_SCORERS, *(name for name in MEASURED_SCORERS if name in columns)]


def ranked_by(run: Run, selection: Selection, places: Places) -> Selection:
    """The selection with a scorer as `pare mask` takes it: a measured one is a column of the answer's file.

    Raises `InputError` for a scorer that was not measured on this run's model.
    """
    if selection.scorer not in MEASURED_SCORERS:
        return selection
    found = measured_scores(run, places)
    if found.answer is None or found.path is None or selection.scorer not in scorers_of(run, places):
        raise InputError(
            "scorer", got=f"{selection.scorer}, not measured on {run.model_id}", expected="an answer that has it",
            fix=command_line("evidence", "scores", short_path(run.folder), out="evidence-scores") + ", or Evidence",
        )  # fmt: skip
    return selection.changed(scorer=f"{short_path(found.path)}{COLUMN}{selection.scorer}")
