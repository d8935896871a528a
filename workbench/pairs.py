"""Which videos of two places belong together: by the prompt and seed written inside them, or by name."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pare.errors import InputError
from pare.video import read_metadata
from workbench.places import VIDEOS

By: TypeAlias = Literal["prompt and seed", "file name", "order"]


@dataclass(frozen=True)
class StoredVideo:
    """A video file and what it says of itself; None where it does not say. `how`: its mask and its router, where it has one."""

    path: Path
    prompt: str | None = None
    seed: int | None = None
    model_id: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    how: Mapping[str, Any] = field(default_factory=dict)

    @property
    def known(self) -> bool:
        """Whether prompt and seed are both known."""
        return self.prompt is not None and self.seed is not None


@dataclass(frozen=True)
class Pair:
    """Two videos, and what brought them together."""

    a: StoredVideo
    b: StoredVideo
    by: By

    @property
    def paired(self) -> bool:
        """Whether both are known to show the same prompt from the same seed."""
        return self.by == "prompt and seed"

    @property
    def comparable(self) -> bool:
        """Whether pixels may be compared: not where prompt or seed are known to differ."""
        return self.paired or not (self.a.known and self.b.known)

    @property
    def group(self) -> str:
        """What counts as one prompt."""
        return self.a.prompt or self.b.prompt or self.a.path.stem


@dataclass(frozen=True)
class Pairs:
    """The pairs of two places, and the videos that have no partner."""

    pairs: list[Pair]
    only_a: list[StoredVideo]
    only_b: list[StoredVideo]


def find_videos(place: str | Path) -> list[StoredVideo]:
    """The videos of a file, of a folder, or of a run or evaluation (their folder `videos`), by name.

    Raises `InputError` where there is none.
    """
    place = Path(place).expanduser()
    inside = place / "videos"
    folder = inside if inside.is_dir() and not _files(place) else place
    files = [place] if place.is_file() else _files(folder)
    if not files:
        raise InputError(
            str(place),
            got="no video",
            expected="a video, a folder of videos, or a run with videos (capture --mode trajectory)",
            fix="check the path, or make videos with pare generate or pare evaluate",
        )
    return [_described(path) for path in files]


def pair_videos(a: Iterable[StoredVideo], b: Iterable[StoredVideo]) -> Pairs:
    """Pairs by prompt and seed; then, of videos that do not say both, by file name; two lone videos in any case.

    Raises `InputError` when one place has two videos of one prompt and seed, and when no two belong together.
    """
    left, right = list(a), list(b)
    pairs: list[Pair] = []
    keys = _by_key(right)
    for key, video in _by_key(left).items():
        if key in keys:
            pairs.append(Pair(video, keys[key], "prompt and seed"))
    left, right = _without(left, [pair.a for pair in pairs]), _without(right, [pair.b for pair in pairs])
    names = {video.path.stem: video for video in right}
    for video in left:
        other = names.get(video.path.stem)
        if other is not None and not (video.known and other.known):
            pairs.append(Pair(video, other, "file name"))
    left, right = _without(left, [pair.a for pair in pairs]), _without(right, [pair.b for pair in pairs])
    if not pairs and len(left) == len(right) == 1:
        return Pairs([Pair(left[0], right[0], "order")], [], [])
    if not pairs:
        raise InputError(
            "A and B",
            got=f"{len(left)} and {len(right)} videos of which no two have the same prompt and seed, or name",
            expected="videos of the same prompts and seeds",
            fix="make both with the same --prompts and --seed",
        )
    return Pairs(pairs, left, right)


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in VIDEOS and not path.name.startswith("."))


def _described(path: Path) -> StoredVideo:
    about = read_metadata(path)
    settings = about.get("settings")
    settings = settings if isinstance(settings, dict) else {}
    prompt, seed, model = about.get("prompt"), about.get("seed", settings.get("seed")), about.get("model")
    return StoredVideo(
        path=path,
        prompt=prompt if isinstance(prompt, str) else None,
        seed=seed if isinstance(seed, int) else None,
        model_id=str(model.get("model_id")) if isinstance(model, dict) else None,
        settings=settings,
        how=_how(about),
    )


def _how(about: Mapping[str, Any]) -> dict[str, Any]:
    """The words of `pare generate` for the mask and the router that a video names.

    >>> _how({"routing": {"router": "importance", "budget": {"k_min": 4.0, "k_max": 4.0}}})
    {'router': 'importance', 'k_min': 4.0, 'k_max': 4.0}
    """
    mask, routing = about.get("mask"), about.get("routing")
    found = {"mask": mask.get("name")} if isinstance(mask, dict) else {}
    if isinstance(routing, dict):
        budget = routing.get("budget")
        found |= {"router": routing.get("router"), **(budget if isinstance(budget, dict) else {})}
    return {name: value for name, value in found.items() if isinstance(value, str | int | float)}


def _by_key(videos: Iterable[StoredVideo]) -> dict[tuple[str | None, int | None], StoredVideo]:
    found: dict[tuple[str | None, int | None], StoredVideo] = {}
    for video in videos:
        key = (video.prompt, video.seed)
        if not video.known:
            continue
        if key in found:
            raise InputError(
                str(video.path.parent),
                got=f"{found[key].path.name} and {video.path.name} of one prompt and seed",
                expected="one video of each",
                fix="move one of them elsewhere",
            )
        found[key] = video
    return found


def _without(videos: list[StoredVideo], taken: list[StoredVideo]) -> list[StoredVideo]:
    gone = {video.path for video in taken}
    return [video for video in videos if video.path not in gone]
