"""Join runs of one model, measured alike on different samples, into one run."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.manifest import Manifest, Sample, Statistic
from analysis.moments import MeanOfSamples
from analysis.routes import has_routes, write_routes
from analysis.run_files import read_arrays, run_identity, sample_path
from analysis.run_writer import RunWriter, check_target
from analysis.runs import Run
from pare.errors import InputError
from pare.progress import Progress, silent


def merge_runs(runs: Sequence[Run | str | Path], out: str | Path, *, progress: Progress = silent) -> Run:
    """Write the run that holds the samples of all `runs`, in the order given, and open it.

    Moments are joined by their counts. The runs must be finished, of the same model, and measured alike: same settings
    (but the seed), timesteps, statistics and versions, and no sample twice. Raises InputError that names both runs
    otherwise; nothing is written then.
    """
    opened = [each if isinstance(each, Run) else Run.open(each) for each in runs]
    out = Path(out)
    manifest = merged_manifest(opened)
    check_target(out, resume=False)
    weights = _same_weights(opened)
    temporary = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        writer = RunWriter(temporary, manifest, weights)
        if manifest.moments:
            writer.adopt_moments(_merged_moments(opened, manifest))
        places = [(run, index) for run in opened for index in range(len(run.manifest.samples))]
        for number, (run, index) in enumerate(places):
            if video := manifest.samples[number].video:
                (temporary / video).parent.mkdir(exist_ok=True)
                shutil.copyfile(run.videos[index], temporary / video)
            names = list(run.manifest.statistics)
            writer.write_sample(number, read_arrays(sample_path(run.folder, index), names, run.identity))
            progress(number + 1, len(places), f"sample {number + 1} of {len(places)}")
        _merge_routes(opened, temporary, run_identity(manifest.to_bytes()))
        writer.log("merged", runs=[str(run.folder) for run in opened])
        writer.finish()
        if out.is_dir():
            out.rmdir()
        os.replace(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Run.open(out)


def _merge_routes(runs: Sequence[Run], folder: Path, identity: str) -> None:
    """The decisions of all runs under the samples' new indices, where every run has some."""
    if not all(has_routes(run) for run in runs):
        return
    before, frames = 0, []
    for run in runs:
        frame = run.routes()
        frames.append(frame.assign(sample=frame["sample"] + np.int32(before)))
        before += len(run.manifest.samples)
    write_routes(folder, pd.concat(frames, ignore_index=True), identity)


def merged_manifest(runs: Sequence[Run]) -> Manifest:
    """The manifest of the merged run. Raises InputError where the runs do not belong together."""
    if len(runs) < 2:
        raise InputError("RUN", got=f"{len(runs)} to merge", expected="at least 2", fix="name the runs to merge")
    first = runs[0]
    seen: dict[tuple[Any, ...], Run] = {}
    samples: list[Sample] = []
    for run in runs:
        if not run.complete:
            raise InputError(str(run.folder), got="a capture not finished", expected="finished runs", fix="--resume it")
        _check_alike(first, run)
        for index, sample in enumerate(run.manifest.samples):
            what = (sample.prompt, sample.seed, sample.source)
            if what in seen:
                raise InputError(
                    str(run.folder),
                    got=f"sample {index} (seed {sample.seed}), which {seen[what].folder} has as well",
                    expected="different samples",
                    fix="capture with another --seed",
                )
            seen[what] = run
            if sample.video and index not in run.videos:
                raise InputError(
                    str(run.folder / sample.video), got="no such file", expected="the sample's video", fix="restore it"
                )
            video = f"videos/{len(samples):05d}{Path(sample.video).suffix}" if sample.video else None
            samples.append(sample.model_copy(update={"video": video}))
    settings = dict(first.manifest.settings)
    if "seed" in settings and any(sample.seed != settings["seed"] + index for index, sample in enumerate(samples)):
        # Every sample names its own.
        settings["seed"] = None
    statistics = {name: _merged_statistic(name, runs) for name in first.manifest.statistics}
    return first.manifest.model_copy(update={"samples": tuple(samples), "settings": settings, "statistics": statistics})


def _check_alike(first: Run, run: Run) -> None:
    if run.manifest.model != first.manifest.model or run.manifest.geometry != first.manifest.geometry:
        raise InputError(
            str(run.folder),
            got=f"a run of {_model(run)}",
            expected=f"one of {_model(first)}, as {first.folder}",
            fix="merge runs of one model",
        )
    for field in type(run.manifest).model_fields:
        theirs, ours = (_comparable(each.manifest, field) for each in (run, first))
        if theirs != ours:
            which = [key for key in {**theirs, **ours} if theirs.get(key) != ours.get(key)]
            named = (
                f"{field} ({', '.join(map(str, which))})" if isinstance(theirs, dict) and field != "model" else field
            )
            raise InputError(
                str(run.folder),
                got=f"other {named}",
                expected=f"the {field} of {first.folder}",
                fix="merge runs that were captured alike",
            )


def _comparable(manifest: Manifest, field: str) -> dict[Any, Any]:
    value = getattr(manifest, field)
    if field == "samples":
        return {}
    if field == "statistics":
        return {name: each.model_copy(update={"samples": None}) for name, each in value.items()}
    if field == "settings":
        return {name: each for name, each in value.items() if name != "seed"}
    return dict(value) if isinstance(value, dict) else {field: value}


def _merged_statistic(name: str, runs: Sequence[Run]) -> Statistic:
    """A statistic that only some samples have keeps its samples, under their new indices."""
    described = [run.manifest.statistics[name] for run in runs]
    if all(each.samples is None for each in described):
        return described[0]
    samples: list[int] = []
    before = 0
    for run, each in zip(runs, described, strict=True):
        own = range(len(run.manifest.samples)) if each.samples is None else each.samples
        samples += [before + index for index in own]
        before += len(run.manifest.samples)
    return described[0].model_copy(update={"samples": tuple(samples)})


def _merged_moments(runs: Sequence[Run], manifest: Manifest) -> MeanOfSamples:
    means = MeanOfSamples(manifest.moments)
    for run in runs:
        stored = read_arrays(run.folder / "moments.safetensors", None, run.identity)
        means.merge(MeanOfSamples(manifest.moments, stored))
    return means


def _same_weights(runs: Sequence[Run]) -> dict[str, np.ndarray]:
    found = [read_arrays(run.folder / "weights.safetensors", None, run.identity) for run in runs]
    for run, each in zip(runs, found, strict=True):
        if each.keys() != found[0].keys() or not all(np.array_equal(each[name], found[0][name]) for name in each):
            raise InputError(
                str(run.folder / "weights.safetensors"),
                got=f"other output norms than {runs[0].folder}",
                expected="the same weights",
                fix="merge runs of one model",
            )
    return found[0]


def _model(run: Run) -> str:
    return f"{run.model_id} (config {run.manifest.model.get('config_hash')})"
