"""What pages read from a run, cached by the run's folder and the time of its last change."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from analysis.aggregate import Cells, chosen_axes, head_frame_map, read_cells
from analysis.block_values import LENSES, BlockSums, BlockValues, block_sums, block_values, ratio_by_block
from analysis.importance import mean_ratio, run_importance
from analysis.manifest import BLOCK_AXES
from analysis.marks import HeadMarks, head_marks
from analysis.runs import Run
from workbench.pages.kept import kept
from workbench.places import Places
from workbench.state import Facts, Selection

LOOK_SECONDS = 3


@kept(st.cache_data, ttl=LOOK_SECONDS, max_entries=8)
def run_names(places: Places) -> list[str]:
    """Names of all runs in the places; a new one shows within LOOK_SECONDS, so that no click waits for the disk."""
    return places.runs()


@kept(st.cache_data, ttl=LOOK_SECONDS, max_entries=8)
def pipeline_names(places: Places) -> list[str]:
    """Names of all diffusers pipelines in the places, as fresh as `run_names`."""
    return places.pipelines()


def open_run(folder: Path) -> Run:
    """The run in `folder`, read again when it has changed on disk. Raises `InputError` for an unreadable one."""
    return _open(str(folder), stamp(folder))


def stamp(folder: Path) -> tuple[int, ...]:
    """Changes whenever the capture behind a run writes something."""
    found = []
    for name in ("run.json", "summary.safetensors", "samples"):
        # Asked on every run of a page, many times: one question to the disk per file, not two.
        with suppress(FileNotFoundError):
            found.append((folder / name).stat().st_mtime_ns)
    return tuple(found)


@kept(st.cache_resource, max_entries=8)
def _open(folder: str, when: tuple[int, ...]) -> Run:  # an argument named _when would not count for the cache
    return Run.open(folder)


def facts_of(run: Run | None, name: str | None, places: Places | None = None) -> Facts:
    """The bounds that the open run and what lies in the places set for a selection."""
    known: dict[str, Any] = {} if places is None else {"runs": tuple(run_names(places)), "files": places}
    if run is None:
        return Facts(**known)
    geometry, samples = run.geometry, len(run.manifest.samples)
    return Facts(name, geometry.blocks, geometry.heads, len(run.timesteps), samples, run.branches, **known)


def chosen_steps(selection: Selection) -> list[int] | None:
    """Step indices of the selection's range; None = all."""
    if selection.first_step is None or selection.last_step is None:
        return None
    return list(range(selection.first_step, selection.last_step + 1))


def cells(run: Run, name: str, selection: Selection) -> Cells:
    """A statistic in the part of the run that the selection names."""
    return _cells(str(run.folder), stamp(run.folder), name, selection.sample, selection.branch, chosen_steps(selection))


# Shared, since a copy at every change would also lose the means that it has worked out.
@kept(st.cache_resource, max_entries=64)
def _cells(
    folder: str, when: tuple[int, ...], name: str, sample: int | None, branch: str | None, steps: list[int] | None
) -> Cells:
    return read_cells(_open(folder, when), name, sample=sample, branch=branch, steps=steps)


@kept(st.cache_resource, max_entries=2)
def _ratios(folder: str, when: tuple[int, ...]) -> np.ndarray:
    """Every sample's ratios, held so that pinning another head reads nothing: 13 MB for 200 samples of 10 × 40 × 40."""
    run = _open(folder, when)
    return run.array("self/ratio", run.finished)


def ratios(run: Run) -> np.ndarray:
    """The ratios of all finished samples [sample, step, branch, block, head], held between reruns."""
    return _ratios(str(run.folder), stamp(run.folder))


def captured_heads(run: Run) -> int | None:
    """How many self-attention heads a finished capture has ratios of: fewer than the shapes say where some were removed, or
    their block never ran; None for a capture in work.
    """
    return _captured_heads(str(run.folder), stamp(run.folder)) if run.complete else None


@kept(st.cache_data, max_entries=64)
def _captured_heads(folder: str, when: tuple[int, ...]) -> int:
    return int((_open(folder, when).summary("self/ratio")["n"] > 0).any(axis=(0, 1)).sum())


def ratio_of_blocks(run: Run, selection: Selection) -> pd.DataFrame:
    """Mean ratio of every block's heads with interval and n, in the selection's part of the run."""
    part = (selection.sample, selection.branch, chosen_steps(selection))
    return _ratio_of_blocks(str(run.folder), stamp(run.folder), *part)


@kept(st.cache_data, max_entries=32)
def _ratio_of_blocks(
    folder: str, when: tuple[int, ...], sample: int | None, branch: str | None, steps: list[int] | None
) -> pd.DataFrame:
    run, held = _open(folder, when), _block_sums(folder, when)
    step_axis, branch_axis = chosen_axes(run, "self/ratio", branch, steps)
    rows = [row for row, index in enumerate(run.finished) if sample is None or index == sample]
    return ratio_by_block(held.part(rows, step_axis, branch_axis))


# The ratios of all heads are 64 MB for 100 samples of 50 × 2 × 40 × 40; going through them takes longer than the page.
@kept(st.cache_resource, max_entries=4)
def _block_sums(folder: str, when: tuple[int, ...]) -> BlockSums:
    return block_sums(_ratios(folder, when))


def importance(run: Run, branch: str | None) -> np.ndarray | None:
    """Importance of every self-attention head over all samples and steps (Eq. 3) [block, head]; None: not captured."""
    if "self/value_norm" not in run.statistics:
        return None
    return _importance(str(run.folder), stamp(run.folder), branch)


@kept(st.cache_data, max_entries=8)
def _importance(folder: str, when: tuple[int, ...], branch: str | None) -> np.ndarray:
    return run_importance(_open(folder, when), branch)["self"]


@kept(st.cache_data, max_entries=8)
def _mean_ratio(folder: str, when: tuple[int, ...], branch: str | None) -> np.ndarray:
    return mean_ratio(_open(folder, when), branch)


def ratio_of_mask(run: Run, branch: str | None) -> np.ndarray:
    """The ratio over all samples and steps that a mask's roles go by [block, head]."""
    return _mean_ratio(str(run.folder), stamp(run.folder), branch)


def default_run(names: list[str]) -> str | None:
    """The run to open when none is asked for: the first of a named folder, else the bundled one, else the first."""
    named = [name for name in names if name.split("/")[0] not in ("data", "workspace")]
    bundled = [name for name in names if name == "data/runs/demo"]
    return next(iter([*named, *bundled, *names]), None)


def blocks(run: Run, lens: str, selection: Selection) -> BlockValues | None:
    """How much each block, or a part of it, changes its input, in the selection's part; None: not captured."""
    if not set(LENSES[lens].needs) <= set(run.statistics):
        return None
    part = (selection.sample, selection.branch, chosen_steps(selection))
    return _blocks(str(run.folder), stamp(run.folder), lens, *part)


def block_over_timesteps(run: Run, lens: str, selection: Selection, block: int) -> pd.DataFrame | None:
    """One block through one lens: mean per step with interval and n, in the selection's part; None: not captured."""
    if not set(LENSES[lens].needs) <= set(run.statistics):
        return None
    part = (selection.sample, selection.branch, chosen_steps(selection))
    return _block_over_timesteps(str(run.folder), stamp(run.folder), lens, block, *part)


@kept(st.cache_data, max_entries=256)
def _block_over_timesteps(
    folder: str,
    when: tuple[int, ...],
    lens: str,
    block: int,
    sample: int | None,
    branch: str | None,
    steps: list[int] | None,
) -> pd.DataFrame:
    return _blocks(folder, when, lens, sample, branch, steps).of_block(block)


@kept(st.cache_resource, max_entries=32)
def _blocks(
    folder: str, when: tuple[int, ...], lens: str, sample: int | None, branch: str | None, steps: list[int] | None
) -> BlockValues:
    run = _open(folder, when)
    held = {name: block_statistic(run, name) for name in LENSES[lens].needs}
    return block_values(run, lens, sample=sample, branch=branch, steps=steps, held=held)


def block_statistic(run: Run, name: str) -> np.ndarray:
    """A statistic of blocks of all finished samples [sample, step, branch, block], held between reruns."""
    return _block_statistics(str(run.folder), stamp(run.folder))[name]


# A file per sample: opening them is what takes long, and one number per block, branch and step is little to hold.
@kept(st.cache_resource, max_entries=4)
def _block_statistics(folder: str, when: tuple[int, ...]) -> dict[str, np.ndarray]:
    run = _open(folder, when)
    own = {name: each for name, each in run.manifest.statistics.items() if each.axes == BLOCK_AXES}
    held = {name: np.full((len(run.finished), *each.shape), np.nan, np.float32) for name, each in own.items()}
    for row, index in enumerate(run.finished):
        for name, values in run.sample(index, list(own)).items():
            held[name][row] = values
    return held


def marks(run: Run, selection: Selection) -> HeadMarks:
    """Uniform heads and first-frame sinks in the selection's part of the run."""
    part = (selection.sample, selection.branch, chosen_steps(selection))
    return _marks(str(run.folder), stamp(run.folder), *part)


@kept(st.cache_data, max_entries=16)
def _marks(
    folder: str, when: tuple[int, ...], sample: int | None, branch: str | None, steps: list[int] | None
) -> HeadMarks:
    return head_marks(_open(folder, when), sample=sample, branch=branch, steps=steps)


def frame_map(run: Run, selection: Selection, cell: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, int] | None:
    """A head's frame map with its timesteps and n, in the selection's part of the run; None: none there."""
    part = (selection.sample, selection.branch, chosen_steps(selection))
    return _frame_map(str(run.folder), stamp(run.folder), cell, *part)


@kept(st.cache_resource, max_entries=64)
def _frame_map(
    folder: str,
    when: tuple[int, ...],
    cell: tuple[int, int],
    sample: int | None,
    branch: str | None,
    steps: list[int] | None,
) -> tuple[np.ndarray, np.ndarray, int] | None:
    return head_frame_map(_open(folder, when), *cell, sample=sample, branch=branch, steps=steps)
