"""From a run and a selection to everything that a report says."""

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlencode

import numpy as np
import pandas as pd

from analysis.findings import finding
from analysis.head_view import default_head
from analysis.importance import protected, run_importance, run_roles
from analysis.marks import head_marks
from analysis.runs import Run
from pare.errors import InputError
from workbench import recipes
from workbench.pages.text import capture_command
from workbench.report.cut import Cut
from workbench.report.origin import MOST_VIDEO_BYTES, carried, model_facts, setting_facts, version_facts
from workbench.report.part import Part, Report
from workbench.report.parts import blocks, cells_of, chosen, head, heads, routes
from workbench.state import Selection


def build_report(
    run: Run,
    selection: Selection,
    *,
    cut: Cut | None = None,
    first: Sequence[Part] = (),
    videos: Sequence[tuple[Path, str]] = (),
    headline: str | None = None,
    command: str | None = None,
    link: str | None = None,
    most_video_bytes: int = MOST_VIDEO_BYTES,
) -> Report:
    """Read what the selection names of a run: its finding, figures with their numbers, videos, settings and versions.

    `cut` adds a mask, `first` are parts that come before all others, `videos` (file, caption) come before the run's own,
    `headline` stands for the finding; `command` is the command line that makes this report (default: from the selection),
    `link` the address of the view. Videos beyond `most_video_bytes` in all are named, not carried. Raises InputError for a run
    without a finished sample and for a part that it does not have.
    """
    if not run.finished:
        raise InputError(
            str(run.folder), got="no finished sample", expected="at least one", fix="capture with --resume"
        )
    where = chosen(selection)
    parts: list[Part] = [*first]
    sentence = "This run has no ratios, so no roles."
    if "self/ratio" in run.statistics:
        cells, marks = cells_of(run, selection), head_marks(run, **where)
        ratio = cells.by_head()
        sentence = finding(
            ratio,
            cells.by_step(),
            cells.error_by_step(),
            tau_s=selection.tau_s,
            tau_t=selection.tau_t,
            samples=cells.samples,
            marked=marks.any,
        )
        parts += heads(run, selection, cells, marks, cut)
        cell = _cell(run, selection, ratio)
        parts += [] if cell is None else head(run, selection, cell, marks)
    parts += [*blocks(run, selection), *routes(run, selection), *([] if cut is None else [cut.part(run)])]
    given = {path.resolve() for path, _ in videos}
    own = [(path, caption) for path, caption in _videos(run, selection) if path.resolve() not in given]
    clips, left_out = carried([*videos, *own], most_video_bytes)
    return Report(
        title=f"{run.model_id} · {run.folder.resolve().name}",
        finding=headline or sentence,
        command=command or _command(run, selection, cut),
        link=link,
        query=urlencode(selection.changed(run=None).to_query()),
        about={
            "View": _view(run, selection),
            "Run": _run(run),
            "Model": _model(run),
            "Versions": version_facts(run.manifest.versions, "captured with"),
        },
        parts=parts,
        clips=clips,
        left_out=left_out,
        samples=_samples(run, selection),
    )


def _command(run: Run, selection: Selection, cut: Cut | None) -> str:
    return recipes.report_command(run, selection) if cut is None else cut.report_command(run, selection)


def _cell(run: Run, selection: Selection, ratio: np.ndarray) -> tuple[int, int] | None:
    """The pinned head, else the one that the Heads page shows before any is pinned."""
    if selection.block is not None and selection.head is not None:
        return selection.block, selection.head
    scores = None
    if "self/value_norm" in run.statistics:
        roles = run_roles(run, selection.tau_s, selection.tau_t, selection.branch)
        scores = protected(run_importance(run, selection.branch)["self"], roles, selection.alpha)
    return default_head(ratio, scores, selection.tau_t, selection.block)


def _view(run: Run, selection: Selection) -> list[tuple[str, str]]:
    whole = selection.first_step is None
    steps = f"all {len(run.timesteps)}" if whole else f"{selection.first_step} to {selection.last_step}"
    sample = f"all {len(run.finished)}" if selection.sample is None else str(selection.sample)
    pinned = selection.block is not None and selection.head is not None
    return [
        ("Samples", sample),
        ("Steps", steps),
        ("Branch", selection.branch or " and ".join(run.branches)),
        (
            "Head in detail",
            f"block {selection.block}, head {selection.head}"
            if pinned
            else "none pinned: the most important temporal one",
        ),
        ("Thresholds", f"τs = {selection.tau_s:g}, τt = {selection.tau_t:g}"),
        ("Protection", f"α = {selection.alpha:g}"),
    ]


def _run(run: Run) -> list[tuple[str, str]]:
    manifest = run.manifest
    clip = manifest.clip
    return [
        ("Name", run.folder.resolve().name),
        ("Hash", run.hash),
        ("Mode", manifest.mode),
        ("Samples", f"{len(run.finished)} of {len(manifest.samples)} finished"),
        ("Timesteps", ", ".join(f"{step:.0f}" for step in run.timesteps)),
        ("Clip", f"{clip.get('height')} × {clip.get('width')}, {clip.get('frames')} frames, {run.num_frames} latent"),
        ("Measured", ", ".join(run.statistics)),
        *setting_facts(manifest.settings),
        ("Captured again by", capture_command(run)),
    ]


def _model(run: Run) -> list[tuple[str, str]]:
    model, geometry = run.manifest.model, run.geometry
    return [
        *model_facts(model),
        ("Shape", f"{geometry.blocks} blocks of {geometry.heads} heads, {geometry.ffn} neurons each"),
        ("Attention", ", ".join(f"{name} {value}" for name, value in run.manifest.attention.items())),
    ]


def _samples(run: Run, selection: Selection) -> pd.DataFrame:
    rows = run.finished if selection.sample is None else (selection.sample,)
    listed = [(index, run.manifest.samples[index]) for index in rows]
    return pd.DataFrame([{"sample": index, "seed": one.seed, "prompt": one.prompt} for index, one in listed])


def _videos(run: Run, selection: Selection) -> list[tuple[Path, str]]:
    found = []
    for index, path in run.videos.items():
        if selection.sample is not None and index != selection.sample:
            continue
        one = run.manifest.samples[index]
        caption = f"Sample {index}, seed {one.seed}: {one.prompt}" if one.prompt else f"Sample {index}, seed {one.seed}"
        found.append((path, caption))
    return found
