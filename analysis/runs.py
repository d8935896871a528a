"""Runs on disk: one capture is one folder of safetensors and JSON, written sample by sample and read lazily."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import pandas as pd

from analysis.manifest import BLOCK_AXES, HEAD_AXES, Manifest, Statistic
from analysis.run_files import read_arrays, run_identity, sample_path, samples_on_disk
from analysis.selection import Where, choose, choose_measured, measured_at, within
from analysis.summary import Moments
from pare.errors import InputError
from pare.files import lies_inside
from pare.geometry import Geometry


@dataclass(frozen=True)
class Run:
    """A run opened for reading; arrays are read from disk when asked for, the summary answers without the samples."""

    folder: Path
    manifest: Manifest
    identity: str

    @classmethod
    def open(cls, folder: str | Path) -> "Run":
        """Open a run's folder; reads `run.json` only. Raises InputError where that is missing or foreign."""
        path = Path(folder) / "run.json"
        if not path.is_file():
            raise InputError("RUN", got=folder, expected="a folder with a run.json", fix="pare capture MODEL --out RUN")
        content = path.read_bytes()
        return cls(Path(folder), Manifest.from_bytes(content, str(path)), run_identity(content))

    @staticmethod
    def merge(runs: Sequence["Run | str | Path"], out: str | Path) -> "Run":
        """Join runs of one model, measured alike on different samples; see `analysis.merge.merge_runs`."""
        # Writing a run needs this module.
        from analysis.merge import merge_runs

        return merge_runs(runs, out)

    @property
    def statistics(self) -> tuple[str, ...]:
        """Names of what was measured, for example `self/ratio`."""
        return tuple(self.manifest.statistics)

    @property
    def timesteps(self) -> np.ndarray:
        """Timestep t in 0..1000 of every step."""
        return np.array(self.manifest.timesteps)

    @property
    def sigmas(self) -> np.ndarray:
        """Sigma in 0..1 of every step."""
        return np.array(self.manifest.sigmas)

    @property
    def branches(self) -> tuple[str, ...]:
        """Guidance branches in the order of the branch axis."""
        return self.manifest.branches

    @property
    def num_frames(self) -> int:
        """Latent frames Fl."""
        return self.manifest.num_frames

    @property
    def uniform(self) -> float:
        """The ratio of a head that looks at all tokens alike: 1 / Fl."""
        return 1 / self.num_frames

    @property
    def uniform_entropy(self) -> float:
        """The entropy of a head that looks at all tokens alike, in nats: log(tokens)."""
        return math.log(self.num_frames * self.manifest.tokens_per_frame)

    @property
    def geometry(self) -> Geometry:
        """Shapes of the model that was measured."""
        return Geometry.from_dict(self.manifest.geometry)

    @property
    def model_id(self) -> str:
        """The model's name as the run knows it."""
        return str(self.manifest.model.get("model_id", "unknown"))

    @property
    def finished(self) -> tuple[int, ...]:
        """Indices of the samples that are on disk."""
        return samples_on_disk(self.folder, len(self.manifest.samples))

    def measured(self, name: str) -> tuple[int, ...]:
        """Indices of the samples on disk that have this statistic."""
        only = self._statistic(name).samples
        return tuple(index for index in self.finished if only is None or index in only)

    @property
    def complete(self) -> bool:
        """Whether the capture came to its end."""
        return (self.folder / "summary.safetensors").is_file()

    @property
    def videos(self) -> dict[int, Path]:
        """Path of the video of every sample that has one on disk; none that leaves the run's folder, whoever wrote it."""
        named = {i: s.video for i, s in enumerate(self.manifest.samples) if s.video and "\0" not in s.video}
        paths = {i: self.folder / video for i, video in named.items()}
        return {i: path for i, path in paths.items() if path.is_file() and lies_inside(path, self.folder)}

    @cached_property
    def hash(self) -> str:
        """What a mask calls this run: SHA-256 over `run.json` and, when complete, the summary (16 hex digits)."""
        digest = hashlib.sha256(self.identity.encode())
        if self.complete:
            digest.update((self.folder / "summary.safetensors").read_bytes())
        return digest.hexdigest()[:16]

    def axes(self, name: str) -> tuple[str, ...]:
        """Axis names of `array(name)`, the first being `sample`."""
        return ("sample", *self._statistic(name).axes)

    def array(self, name: str, samples: Sequence[int] | None = None, **where: Unpack[Where]) -> np.ndarray:
        """Values float32 [sample, *axes] of one statistic; NaN where a chosen sample is not on disk (yet).

        `samples` are indices, all planned ones unless given. `branch`, `steps` (indices), `t_min` and `t_max` choose
        a part; every axis stays, also for one branch, and `coordinates` names what is along it.
        """
        statistic = self._statistic(name)
        chosen = range(len(self.manifest.samples)) if samples is None else self._chosen(samples)
        own_steps, own_branches = measured_at(self.manifest, statistic)
        steps, branches = choose_measured(self.manifest, name, where)
        part = np.ix_([own_steps.index(step) for step in steps], [own_branches.index(each) for each in branches])
        values = np.full((len(chosen), len(steps), len(branches), *statistic.shape[2:]), np.nan, np.float32)
        for row, index in enumerate(chosen):
            path = sample_path(self.folder, index)
            if (statistic.samples is None or index in statistic.samples) and path.is_file():
                stored = read_arrays(path, [name], self.identity).get(name)
                if stored is not None:
                    values[row] = stored[part]
        return values

    def sample(self, index: int, names: Sequence[str], cell: tuple[int, int] | None = None) -> dict[str, np.ndarray]:
        """Values float32 [*axes] of these statistics in one sample, read at once; those that it lacks are left out.

        With `cell`, a (block, head), of that head alone, its axes being 1 long.
        """
        (index,) = self._chosen([index])
        path = sample_path(self.folder, index)
        only = {name: self._statistic(name).samples for name in names}
        wanted = [name for name, samples in only.items() if samples is None or index in samples]
        stored = read_arrays(path, wanted, self.identity, _of_head(cell)) if wanted and path.is_file() else {}
        return {name: values.astype(np.float32, copy=False) for name, values in stored.items()}

    def coordinates(
        self, name: str, samples: Sequence[int] | None = None, **where: Unpack[Where]
    ) -> dict[str, np.ndarray]:
        """What is along every axis of `array` with the same arguments, and `timestep` beside `step`."""
        statistic = self._statistic(name)
        steps, branches = choose_measured(self.manifest, name, where)
        chosen = range(len(self.manifest.samples)) if samples is None else self._chosen(samples)
        along = {"sample": np.array(chosen, int), "step": np.array(steps, int), "branch": np.array(branches)}
        along |= {axis: np.arange(length) for axis, length in zip(statistic.axes[2:], statistic.shape[2:], strict=True)}
        return along | {"timestep": self.timesteps[along["step"]]}

    def summary(self, name: str, cell: tuple[int, int] | None = None) -> dict[str, np.ndarray]:
        """`n`, `mean` and `std` (spread, n − 1 in the denominator, NaN below two samples) over the samples, [*axes].

        With `cell`, a (block, head), of that head alone, its axes being 1 long.
        Read from `summary.safetensors` where the capture is complete and it is there (maps of few samples are not), else
        computed from the samples there are.
        """
        statistic = self._statistic(name)
        if self.complete:
            keys = {f"{name}/{part}": part for part in ("n", "mean", "std")}
            stored = read_arrays(self.folder / "summary.safetensors", list(keys), self.identity, _of_head(cell))
            if len(stored) == len(keys):
                return {part: stored[key] for key, part in keys.items()}
        moments = Moments(statistic.shape if cell is None else (*statistic.shape[:2], 1, 1, *statistic.shape[4:]))
        for index in self.measured(name):
            path = sample_path(self.folder, index)
            moments.add(read_arrays(path, [name], self.identity, _of_head(cell)).get(name))
        return moments.result()

    def moment(self, name: str) -> dict[str, np.ndarray]:
        """`n` [block] samples and their `mean` [block, …] of one of `manifest.moments`; NaN where a block never ran.

        While a capture is at work, of the samples up to the first that is missing.
        """
        if name not in self.manifest.moments:
            known = ", ".join(self.manifest.moments) or "none, since the run has no moments"
            raise InputError("moment", got=name, expected=known, fix="capture it first")
        path = self.folder / "moments.safetensors"
        stored = read_arrays(path, [f"{name}/n", f"{name}/mean"], self.identity) if path.is_file() else {}
        if not stored:
            raise InputError(str(path), got="no moments yet", expected="a finished sample", fix="let the capture go on")
        return {part: stored[f"{name}/{part}"] for part in ("n", "mean")}

    def output_weight_norm(self, kind: str = "self") -> np.ndarray:
        """‖W_O^{i,j}‖_F [block, head] of every head's slice of the output projection, `kind` self or cross."""
        name = f"{kind}/output_weight_norm"
        path = self.folder / "weights.safetensors"
        stored = read_arrays(path, [name], self.identity) if path.is_file() else {}
        if name not in stored:
            raise InputError(str(path), got=f"no {name}", expected="the output norms of the heads", fix="capture again")
        return stored[name]

    def heads(self, samples: Sequence[int] | None = None, **where: Unpack[Where]) -> pd.DataFrame:
        """One row per sample, step, branch, block and head; `self/ratio` is column `ratio`, `cross/x` is `cross_x`.

        `samples`, `branch`, `steps`, `t_min` and `t_max` choose rows, as for `array`; samples on disk only.
        """
        return self._tidy(HEAD_AXES, samples, where)

    def blocks(self, samples: Sequence[int] | None = None, **where: Unpack[Where]) -> pd.DataFrame:
        """One row per sample, step, branch and block; `block/residual_norm` is column `residual_norm`.

        `samples`, `branch`, `steps`, `t_min` and `t_max` choose rows, as for `array`; samples on disk only.
        """
        return self._tidy(BLOCK_AXES, samples, where)

    def routes(self, samples: Sequence[int] | None = None, **where: Unpack[Where]) -> pd.DataFrame:
        """One row per sample, step and block: what a router decided; see `analysis.routes.read_routes`."""
        # Reading decisions needs this module.
        from analysis.routes import read_routes

        return read_routes(self, samples, **where)

    def branch_index(self, branch: str) -> int:
        """Position of a branch on its axis. Raises InputError for a branch that was not measured."""
        choose(self.manifest, {"branch": branch})
        return self.branches.index(branch)

    def _statistic(self, name: str) -> Statistic:
        if name not in self.manifest.statistics:
            raise InputError(
                "statistic", got=name, expected=f"one of {', '.join(self.statistics)}", fix="capture it first"
            )
        return self.manifest.statistics[name]

    def _chosen(self, samples: Sequence[int]) -> list[int]:
        return within("sample", samples, len(self.manifest.samples))

    def _tidy(self, axes: tuple[str, ...], samples: Sequence[int] | None, where: Where) -> pd.DataFrame:
        on_disk = self.finished
        chosen = list(on_disk) if samples is None else [i for i in self._chosen(samples) if i in on_disk]
        step_list, branch_list = choose(self.manifest, where)
        lengths = {"block": self.manifest.geometry["blocks"], "head": self.manifest.geometry["heads"]}
        labels = {
            "sample": np.array(chosen, int),
            "step": np.array(step_list, int),
            "branch": np.arange(len(branch_list)),
            **{axis: np.arange(lengths[axis]) for axis in axes[2:]},
        }
        shape = tuple(len(values) for values in labels.values())
        columns: dict[str, Any] = {}
        for position, (axis, values) in enumerate(labels.items()):
            along = values.reshape([-1 if i == position else 1 for i in range(len(shape))])
            columns[axis] = np.broadcast_to(along, shape).ravel()
            if axis == "step":
                columns["timestep"] = self.timesteps[columns["step"]]
                columns["sigma"] = self.sigmas[columns["step"]]
        columns["branch"] = pd.Categorical.from_codes(columns["branch"], categories=branch_list)
        for name, statistic in self.manifest.statistics.items():
            if statistic.axes == axes:
                columns[_column(name)] = self._aligned(name, chosen, step_list, branch_list).ravel()
        return pd.DataFrame(columns)

    def _aligned(self, name: str, samples: list[int], steps: list[int], branches: list[str]) -> np.ndarray:
        stored = self.array(name, samples)
        own_steps, own_branches = measured_at(self.manifest, self._statistic(name))
        if own_steps == steps and own_branches == branches:
            return stored
        values = np.full((len(samples), len(steps), len(branches), *stored.shape[3:]), np.nan, np.float32)
        for row, step in enumerate(steps):
            for column, branch in enumerate(branches):
                if step in own_steps and branch in own_branches:
                    values[:, row, column] = stored[:, own_steps.index(step), own_branches.index(branch)]
        return values


def _column(name: str) -> str:
    kind, _, statistic = name.partition("/")
    return f"cross_{statistic}" if kind == "cross" else statistic


def _of_head(cell: tuple[int, int] | None) -> tuple[slice, ...] | None:
    """The part of an array [step, branch, block, head, …] that is of one head; None: all of it."""
    if cell is None:
        return None
    return (slice(None), slice(None), *(slice(index, index + 1) for index in cell))
