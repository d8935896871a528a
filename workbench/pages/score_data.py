"""Scores of heads by the scorers that read a run alone, held for every branch, so that another branch reads nothing."""

from pathlib import Path

import streamlit as st

from analysis.runs import Run
from analysis.scores import Scores, scores_by_branch
from workbench.pages.data import open_run, stamp


def run_scores(run: Run, scorer: str, branch: str | None) -> Scores:
    """The scores of one of `analysis.scores.RUN_SCORERS` on a branch (None: on all); raises `InputError` as that does."""
    if branch is not None:
        run.branch_index(branch)
    return _by_branch(str(run.folder), stamp(run.folder), scorer)[branch]


@st.cache_resource(max_entries=12, show_spinner=False)
def _by_branch(folder: str, when: tuple[int, ...], scorer: str) -> dict[str | None, Scores]:
    return scores_by_branch(open_run(Path(folder)), scorer)
