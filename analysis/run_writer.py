"""Write a run: its manifest first, then sample after sample, the summary at the end."""

import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from analysis.manifest import Manifest, Statistic
from analysis.moments import MeanOfSamples
from analysis.run_files import moments_path, read_arrays, run_identity, sample_path
from analysis.runs import Run
from analysis.summary import Moments, summarised
from pare.errors import InputError
from pare.files import write_bytes


class RunWriter:
    """Writes a run: `run.json` and weights at once, then one file per sample, the summary at the end.

    With `resume` it continues a run of the same manifest and leaves finished samples alone, so that the folder ends
    with the same bytes as an uninterrupted one (but for `log.jsonl`). Of several processes that write one run, one
    leads: the others (`lead=False`) add samples to what it has begun. Raises InputError where the folder holds
    something else.
    """

    def __init__(
        self,
        folder: str | Path,
        manifest: Manifest,
        weights: Mapping[str, np.ndarray],
        *,
        resume: bool = False,
        lead: bool = True,
    ):
        self.folder, self.manifest, self.lead = Path(folder), manifest, lead
        self._identity = run_identity(manifest.to_bytes())
        self._moments = manifest.moments
        if not lead:
            return
        check_target(self.folder, resume=resume)
        present = self.folder / "run.json"
        if present.is_file():
            _same_manifest(manifest, Manifest.from_bytes(present.read_bytes(), str(present)), self.folder)
        for leftover in [*self.folder.glob(".*.partial*"), *self.folder.glob("*/.*.partial*")]:
            leftover.unlink()
        self._save("weights.safetensors", {name: np.asarray(value, np.float32) for name, value in weights.items()})
        write_bytes(present, manifest.to_bytes())

    def pending(self) -> list[int]:
        """Indices of the samples that are still to do."""
        return [i for i in range(len(self.manifest.samples)) if not sample_path(self.folder, i).is_file()]

    def write_sample(
        self, index: int, arrays: Mapping[str, np.ndarray], moments: Mapping[str, np.ndarray] | None = None
    ) -> None:
        """Write one finished sample: every statistic that the manifest lists for it with its shape, nothing else.

        `moments` are this sample's means, every one that `manifest.moments` lists, first axis block; a block that did
        not run is NaN.
        """
        typed = _checked(f"sample {index}", arrays, self.manifest.measured(index))
        if means := _checked(f"moments of sample {index}", moments or {}, self._moments):
            # Before the sample, whose file says that all of it is there.
            self._save(str(moments_path(Path(), index)), means)
        self._save(str(sample_path(Path(), index)), typed)
        if self.lead:
            self._fold_moments()

    def adopt_moments(self, means: MeanOfSamples) -> None:
        """Write moments over all samples of the run, made elsewhere; samples are then written without their own."""
        self._save("moments.safetensors", means.arrays())
        self._moments = {}

    def log(self, event: str, **fields: Any) -> None:
        """Append one line to `log.jsonl`: times and hosts, the one file outside byte comparisons."""
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(json.dumps({"time": round(time.time(), 3), "event": event, **fields}) + "\n")

    def finish(self) -> Run:
        """Write the summary over all samples, in the order of their indices, and open the run."""
        run = Run.open(self.folder)
        if self.pending():
            raise ValueError(f"samples {self.pending()} are not written")
        self._fold_moments()
        summary: dict[str, np.ndarray] = {}
        samples = len(self.manifest.samples)
        described = {name: each for name, each in self.manifest.statistics.items() if summarised(each, samples)}
        spreads = {name: Moments(statistic.shape) for name, statistic in described.items()}
        for index in run.finished:
            sample = read_arrays(sample_path(self.folder, index), list(spreads), self._identity)
            for name, accumulated in spreads.items():
                accumulated.add(sample.get(name))
        for name, accumulated in spreads.items():
            summary |= {f"{name}/{part}": values for part, values in accumulated.result().items()}
        self._save("summary.safetensors", summary)
        return run

    def _fold_moments(self) -> None:
        """Bring `moments.safetensors` up to the last sample before the first one that is missing."""
        if not self.manifest.moments:
            return
        path = self.folder / "moments.safetensors"
        stored = read_arrays(path, None, self._identity) if path.is_file() else None
        means = MeanOfSamples(self.manifest.moments, stored)
        before = means.samples
        while sample_path(self.folder, means.samples).is_file():
            part = moments_path(self.folder, means.samples)
            means.add(read_arrays(part, list(self.manifest.moments), self._identity))
        if means.samples > before:
            self._save(path.name, means.arrays())
        for part in (self.folder / "moments").glob("[0-9]*.safetensors"):
            if int(part.stem) < means.samples:
                part.unlink()
        if means.samples == len(self.manifest.samples):
            shutil.rmtree(self.folder / "moments", ignore_errors=True)

    def _save(self, name: str, arrays: dict[str, np.ndarray]) -> None:
        # One metadata key only: safetensors writes several in an order that changes from process to process.
        write_bytes(self.folder / name, save(arrays, metadata={"run": self._identity}))


def check_target(folder: Path, *, resume: bool) -> None:
    """Refuse a folder that a capture must not write into, before anything is computed."""
    if (folder / "run.json").is_file():
        if not resume:
            raise InputError("--out", got=f"{folder}, a run", expected="a new folder", fix="another folder or --resume")
        return
    if folder.exists() and not folder.is_dir():
        raise InputError("--out", got=f"{folder}, a file", expected="a new folder", fix="another name")
    # A capture that was killed at its very start leaves its weights and no run.json yet.
    ours = {"weights.safetensors", "log.jsonl"} if resume else set()
    if folder.exists() and {path.name for path in folder.iterdir() if not path.name.startswith(".")} - ours:
        raise InputError("--out", got=f"{folder}, not empty", expected="a new folder", fix="another folder")


def _same_manifest(new: Manifest, old: Manifest, folder: Path) -> None:
    for field in type(new).model_fields:
        if getattr(new, field) != getattr(old, field):
            raise InputError(
                f"{folder}/run.json",
                got=f"another {field}",
                expected="the run that this command would write",
                fix="resume with the settings of the first start, or give another folder",
            )


def _checked(what: str, arrays: Mapping[str, np.ndarray], expected: Mapping[str, Statistic]) -> dict[str, np.ndarray]:
    if set(arrays) != set(expected):
        raise ValueError(f"{what} has {sorted(arrays)}, the run lists {sorted(expected)}")
    for name, values in arrays.items():
        if values.shape != expected[name].shape:
            raise ValueError(f"{what}, {name}: shape {values.shape}, the run lists {expected[name].shape}")
    return {name: np.ascontiguousarray(arrays[name], expected[name].dtype) for name in sorted(arrays)}
