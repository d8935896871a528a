"""What the Heads page reads beside ratios, cached by the run's folder and the time of its last change."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import streamlit as st

from analysis.aggregate import Cells
from analysis.head_metrics import known_metrics, metric_table
from analysis.head_view import HeadView, head_view, over_timesteps
from analysis.run_difference import RunDifference, run_difference
from analysis.run_match import match_runs
from analysis.runs import Run
from analysis.score_ranks import Rank, rank_of, ranks
from analysis.score_table import ENDINGS, read_scores
from analysis.scores import RUN_SCORERS, Scores, random_scores
from pare.errors import InputError
from workbench.pages.compare_data import video_set
from workbench.pages.data import LOOK_SECONDS, block_statistic, cells, chosen_steps, open_run, ratios, run_names, stamp
from workbench.pages.kept import kept
from workbench.pages.score_data import measured_scores, run_scores
from workbench.places import Places
from workbench.state import Selection
from workbench.teacher_videos import Clips, clips_of
from workbench.video_sets import VideoSet

SCORES_FOLDER = "scores"
"""Below a run, tables of scores that ran the model: FILE.csv, .parquet or .jsonl, as `pare mask --scorer` reads them."""
ABOUT_EFFECTS = ("kind", "block", "head", "effect", "low", "high", "n")
"""Columns of a table of effects that are no scorer's."""
Part: TypeAlias = tuple[int | None, str | None, list[int] | None]
"""Sample, branch and steps."""
NORMS = {"value norm ‖ṽ‖": "self/value_norm", "output norm ‖ṽ·W_Oᵀ‖": "self/projected_energy"}


def view_of_head(run: Run, selection: Selection, cell: tuple[int, int]) -> HeadView:
    """One head's ratio, interval, role, lift and stability in the selection's part of the run."""
    part = (selection.sample, selection.branch, chosen_steps(selection))
    thresholds = (selection.tau_s, selection.tau_t)
    return _view(str(run.folder), stamp(run.folder), cell, part, thresholds, cells(run, "self/ratio", selection))


@kept(st.cache_resource, max_entries=64)
def _view(
    folder: str,
    when: tuple[int, ...],
    cell: tuple[int, int],
    part: Part,
    thresholds: tuple[float, float],
    _cells: Cells,
) -> HeadView:
    run, (tau_s, tau_t) = open_run(Path(folder)), thresholds
    return head_view(run, *cell, tau_s=tau_s, tau_t=tau_t, **_where(part), held=ratios(run), cells=_cells)


def head_over_timesteps(run: Run, selection: Selection, cell: tuple[int, int]) -> pd.DataFrame:
    """One head's ratio per branch and step in the selection's part of the run; shared, so nobody changes it."""
    part = (selection.sample, selection.branch, chosen_steps(selection))
    return _over_timesteps(str(run.folder), stamp(run.folder), cell, part)


@kept(st.cache_resource, max_entries=64)
def _over_timesteps(folder: str, when: tuple[int, ...], cell: tuple[int, int], part: Part) -> pd.DataFrame:
    run = open_run(Path(folder))
    return over_timesteps(run, *cell, **_where(part), held=ratios(run))


def _where(part: Part) -> dict[str, Any]:
    return dict(zip(("sample", "branch", "steps"), part, strict=True))


def norms(run: Run, selection: Selection) -> dict[str, Cells]:
    """The norms of heads that this run has, by their words."""
    return {words: cells(run, name, selection) for words, name in NORMS.items() if name in run.statistics}


@kept(st.cache_resource, max_entries=8)
def _scores(
    folder: str, when: tuple[int, ...], tables: tuple[tuple[str, int], ...], branch: str | None
) -> dict[str, Scores]:
    """Every scorer that needs this run alone and finds what it reads, tables beside the run, and the random control."""
    run = open_run(Path(folder))
    there = [name for name, scorer in RUN_SCORERS.items() if set(scorer.needs) <= set(run.statistics)]
    found = {name: run_scores(run, name, branch) for name in there}
    for table, _ in tables:
        try:
            given = read_scores(table, run.geometry)
        except InputError:
            continue
        if "self" in given.values:
            found[Path(table).stem] = given
    control = random_scores(run.geometry.blocks, run.geometry.heads, seed=0)
    # A student has fewer heads than the model that its run is laid out for.
    scored = [~np.isnan(each.score("self")) for each in found.values()]
    values = {
        kind: np.where(np.any(scored, axis=0), each, np.nan) if scored else each
        for kind, each in control.values.items()
    }
    return {**found, "random": replace(control, values=values)}


def ranks_of_head(run: Run, branch: str | None, cell: tuple[int, int], protected: np.ndarray | None) -> list[Rank]:
    """What every scorer that finds what it reads says of one head; `protected` [block, head] (Eq. 5) come after Eq. 3."""
    found = _ranks(str(run.folder), stamp(run.folder), _tables(run), branch, cell)
    if protected is None:
        return found
    own = ranks({"protected": Scores("protected", {"self": protected})}, *cell)
    after = 1 if found[:1] and found[0].scorer == "pare" else 0
    return [*found[:after], *own, *found[after:]]


@kept(st.cache_data, max_entries=64)
def _ranks(
    folder: str, when: tuple[int, ...], tables: tuple[tuple[str, int], ...], branch: str | None, cell: tuple[int, int]
) -> list[Rank]:
    return ranks(_scores(folder, when, tables, branch), *cell)


def measured_ranks(run: Run, places: Places, cell: tuple[int, int]) -> list[Rank]:
    """What scorers that run the model found for one head, from the answer to "which scores predict the effect"."""
    found = measured_scores(run, places)
    if found.answer is None or found.path is None or "heads" not in found.answer.tables:
        return []
    return _measured_ranks(str(found.path), cell, found.answer.tables["heads"])


# As long as the answer itself is held.
@kept(st.cache_data, ttl=LOOK_SECONDS * 5, max_entries=64)
def _measured_ranks(path: str, cell: tuple[int, int], _table: pd.DataFrame) -> list[Rank]:
    return ranks_in(_table[_table["kind"] == "self"], *cell)


def measured_words(run: Run, places: Places) -> str:
    """Where `measured_ranks` are from, in one sentence; nothing where there are none."""
    found = measured_scores(run, places)
    if found.answer is None or "heads" not in found.answer.tables:
        return ""
    count = found.answer.n.get("samples", 0)
    how = (
        "stored with the demo"
        if found.stored
        else "measured here" + (", on another run" if found.state != "here" else "")
    )
    return f"Those that run the model are Evidence's answer, {how}: n = {count} sample{'s' if count != 1 else ''} of its own."


def ranks_in(table: pd.DataFrame, block: int, head: int) -> list[Rank]:
    """Ranks of one head in a table with a row per head: `effect` with `low`, `high` and `n`, and a column per scorer."""
    columns = {name: table[name].to_numpy() for name in table.columns if name != "kind"}
    blocks, heads = columns["block"], columns["head"]
    size = (int(blocks.max()) + 1, int(heads.max()) + 1)
    own = np.flatnonzero((blocks == block) & (heads == head))
    found = []
    for name in ["effect", *(each for each in table.columns if each not in ABOUT_EFFECTS)]:
        values = np.full(size, np.nan)
        values[blocks, heads] = columns[name]
        places = rank_of(values, block, head) if block < size[0] and head < size[1] else None
        if places is None:
            continue
        ends = (float(columns["low"][own[0]]), float(columns["high"][own[0]])) if name == "effect" else (np.nan, np.nan)
        found.append(Rank(name, float(values[block, head]), *ends, int(columns["n"][own[0]]), *places))
    return found


def _tables(run: Run) -> tuple[tuple[str, int], ...]:
    folder = run.folder / SCORES_FOLDER
    if not folder.is_dir():
        return ()
    return tuple((str(path), path.stat().st_mtime_ns) for path in sorted(folder.iterdir()) if path.suffix in ENDINGS)


def table_of_metrics(run: Run, selection: Selection, names: tuple[str, ...]) -> pd.DataFrame:
    """These metrics of all heads in the selection's part of the run, those that it has."""
    known = tuple(name for name in names if name in known_metrics(run))
    part = (selection.sample, selection.branch, chosen_steps(selection))
    settings = (selection.tau_s, selection.tau_t, selection.alpha)
    return _table(str(run.folder), stamp(run.folder), known, part, settings)


@kept(st.cache_data, max_entries=32)
def _table(
    folder: str,
    when: tuple[int, ...],
    names: tuple[str, ...],
    part: Part,
    settings: tuple[float, float, float],
) -> pd.DataFrame:
    sample, branch, steps = part
    tau_s, tau_t, alpha = settings
    run = open_run(Path(folder))
    return metric_table(
        run, list(names), sample=sample, branch=branch, steps=steps, tau_s=tau_s, tau_t=tau_t, alpha=alpha
    )


def comparable(run: Run, places: Places, names: list[str]) -> list[str]:
    """Those of the named runs that the open one can be subtracted from, in their order."""
    return _comparable(places, str(run.folder), stamp(run.folder), tuple(names))


@kept(st.cache_data, ttl=LOOK_SECONDS * 5, max_entries=8)
def _comparable(places: Places, folder: str, when: tuple[int, ...], names: tuple[str, ...]) -> list[str]:
    run, found = open_run(Path(folder)), []
    for name in names:
        with suppress(InputError):
            match_runs(run, open_run(places.find(name)))
            found.append(name)
    return found


def difference(run: Run, other: Run, statistic: str, selection: Selection) -> RunDifference:
    """B − A of a statistic of heads, A being the open run, in the selection's part."""
    part = (selection.sample, selection.branch, chosen_steps(selection))
    return _difference(
        str(run.folder), stamp(run.folder), str(other.folder), stamp(other.folder), statistic, part
    )  # fmt: skip


@kept(st.cache_resource, max_entries=8)
def _difference(
    a: str,
    when_a: tuple[int, ...],
    b: str,
    when_b: tuple[int, ...],
    statistic: str,
    part: Part,
) -> RunDifference:
    sample, branch, steps = part
    return run_difference(
        open_run(Path(a)), open_run(Path(b)), statistic, sample=sample, branch=branch, steps=steps, read=_held
    )  # fmt: skip


def _held(run: Run, name: str, samples: Sequence[int]) -> np.ndarray:
    """What pages hold of a run's samples, else read."""
    known = run.finished
    if not set(samples) <= set(known) or not (name == "self/ratio" or name.startswith("block/")):
        return run.array(name, samples)
    held = ratios(run) if name == "self/ratio" else block_statistic(run, name)
    # Those of all samples are megabytes; no copy of them is needed.
    return held if tuple(samples) == known else held[[known.index(sample) for sample in samples]]


def clips(run: Run, places: Places, selection: Selection) -> Clips | None:
    """The videos of the run's model and of others for one prompt and seed, among the runs and evaluations in the places."""
    sample = selection.sample
    found = _clips(places, str(run.folder), stamp(run.folder), sample)
    # A file may go after it was found.
    return found if found is not None and all(path.is_file() for path in found.videos.values()) else None


@kept(st.cache_data, ttl=LOOK_SECONDS * 5, max_entries=16)
def _clips(places: Places, folder: str, when: tuple[int, ...], sample: int | None) -> Clips | None:
    sets: list[VideoSet] = []
    for name in [*run_names(places), *places.evaluations()]:
        try:
            sets.append(video_set(places.find(name)))
        except InputError:
            continue
    return clips_of(open_run(Path(folder)), sets, sample)
