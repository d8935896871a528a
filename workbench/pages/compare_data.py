"""What the Compare page reads of sets of videos, cached by the time of their last change."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import streamlit as st

from analysis.score_comparison import pair_scores, score_table
from workbench.pages.kept import kept
from workbench.video_sets import ABOUT, SCORES, VideoSet, open_videos


@dataclass(frozen=True)
class ComparedSets:
    """The pairs of two sets of videos (`path_a`, `path_b`, scores), and B − A of every metric that both have."""

    pairs: pd.DataFrame
    table: pd.DataFrame


def video_set(folder: Path) -> VideoSet:
    """The set in `folder`, read again when it has changed. Raises `InputError` for none, and for a damaged one."""
    parts = [folder, *(folder / name for name in (ABOUT, SCORES, "run.json", "videos"))]
    return _set(str(folder), tuple(part.stat().st_mtime_ns for part in parts if part.exists()))


@kept(st.cache_resource, max_entries=32)
def _set(folder: str, when: tuple[int, ...]) -> VideoSet:
    return open_videos(folder)


def compared_sets(a: VideoSet, b: VideoSet) -> ComparedSets:
    """Pairs by prompt and seed, and the table of effects; empty where nothing is shared."""
    return _compared(a.table, b.table, [dict(each) for each in a.metrics])


@st.cache_data(max_entries=32, show_spinner=False)
def _compared(a: pd.DataFrame, b: pd.DataFrame, metrics: list[dict[str, str]]) -> ComparedSets:
    pairs = pair_scores(a, b)
    return ComparedSets(pairs, score_table(pairs, metrics))
