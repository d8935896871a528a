"""`pare prune`: cut what a mask removes out of a model on disk, and write a student that diffusers loads."""

import dataclasses
import json
import os
import shlex
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from pare import cost, reference
from pare import mask as masks
from pare.errors import InputError
from pare.geometry import Clip, read_json
from pare.mask import Mask
from pare.progress import Progress, silent
from pare.versions import versions
from workbench.plan import gibi, tera

COMPONENTS = ("copy", "link", "none")
DTYPES = ("auto", "float32", "bfloat16", "float16")
LIBRARY, CLASS = "pare.transformer", "PareWanTransformer3DModel"
CARD = "README.md"


def prune(
    model: str,
    *,
    mask: str | Path,
    out: str | Path,
    run: str | Path | None = None,
    qk_norm: str = "fold",
    compensate: bool = False,
    dtype: str = "auto",
    components: str | None = None,
    max_shard: float = 2.0,
    measure: bool = True,
    dry_run: bool = False,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Write the student of `model` that keeps what `mask` keeps, as a folder `out` that diffusers loads.

    The model is read block by block: one block and one output file (`max_shard` GiB) are in memory at a time. `run`
    gives the moments for `qk_norm` fold (without one it becomes none) and for `compensate`; it must be a run of the
    same model. `components` says what becomes of text encoder, VAE and the rest: `copy` (default for a folder) and
    `link` make a whole pipeline, `none` (default for a hub id) writes `transformer/` alone. `measure` takes the error
    of every block against masking. `dtype` auto keeps the stored precision. With `dry_run` only sizes are returned.
    Raises `InputError` before anything is written; a cancelled or failed prune leaves nothing behind.
    """
    known = reference.resolve(model)
    _check_choices(qk_norm, dtype, components, max_shard)
    _check_out(Path(out))
    shapes_only = dry_run and known.kind == "preset"
    chosen = masks.load(mask)
    identity = {"model_id": known.name} if shapes_only else reference.model_identity(known)
    masks.check(chosen, reference.model_geometry(known), identity)
    moments, run_about = _moments(run, identity)

    # Seconds of import, so only once the words are known to be good.
    import torch

    from pare.width import surgery
    from pare.width.card import model_card
    from pare.width.folder import GIB, prune_folder

    notes = []
    treated: Any = qk_norm
    if qk_norm == "fold" and moments is None:
        treated = "none"
        notes.append(surgery.NO_MOMENTS)
    about = _predicted(known, chosen, whole_query_key=treated == "exact") | {
        "model": identity,
        "mask": {
            "file": Path(mask).name,
            "hash": surgery.mask_hash(chosen),
            "settings": dict(chosen.metadata.get("settings", {})),
            "counts": chosen.counts(),
            "shapes": {part: list(getattr(chosen, part).shape) for part in masks.PARTS},
        },
        "run": run_about,
        "qk_norm": treated,
        "compensate": compensate,
        "notes": notes,
        "versions": versions(),
    }
    if shapes_only:
        return about | {"dry_run": True}
    folder, source = reference.description_folder(known), reference.weights_folder(known)
    pipeline_class = reference.check_pipeline(read_json(folder / "model_index.json"))
    config = read_json(folder / "transformer" / "config.json")
    cut = surgery.plan_cut(config, chosen, moments, treated, compensate)
    if dry_run:
        return about | {"dry_run": True}
    components = components or ("none" if known.kind == "hub" else "copy")
    others = _component_folders(folder) if components != "none" else []
    _check_disk(Path(out), source, others if components == "copy" else [])
    with _whole(Path(out)) as partial:
        target = partial / "transformer"
        target.mkdir()
        report = prune_folder(
            source,
            target,
            cut,
            base=identity,
            run=run_about,
            dtype=None if dtype == "auto" else getattr(torch, dtype),
            max_shard_bytes=int(max_shard * GIB),
            measure=measure,
            progress=progress,
        )
        about |= {
            "pipeline_class": pipeline_class,
            "parameters": report.parameters,
            "dense_parameters": report.dense_parameters,
            "weight_bytes": report.weight_bytes,
            "errors": [dataclasses.asdict(each) for each in report.errors],
            "components": components,
            "command": _command(known.name, mask, out, run, qk_norm, compensate, dtype),
            "use": _use(pipeline_class, known.repo_id or known.name, Path(out).name, components),
        }
        if components != "none":
            _add_components(folder, partial, link=components == "link")
        for place in (target, partial):
            (place / CARD).write_text(model_card(about), encoding="utf-8")
    return {"student": str(out), **about}


def render(result: dict[str, Any]) -> str:
    """The result for people."""
    counts, shapes = result["mask"]["counts"], result["mask"]["shapes"]
    lines = [
        "plan (nothing was written)" if result.get("dry_run") else f"{result['student']}: {_what(result)}",
        *result["notes"],
        f"parameters  {result['parameters']:,} of {result['dense_parameters']:,} "
        f"({result['parameters'] / result['dense_parameters']:.1%})",
    ]
    for part, kept in counts.items():
        low, high = min(kept), max(kept)
        lines.append(
            f"{part:11s} {low if low == high else f'{low} to {high}'} of {shapes[part][1]} kept in every block"
        )
    if result["flops"]:
        work = result["flops"]
        lines.append(
            f"one forward {tera(work['student'])} of {tera(work['dense'])} ({work['student'] / work['dense']:.1%})"
        )
    lines.append(f"qk norm     {result['qk_norm']}{', biases compensated' if result['compensate'] else ''}")
    if result.get("errors"):
        for name, meaning in (
            ("masking", "of the output, against masking"),
            ("masking_update", "of what a block adds, against masking"),
            ("dense_update", "of what a block adds, against the dense block"),
        ):
            values = np.array([each[name] for each in result["errors"]])
            lines.append(
                f"error       {np.median(values):.2e} {meaning}: median of {len(values)} blocks, at most "
                f"{values.max():.2e} in block {values.argmax()}"
            )
    return "\n".join(lines)


def _what(result: dict[str, Any]) -> str:
    kind = "transformer alone" if result["components"] == "none" else "whole pipeline"
    return f"{kind}, {gibi(result['weight_bytes'])} of transformer weights"


def _check_choices(qk_norm: str, dtype: str, components: str | None, max_shard: float) -> None:
    from pare.student import QUERY_KEY_NORMS

    flags = [("--qk-norm", qk_norm, QUERY_KEY_NORMS), ("--dtype", dtype, DTYPES)]
    if components is not None:
        flags.append(("--components", components, COMPONENTS))
    for flag, value, choices in flags:
        if value not in choices:
            raise InputError(flag, got=value, expected=f"one of {', '.join(choices)}", fix=f"{flag} {choices[0]}")
    if not 0 < max_shard <= 1000:
        raise InputError("--max-shard", got=max_shard, expected="a number of GiB above 0", fix="--max-shard 2")


def _check_out(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        what = "not empty" if out.is_dir() else "a file"
        raise InputError("--out", got=f"{out}, {what}", expected="a new folder", fix="another folder")
    parent = next(each for each in out.absolute().parents if each.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise InputError("--out", got=out, expected="a place that can be written", fix="choose another folder")


def _moments(
    run: str | Path | None, identity: Mapping[str, str | None]
) -> tuple[dict[str, np.ndarray] | None, dict[str, Any]]:
    """The means of a run by name, and what the student says of it; nothing where no run is given."""
    if run is None:
        return None, {}
    from analysis.runs import Run

    opened = Run.open(run)
    for name in ("config_hash", "weight_hash"):
        theirs, ours = opened.manifest.model.get(name), identity.get(name)
        if theirs and ours and theirs != ours:
            raise InputError(
                "--run",
                got=f"a run of {opened.model_id} ({name.replace('_', ' ')} {theirs[:12]})",
                expected=f"one of {identity['model_id']} ({ours[:12]})",
                fix="use a run of this very model",
            )
    means = {name: opened.moment(name)["mean"] for name in opened.manifest.moments}
    about = {"name": opened.folder.resolve().name, "hash": opened.hash, "samples": len(opened.finished)}
    return means, about


def _predicted(known: reference.ModelRef, mask: Mask, *, whole_query_key: bool) -> dict[str, Any]:
    geometry, stored = reference.model_geometry(known), reference.defaults(known)
    kept: dict[str, Any] = mask.counts() | {"whole_query_key": whole_query_key}
    about: dict[str, Any] = {
        "parameters": cost.parameters(geometry, **kept).total,
        "dense_parameters": cost.parameters(geometry).total,
        "flops": None,
    }
    if all(name in stored for name in ("height", "width", "frames")):
        clip = Clip(stored["height"], stored["width"], stored["frames"])
        about["flops"] = {
            "student": cost.flops(geometry, clip, **kept).total,
            "dense": cost.flops(geometry, clip).total,
            "clip": dataclasses.asdict(clip),
        }
    return about


def _component_folders(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if path.is_dir() and path.name != "transformer"]


def _check_disk(out: Path, source: Path, copied: list[Path]) -> None:
    # The student is never larger than what it is cut from.
    need = sum(file.stat().st_size for folder in (source, *copied) for file in folder.rglob("*") if file.is_file())
    free = shutil.disk_usage(next(each for each in out.absolute().parents if each.exists())).free
    if need > free:
        raise InputError(
            "disk",
            got=f"{gibi(free)} free for up to {gibi(need)}",
            expected="a student that fits",
            fix="another --out, --components link or none, or --dtype bfloat16",
        )


def _add_components(folder: Path, out: Path, *, link: bool) -> None:
    """Everything of the base pipeline but its transformer, which `model_index.json` now names as ours."""
    for path in _component_folders(folder):
        if link:
            (out / path.name).symlink_to(path.resolve(), target_is_directory=True)
        else:
            shutil.copytree(path, out / path.name)
    for path in folder.iterdir():
        if path.is_file() and path.suffix == ".json" and path.name != "model_index.json":
            shutil.copyfile(path, out / path.name)
    index = read_json(folder / "model_index.json") | {"transformer": [LIBRARY, CLASS]}
    (out / "model_index.json").write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")


@contextmanager
def _whole(out: Path) -> Iterator[Path]:
    """A temporary folder beside `out` that takes its place when the block ends well, and is removed otherwise."""
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".partial", dir=out.parent))
    try:
        yield partial
        # mkdtemp keeps others out; a student is for whoever may read the folder around it.
        partial.chmod(0o755)
        if out.exists():
            out.rmdir()
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _command(
    model: str,
    mask: str | Path,
    out: str | Path,
    run: str | Path | None,
    qk_norm: str,
    compensate: bool,
    dtype: str,
) -> str:
    """The command line, with names in place of paths, which mean nothing on another machine."""
    words = ["pare", "prune", model, "--mask", Path(mask).name, "--out", Path(out).name]
    words += [] if run is None else ["--run", Path(run).resolve().name]
    words += ["--qk-norm", qk_norm] + (["--compensate"] if compensate else [])
    words += [] if dtype == "auto" else ["--dtype", dtype]
    return shlex.join(words)


def _use(pipeline_class: str, base: str, out: str, components: str) -> str:
    lines = [f"from diffusers import {pipeline_class}"]
    if components != "none":
        return "\n".join([*lines, "import pare.transformer", "", f'pipe = {pipeline_class}.from_pretrained("{out}")'])
    return "\n".join(
        [
            *lines,
            f"from {LIBRARY} import {CLASS}",
            "",
            f'student = {CLASS}.from_pretrained("{out}", subfolder="transformer")',
            f'pipe = {pipeline_class}.from_pretrained("{base}", transformer=student)',
        ]
    )
