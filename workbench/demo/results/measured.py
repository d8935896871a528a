"""What was measured, as arrays over training seeds and prompts, and the differences to the teacher that the page shows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from analysis.metrics.moving_digits_factors import parse_caption
from analysis.paired import Difference, Mean
from analysis.paired_seeds import difference_over_seeds, mean_over_seeds
from pare.errors import InputError
from pare.geometry import read_json
from workbench.demo.results.rows import TEACHER, Row
from workbench.demo.results.store import expand

ORACLE = ("digit", "colour", "direction", "speed", "consistent")
ASKED = ORACLE[:4]
TO_TEACHER = ("flow_error", "psnr", "ssim")
SECONDS = "seconds.json"


@dataclass(frozen=True)
class Results:
    """Scores by the name of an evaluation, and the seconds of a video by row; rows that are not measured are absent."""

    scores: Mapping[str, Mapping[str, Any]]
    seconds: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> "Results":
        """What a folder of results holds so far. InputError where the teacher's scores are missing."""
        found = {path.stem: expand(read_json(path)) for path in sorted((folder / "scores").glob("*.json"))}
        if TEACHER not in found:
            raise InputError(
                "--out", got=f"{folder}, without the teacher's scores", expected="a folder with results",
                fix="python -m workbench.demo.results --out FOLDER",
            )  # fmt: skip
        path = folder / SECONDS
        return cls(found, read_json(path) if path.is_file() else {})

    @property
    def keys(self) -> list[tuple[str, int]]:
        """Prompt and seed of every video, in the teacher's order."""
        return [(each["prompt"], each["seed"]) for each in self.scores[TEACHER]["videos"]]

    def seeds(self, row: Row) -> list[int]:
        """The training seeds that are measured; [0] for the teacher, which has none."""
        return [seed for seed in range(max(row.seeds, 1)) if row.evaluation(seed) in self.scores]

    def of(self, row: Row, metric: str, seeds: Sequence[int] | None = None) -> np.ndarray:
        """A metric [seeds, prompts], NaN where a video has none; right as 1 and wrong as 0.

        Beside the metrics of the videos: `asked`, the mean of what the oracle was asked for (digit, colour, direction,
        speed), and `motion_gap`, |motion − the teacher's| of the same prompt and seed.
        """
        chosen = self.seeds(row) if seeds is None else seeds
        return np.array([self.named(row.evaluation(seed), metric) for seed in chosen], float).reshape(
            -1, len(self.keys)
        )

    def named(self, name: str, metric: str) -> np.ndarray:
        """A metric [prompts] of one evaluation, as `of` gives it."""
        if metric == "motion_gap":
            return np.abs(self.named(name, "flow_magnitude") - self.named(TEACHER, "flow_magnitude"))
        if metric == "asked":
            parts = np.stack([self.named(name, each) for each in ASKED])
            there = ~np.isnan(parts)
            count = there.sum(axis=0)
            return np.where(count > 0, np.nansum(parts, axis=0) / np.maximum(count, 1), np.nan)
        by_key = {(each["prompt"], each["seed"]): each["values"] for each in self.scores[name]["videos"]}
        values = [by_key.get(key, {}).get(metric) for key in self.keys]
        return np.array([np.nan if value is None else float(value) for value in values])

    def mean(self, row: Row, metric: str, where: np.ndarray | None = None) -> Mean:
        """Mean over prompts and trainings with its interval; `where` bool [prompts] chooses prompts."""
        values = self.of(row, metric)
        return mean_over_seeds(values if where is None else values[:, where])

    def to_teacher(self, row: Row, metric: str, where: np.ndarray | None = None) -> Difference:
        """The row less the teacher, of the same prompts and seeds."""
        teacher = Row(TEACHER, TEACHER, "teacher", seeds=0)
        a, b = self.of(teacher, metric), self.of(row, metric)
        return difference_over_seeds(*((a, b) if where is None else (a[:, where], b[:, where])))

    def between(self, first: Row, second: Row, metric: str) -> tuple[Difference, list[int]]:
        """The second row less the first, over the training seeds that both have, and these seeds."""
        seeds = [seed for seed in self.seeds(first) if seed in self.seeds(second)]
        found = difference_over_seeds(self.of(first, metric, seeds), self.of(second, metric, seeds))
        return found, seeds

    def training_spread(self, row: Row, metric: str) -> float:
        """Largest less smallest mean of a row's trainings: what another seed alone changes; NaN for one training."""
        means = [float(np.nanmean(values)) for values in self.of(row, metric)]
        return max(means) - min(means) if len(means) > 1 else float("nan")

    def speeds(self) -> dict[str, np.ndarray]:
        """Which prompts ask for which speed, bool [prompts]."""
        asked = [parse_caption(prompt).speed for prompt, _ in self.keys]
        return {speed: np.array([each == speed for each in asked]) for speed in dict.fromkeys(sorted(asked))}
