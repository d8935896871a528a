"""The videos behind the premise: every prompt with nothing and with each set of heads off, scored as they are made."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.evidence.head_sets import HeadSet
from analysis.evidence.premise import DENSE
from analysis.metrics.moving_digits_factors import parse_caption
from analysis.metrics.video import Measured, measure, measure_pair, summary
from pare import mask as masks
from pare.files import write_bytes
from pare.geometry import Geometry
from pare.mask import Mask
from pare.progress import Progress, silent
from pare.video import read_video

VIDEOS, SCORES, MASKS = "videos", "scores", "masks"
ORACLE = ("digit", "colour", "direction", "speed")


def set_masks(sets: Sequence[HeadSet], geometry: Geometry, model: Mapping[str, Any], folder: Path) -> dict[str, Path]:
    """Write each set as a mask that keeps everything else, and return the files by the set's name."""
    shape = (geometry.blocks, geometry.heads)
    whole, neurons = np.ones(shape, bool), np.ones((geometry.blocks, geometry.ffn), bool)
    return {
        each.name: masks.save(
            Mask(each.keep(shape), whole, neurons, {"model": dict(model), "settings": {"scorer": each.kind}}),
            folder / MASKS / f"{each.name}.safetensors",
        )
        for each in sets
    }


@dataclass(frozen=True)
class Maker:
    """Makes video `number` of a set, unless it is there: prompt i with seed `seed` + i, the same for every set.

    `files` are masks by set, `generate` is `workbench.commands.generate.generate`, and `settings` go to it.
    """

    model: str
    prompts: Sequence[str]
    files: Mapping[str, Path]
    folder: Path
    generate: Callable[..., Any]
    seed: int
    settings: Mapping[str, Any]

    def video(self, name: str, number: int) -> Path:
        """Where the video is or will be."""
        return self.folder / VIDEOS / name / f"{number:05d}.mp4"

    def scores(self, name: str, number: int) -> Path:
        """Where its numbers are or will be."""
        return self.folder / SCORES / name / f"{number:05d}.json"

    def frames(self, name: str, number: int, progress: Progress) -> np.ndarray:
        """The video as written, uint8 [frames, height, width, 3]."""
        path = self.video(name, number)
        if not path.is_file():
            mask = {} if name == DENSE else {"mask": self.files[name]}
            seed = self.seed + number
            self.generate(
                self.model, prompt=self.prompts[number], out=path, seed=seed, progress=progress, **mask, **self.settings
            )
        return read_video(path)[0]


def make_videos(maker: Maker, *, keep_videos: bool = True, progress: Progress = silent) -> pd.DataFrame:
    """One row per video: its set, prompt, seed and numbers; the dense one and every set's, prompt by prompt.

    A video is scored as soon as it is written, into `scores/SET/00000.json`; what is scored is not made again, so a
    stopped command goes on. Without `keep_videos` a prompt's videos go once they are all scored.
    """
    names = [DENSE, *maker.files]
    captions = all(_is_caption(prompt) for prompt in maker.prompts)
    total, rows = len(maker.prompts) * len(names), []
    for number, prompt in enumerate(maker.prompts):
        before: tuple[np.ndarray, Measured] | None = None
        for at, name in enumerate(names):
            done, about = number * len(names) + at, f"prompt {number + 1} of {len(maker.prompts)}, {name}"
            path = maker.scores(name, number)
            if not path.is_file():
                step = _step(progress, done, total, about)
                if before is None:
                    whole = maker.frames(DENSE, number, step)
                    before = whole, measure(whole)
                frames = before[0] if name == DENSE else maker.frames(name, number, step)
                write_bytes(path, _line(_scores(name, frames, before, prompt, captions)))
            rows.append(
                {"set": name, "prompt": prompt, "seed": maker.seed + number, **json.loads(path.read_text("utf-8"))}
            )
            progress(done + 1, total, about)
        if not keep_videos:
            for name in names:
                maker.video(name, number).unlink(missing_ok=True)
    table = pd.DataFrame(rows)
    return table.astype({name: float for name in table.columns if name not in ("set", "prompt", "seed")})


def _step(progress: Progress, at: int, of: int, about: str) -> Progress:
    """A video's steps, reported as one unit of the whole."""

    def step(done: int, total: int, message: str = "") -> None:
        progress(at, of, f"{about}: {message}")

    return step


def _is_caption(prompt: str) -> bool:
    try:
        parse_caption(prompt)
    except ValueError:
        return False
    return True


def _scores(
    name: str, frames: np.ndarray, before: tuple[np.ndarray, Measured], prompt: str, oracle: bool
) -> dict[str, float | None]:
    """The numbers of one video; those of a pair with the dense video of the same prompt and seed."""
    from workbench.demo.evaluate import judge
    from workbench.demo.settings import DATA

    measured = before[1] if name == DENSE else measure(frames)
    found: dict[str, Any] = dict(measured.summary)
    if name != DENSE:
        found |= summary(measure_pair(before[0], frames, before[1], measured))
    if oracle:
        try:
            right = judge(frames, parse_caption(prompt), DATA)["score"]
        except ValueError:
            # No moving-digits video: another size or length than the oracle reads.
            right = {}
        found |= {each: None if right.get(each) is None else float(right[each]) for each in ORACLE}
    return {key: None if value is None or value != value else float(value) for key, value in found.items()}


def _line(values: Mapping[str, float | None]) -> bytes:
    return (json.dumps(values, allow_nan=False) + "\n").encode()
