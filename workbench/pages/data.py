"""What pages read from a run, cached by the run's folder and the time of its last change."""

from pathlib import Path

import numpy as np
import streamlit as st

from analysis.aggregate import Cells, head_by_sample, read_cells, relative_residual
from analysis.importance import run_importance
from analysis.runs import Run
from workbench.places import Places
from workbench.state import Facts, Selection

LOOK_SECONDS = 3


@st.cache_data(ttl=LOOK_SECONDS, max_entries=8, show_spinner=False)
def run_names(places: Places) -> list[str]:
    """Names of all runs in the places; a new one shows within LOOK_SECONDS, so that no click waits for the disk."""
    return places.runs()


@st.cache_data(ttl=LOOK_SECONDS, max_entries=8, show_spinner=False)
def pipeline_names(places: Places) -> list[str]:
    """Names of all diffusers pipelines in the places, as fresh as `run_names`."""
    return places.pipelines()


def open_run(folder: Path) -> Run:
    """The run in `folder`, read again when it has changed on disk. Raises `InputError` for an unreadable one."""
    return _open(str(folder), stamp(folder))


def stamp(folder: Path) -> tuple[int, ...]:
    """Changes whenever the capture behind a run writes something."""
    parts = [folder / name for name in ("run.json", "summary.safetensors", "samples")]
    return tuple(part.stat().st_mtime_ns for part in parts if part.exists())


@st.cache_resource(max_entries=8, show_spinner=False)
def _open(folder: str, _stamp: tuple[int, ...]) -> Run:
    return Run.open(folder)


def facts_of(run: Run | None, name: str | None) -> Facts:
    """The bounds that the open run sets for a selection."""
    if run is None:
        return Facts()
    geometry = run.geometry
    return Facts(name, geometry.blocks, geometry.heads, len(run.timesteps), len(run.manifest.samples), run.branches)


def chosen_steps(selection: Selection) -> list[int] | None:
    """Step indices of the selection's range; None = all."""
    if selection.first_step is None or selection.last_step is None:
        return None
    return list(range(selection.first_step, selection.last_step + 1))


def cells(run: Run, name: str, selection: Selection) -> Cells:
    """A statistic in the part of the run that the selection names."""
    return _cells(str(run.folder), stamp(run.folder), name, selection.sample, selection.branch, chosen_steps(selection))


@st.cache_data(max_entries=64, show_spinner=False)
def _cells(
    folder: str, when: tuple[int, ...], name: str, sample: int | None, branch: str | None, steps: list[int] | None
) -> Cells:
    return read_cells(_open(folder, when), name, sample=sample, branch=branch, steps=steps)


def head_values(run: Run, block: int, head: int, selection: Selection) -> np.ndarray:
    """One head's ratios [sample, step] in the part of the run that the selection names."""
    part = (selection.sample, selection.branch, chosen_steps(selection))
    return _head_values(str(run.folder), stamp(run.folder), block, head, *part)


@st.cache_data(max_entries=256, show_spinner=False)
def _head_values(
    folder: str,
    when: tuple[int, ...],
    block: int,
    head: int,
    sample: int | None,
    branch: str | None,
    steps: list[int] | None,
) -> np.ndarray:
    held = _ratios(folder, when)
    return head_by_sample(_open(folder, when), block, head, sample=sample, branch=branch, steps=steps, values=held)


@st.cache_resource(max_entries=2, show_spinner=False)
def _ratios(folder: str, when: tuple[int, ...]) -> np.ndarray:
    """Every sample's ratios, held so that pinning another head reads nothing: 13 MB for 200 samples of 10 × 40 × 40."""
    run = _open(folder, when)
    return run.array("self/ratio", run.finished)


def importance(run: Run, branch: str | None) -> np.ndarray | None:
    """Importance of every self-attention head over all samples and steps (Eq. 3) [block, head]; None: not captured."""
    if "self/value_norm" not in run.statistics:
        return None
    return _importance(str(run.folder), stamp(run.folder), branch)


@st.cache_data(max_entries=8, show_spinner=False)
def _importance(folder: str, when: tuple[int, ...], branch: str | None) -> np.ndarray:
    return run_importance(_open(folder, when), branch)["self"]


def default_run(names: list[str]) -> str | None:
    """The run to open when none is asked for: the first of a named folder, else the bundled one, else the first."""
    named = [name for name in names if name.split("/")[0] not in ("data", "workspace")]
    bundled = [name for name in names if name == "data/runs/demo"]
    return next(iter([*named, *bundled, *names]), None)


def block_residuals(run: Run, selection: Selection) -> tuple[np.ndarray, np.ndarray, int]:
    """How much each block changes its input [step, block], with timesteps and n, in the selection's part of the run."""
    part = (selection.sample, selection.branch, chosen_steps(selection))
    return _block_residuals(str(run.folder), stamp(run.folder), *part)


@st.cache_data(max_entries=16, show_spinner=False)
def _block_residuals(
    folder: str, when: tuple[int, ...], sample: int | None, branch: str | None, steps: list[int] | None
) -> tuple[np.ndarray, np.ndarray, int]:
    return relative_residual(_open(folder, when), sample=sample, branch=branch, steps=steps)
