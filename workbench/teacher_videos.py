"""What a teacher and its students make of one prompt and seed: videos for one transport, found among runs and evaluations."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.runs import Run
from workbench.video_sets import VideoSet

MOST = 4
"""Videos that one transport plays."""
SIZE = ("height", "width", "frames")


@dataclass(frozen=True)
class Clips:
    """Videos by label, the teacher's first, all of one prompt and seed."""

    prompt: str
    seed: int
    videos: Mapping[str, Path]


def clips_of(run: Run, sets: Sequence[VideoSet], sample: int | None = None) -> Clips | None:
    """The videos that the run's model and others made of one prompt and seed; None where its model has none.

    `sets` are runs and evaluations with videos. The model's own video, all blocks and heads at work, comes first; then
    those of other models or under a mask or a router, of the same size. The prompt and seed are those of `sample`
    where its video is there, else the one that most sets show.
    """
    own = [each for each in sets if _dense_of(each, run)]
    others = [(each, _paths(each)) for each in sets if not _dense_of(each, run) and _same_size(each, own)]
    shown: dict[tuple[str, int], Path] = {}
    for each in own:
        shown |= {key: path for key, path in _paths(each).items() if key not in shown}
    if not shown:
        return None
    asked = None if sample is None else run.manifest.samples[sample]
    wanted = None if asked is None else (asked.prompt, asked.seed)
    # A video of the teacher alone says less than one with students beside it.
    first = max(shown, key=lambda key: (key == wanted, sum(key in paths for _, paths in others)))
    videos: dict[str, Path] = {}
    beside = [(each, paths[first]) for each, paths in others if first in paths]
    for name, path in [(run.model_id, shown[first]), *((name_of(each), path) for each, path in beside)]:
        if path not in videos.values() and len(videos) < MOST:
            videos[name if name not in videos else f"{name} ({len(videos) + 1})"] = path
    return Clips(first[0], first[1], videos)


def name_of(each: VideoSet) -> str:
    """A short name for what made a set: its model, and its mask or router where it has one.

    >>> import pandas as pd
    >>> name_of(VideoSet(Path("a/half"), {"model_id": "demo"}, {}, {"router": "importance"}, pd.DataFrame(), ()))
    'demo · router importance'
    """
    how = [f"{kind} {Path(str(each.how[kind])).stem}" for kind in ("mask", "router") if each.how.get(kind)]
    name = Path(each.model_id).name if "/" in each.model_id else each.model_id
    return " · ".join([name, *how])


def _dense_of(each: VideoSet, run: Run) -> bool:
    same = all(each.model.get(name) == run.manifest.model.get(name) for name in ("config_hash", "weight_hash"))
    return same and not any(each.how.get(kind) for kind in ("mask", "router"))


def _same_size(each: VideoSet, own: Sequence[VideoSet]) -> bool:
    def size(settings: Mapping[str, Any]) -> list[Any]:
        return [settings.get(name) for name in SIZE]

    return any(size(each.settings) == size(one.settings) for one in own)


def _paths(each: VideoSet) -> dict[tuple[str, int], Path]:
    """(prompt, seed) → video; the first where a set shows one twice."""
    found: dict[tuple[str, int], Path] = {}
    rows = each.table.dropna(subset=["path"])
    for prompt, seed, path in zip(rows["prompt"], rows["seed"], rows["path"], strict=True):
        found.setdefault((str(prompt), int(seed)), Path(path))
    return found
