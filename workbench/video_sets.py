"""Sets of videos that can be compared: evaluations with their scores, runs with videos, and videos that lie about."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.runs import Run
from pare.errors import InputError
from pare.files import lies_inside
from workbench.pairs import find_videos

ABOUT, SCORES, VIDEOS = "evaluation.json", "scores.csv", "videos"
ORACLE = ("digit", "colour", "direction", "speed", "consistent", "consistency")
BETTER: Mapping[str, str] = {"warp_error": "lower", "flicker": "lower", **dict.fromkeys(ORACLE, "higher")}
"""Which end is better, for metrics of which one end is."""


@dataclass(frozen=True)
class VideoSet:
    """Videos with what made them: `table` has a row per video with prompt, seed, path (text) and its scores, if any.

    `metrics` are the scores' names with their group, title and unit; `settings` and `how` are what was asked for.
    """

    folder: Path
    model: Mapping[str, Any]
    settings: Mapping[str, Any]
    how: Mapping[str, Any]
    table: pd.DataFrame
    metrics: tuple[Mapping[str, Any], ...]

    @property
    def model_id(self) -> str:
        """The model's name as the set knows it."""
        return str(self.model.get("model_id", "unknown"))

    @property
    def scored(self) -> bool:
        """Whether every video's scores are on disk."""
        return bool(self.metrics)


def open_videos(folder: str | Path) -> VideoSet:
    """The videos of an evaluation, of a run, of a folder, or one alone; of the last two, those that say prompt and seed.

    Raises `InputError` where there is none, and for a damaged evaluation or run.
    """
    folder = Path(folder)
    if (folder / ABOUT).is_file():
        return _evaluation(folder)
    if not (folder / "run.json").is_file() and folder.exists():
        return _loose(folder)
    run = Run.open(folder)
    # Asked once: it looks for every sample's file.
    videos = run.videos
    rows = [
        {"prompt": sample.prompt, "seed": sample.seed, "path": str(videos[index])}
        for index, sample in enumerate(run.manifest.samples)
        if index in videos
    ]
    if not rows:
        raise InputError(
            str(folder), got="a run without videos", expected="one with", fix="capture with --mode trajectory"
        )
    return VideoSet(folder, run.manifest.model, run.manifest.settings, {}, pd.DataFrame(rows), ())


def _loose(place: Path) -> VideoSet:
    found = find_videos(place)
    known = [video for video in found if video.known and lies_inside(video.path, place)]
    if not known:
        raise InputError(
            str(place),
            got=f"{len(found)} videos that do not say their prompt and seed",
            expected="videos that pare made",
            fix="pare compare A B, which pairs others by their names",
        )
    rows = [{"prompt": video.prompt, "seed": video.seed, "path": str(video.path)} for video in known]
    model = {"model_id": known[0].model_id}
    return VideoSet(place, model, known[0].settings, known[0].how, pd.DataFrame(rows), ())


def _evaluation(folder: Path) -> VideoSet:
    try:
        about = json.loads((folder / ABOUT).read_text("utf-8"))
        request = about["request"]
        prompts, settings, model, how = (request[name] for name in ("prompts", "settings", "model", "how"))
        seed, listed = int(settings["seed"]), list(about.get("metrics") or ())
        metrics = [{name: str(row[name]) for name in ("metric", "group", "title", "unit")} for row in listed]
        known = isinstance(model, dict) and isinstance(how, dict) and all(isinstance(each, str) for each in prompts)
        if not known:
            raise ValueError("another layout")
        table = pd.DataFrame({"prompt": prompts, "seed": range(seed, seed + len(prompts))})
        if metrics and (folder / SCORES).is_file():
            scores = pd.read_csv(folder / SCORES, converters={"prompt": str})
            if scores["prompt"].tolist() != list(prompts) or scores["seed"].tolist() != table["seed"].tolist():
                raise ValueError(f"{SCORES} of other videos")
            table = scores
        else:
            metrics = []
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            str(folder / ABOUT), got=f"{type(error).__name__}: {error}", expected="an evaluation", fix="evaluate again"
        ) from error
    metrics += [
        {"metric": name, "group": "oracle", "title": name, "unit": "0..1" if name == "consistency" else "share right"}
        for name in ORACLE
        if metrics and name in table
    ]
    paths = [folder / VIDEOS / f"{number:05d}.mp4" for number in range(len(table))]
    there = [path.is_file() and lies_inside(path, folder) for path in paths]
    table = table.assign(path=[str(path) if known else None for path, known in zip(paths, there, strict=True)])
    return VideoSet(folder, model, settings, how, table, tuple(metrics))
