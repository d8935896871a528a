"""Ships students: `python -m workbench.demo.students --results FOLDER` writes data/students/{width,joint,few-steps}.

Each is a diffusers folder with its card: its own transformer, settings and sampler, and links to the parts of data/demo that it
shares. Together they may take 8 MB. Three students of two bytes a parameter take twice that, so matrices are stored in eight bits
(float8_e4m3fn, which diffusers reads as any other precision) unless `--storage float16` fits; how much that moves the student is
measured and written on the card.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from analysis.paired_seeds import difference_over_seeds
from pare.errors import InputError
from pare.files import write_bytes
from pare.geometry import DEMO, read_json
from pare.progress import Progress, silent
from workbench.demo.results.effort import Effort
from workbench.demo.results.measured import Results
from workbench.demo.results.rows import TEACHER, Budget, Row
from workbench.demo.results.work import RECORD, Bench

SHIPPED = {"width": ("pare-longer", 1), "joint": ("pare-longer", 2), "few-steps": ("four-steps-longer", 3)}
"""One student, stage by stage: its name as shipped, the key of the row that it comes from, and after how many of its stages."""
LIMIT_BYTES = 8_000_000
SHARED = ("text_encoder", "tokenizer", "vae")
STORAGES = ("float8_e4m3fn", "float16")
STUDENTS = DEMO.parent / "students"
CARD = "README.md"
FILE = "diffusion_pytorch_model.safetensors"


def ship(
    results: Path, rows: Sequence[Row], out: Path = STUDENTS, *, base: Path = DEMO, storage: str = STORAGES[0], seed: int = 0,
    names: Sequence[str] = tuple(SHIPPED), limit: int = LIMIT_BYTES, captions: int = 16, progress: Progress = silent,
) -> dict[str, Any]:  # fmt: skip
    """Write the shipped students of a folder of results into `out`; the folder of each appears whole or not at all.

    `names` are keys of `SHIPPED`; `seed` is that of the trainings; `base` the teacher's folder, beside `out`; `captions` how many
    noised samples the effect of storing is measured on. Returns bytes and effect by name. Raises `InputError` for a student that
    is not trained yet, and where all of them take more than `limit` bytes: nothing is written then.
    """
    if storage not in STORAGES:
        raise InputError("--storage", got=storage, expected=" or ".join(STORAGES), fix=f"--storage {STORAGES[0]}")
    if unknown := [name for name in names if name not in SHIPPED]:
        raise InputError("--names", got=unknown[0], expected=", ".join(SHIPPED), fix=f"--names {','.join(SHIPPED)}")
    by_key = {row.key: row for row in rows}
    chosen = {name: SHIPPED[name] for name in names}
    sources = {name: results / "students" / by_key[key].name(seed, stages) for name, (key, stages) in chosen.items()}
    for name, source in sources.items():
        if not (source / CARD).is_file():
            raise InputError(
                "--results", got=f"{results}, where {name} is not trained yet", expected="finished students",
                fix=f"python -m workbench.demo.results --out {results} --rows {SHIPPED[name][0]}",
            )  # fmt: skip
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        told: dict[str, Any] = {}
        for number, (name, source) in enumerate(sources.items()):
            effect = _write(source, partial / name, base, storage, captions)
            told[name] = {"bytes": size_of(partial / name), "effect": effect, "seed": seed}
            progress(number + 1, len(sources), name)
        total = sum(each["bytes"] for each in told.values())
        if total > limit:
            raise InputError(
                "--storage", got=f"{total / 1e6:.2f} MB in {storage}", expected=f"at most {limit / 1e6:g} MB together",
                fix="--storage float8_e4m3fn",
            )  # fmt: skip
        for name in told:
            shutil.rmtree(out / name, ignore_errors=True)
            out.mkdir(exist_ok=True)
            os.replace(partial / name, out / name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    result = {"storage": storage, "bytes": total, "students": told}
    write_bytes(results / "students.json", (json.dumps(result, indent=1) + "\n").encode())
    return result


def _write(source: Path, target: Path, base: Path, storage: str, captions: int) -> dict[str, float]:
    import torch
    from safetensors.torch import load_file, save_file

    files = sorted((source / "transformer").glob("*.safetensors"))
    tensors = {name: tensor for path in files for name, tensor in load_file(path).items()}
    precision = getattr(torch, storage)

    def stored_as(name: str, tensor: torch.Tensor) -> torch.dtype:
        # A router is small, and what it decides should not hang on how it is stored.
        matrix = tensor.ndim > 1 and name.endswith(".weight") and not name.startswith("router.")
        return precision if matrix else torch.float16

    stored = {name: tensor.to(stored_as(name, tensor)).contiguous() for name, tensor in tensors.items()}
    (target / "transformer").mkdir(parents=True)
    save_file(stored, str(target / "transformer" / FILE), metadata={"format": "pt"})
    shutil.copyfile(source / "transformer" / "config.json", target / "transformer" / "config.json")
    for path in sorted(source.iterdir()):
        if path.is_file() and path.suffix in (".json", ".md"):
            shutil.copyfile(path, target / path.name)
    shutil.copytree(source / "scheduler", target / "scheduler")
    for part in SHARED:
        # Relative, so that a checkout may lie anywhere; from data/students/NAME to data/demo.
        (target / part).symlink_to(Path("..", "..", base.name, part), target_is_directory=True)
    effect = storing_effect(source / "transformer", target / "transformer", captions)
    card = (target / CARD).read_text("utf-8").rstrip()
    words = ", ".join(f"{name} {value:.3g}" for name, value in effect.items())
    text = f"""{card}

## As shipped

Matrices of the blocks are stored as {storage}, the rest as float16; every loader turns them into the precision that it is asked
for. What that changes of the velocity, over the velocity's own size: {words}. Text encoder, tokenizer and VAE are links to
those of the teacher.
"""
    write_bytes(target / CARD, text.encode())
    return effect


def storing_effect(before: Path, after: Path, count: int) -> dict[str, float]:
    """‖v_after − v_before‖ / ‖v_before‖ of two stored transformers, mean and largest over `count` random inputs and σ."""
    import torch

    from pare.transformer import PareWanTransformer3DModel

    models = [PareWanTransformer3DModel.from_pretrained(each, dtype=torch.float32).eval() for each in (before, after)]
    config = models[0].config
    found = []
    for number in range(count):
        generator = torch.Generator().manual_seed(number)
        latents = torch.randn(1, config.in_channels, 5, 8, 8, generator=generator)
        text = torch.randn(1, 16, config.text_dim, generator=generator)
        timestep = torch.tensor([1000.0 * (number + 0.5) / count])
        with torch.no_grad():
            first, second = (
                each(hidden_states=latents, timestep=timestep, encoder_hidden_states=text)[0] for each in models
            )
        found.append(float((second - first).norm() / first.norm()))
    return {"mean": sum(found) / len(found), "largest": max(found)}


def size_of(folder: Path) -> int:
    """Bytes of a folder's own files; links to others are not counted."""
    total = 0
    for here, folders, files in os.walk(folder):
        total += sum((Path(here) / name).stat().st_size for name in files if not (Path(here) / name).is_symlink())
        folders[:] = [name for name in folders if not (Path(here) / name).is_symlink()]
    return total


def evaluate_shipped(bench: Bench, out: Path, progress: Progress = silent) -> None:
    """Videos and scores of the shipped students, into the folder of results; what is there is kept."""
    for name in (name for name in SHIPPED if (out / name).is_dir()):
        own = {} if name == "few-steps" else bench.settings
        bench.make_videos(str(out / name), f"shipped-{name}", own, progress)
        if not (bench.folder / "scores" / f"shipped-{name}.json").is_file():
            bench.score(str(out / name), f"shipped-{name}", progress)


def students_text(told: Mapping[str, Any], rows: Sequence[Row], results: Results | None = None) -> str:
    """The block of the page: sizes, and what storing changed of the videos, where they were made."""
    from workbench.demo.results.answers import in_points
    from workbench.demo.results.tables import NONE, change, grid, number

    by_key = {row.key: row for row in rows}
    lines = []
    for name, each in told["students"].items():
        key, stages = SHIPPED[name]
        row = by_key[key]
        before = row.name(each["seed"], stages)
        changes = [NONE, NONE]
        # A row's videos are of its last stage.
        if results is not None and {before, f"shipped-{name}"} <= set(results.scores):
            pairs = [
                difference_over_seeds(*(results.named(one, metric)[None] for one in (before, f"shipped-{name}")))
                for metric in ("asked", "flow_error")
            ]
            changes = [change(in_points(pairs[0]), 1, False), change(pairs[1], 3, False)]
        effect = number(100 * each["effect"]["mean"], 2)
        title = row.title if stages == len(row.stages) else f"{row.title}, after stage {'I' * stages}"
        lines.append([f"`data/students/{name}`", title, number(each["bytes"] / 1e6, 2), effect, *changes])
    names = ["folder", "row of the tables", "MB", "velocity, %", "asked for, % right", "flow error, px/frame"]
    return (
        f"{grid(names, lines)}\n\nTogether {number(told['bytes'] / 1e6, 2)} MB, matrices in {told['storage']}. The tables above "
        "are of the students before they were stored so; the last three columns are what storing changed: of the velocity (over "
        "its own size, on random inputs), and of the videos of the same prompts and seeds (–: not measured, since a row's videos "
        "are of its last stage)."
    )


def main() -> None:
    """The command line."""
    given = _parser().parse_args()
    try:
        print(_run(given))
    except InputError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from error
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def _run(given: argparse.Namespace) -> str:
    from workbench.demo.report import StageReport
    from workbench.demo.results.__main__ import RUN, rows_of
    from workbench.demo.results.page import write_page

    if not (given.results / RECORD).is_file():
        raise InputError(
            "--results", got=f"{given.results}, no results", expected="a folder of results",
            fix="python -m workbench.demo.results --out FOLDER",
        )  # fmt: skip
    about = read_json(given.results / RECORD)
    budget = replace(Budget(), **about["budget"], **about["named"])
    rows = rows_of(Effort.of("demo", budget))
    names = given.names.split(",")
    told = ship(given.results, rows, given.out, storage=given.storage, seed=given.seed, names=names)
    if given.evaluate:
        bench = Bench(given.results, "demo", RUN, about["prompts"], budget)
        bench.check()
        evaluate_shipped(bench, given.out, StageReport("shipped students", sys.stderr))
    scored = (given.results / "scores" / f"{TEACHER}.json").is_file()
    text = students_text(told, rows, Results.read(given.results) if scored else None)
    if given.write:
        write_page({"students": text})
    return text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m workbench.demo.students", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--results", type=Path, required=True, help="a folder of python -m workbench.demo.results")
    parser.add_argument("--out", type=Path, default=STUDENTS)
    parser.add_argument("--names", default=",".join(SHIPPED), help="which of them; default: all")
    parser.add_argument("--storage", default=STORAGES[0], help=" or ".join(STORAGES))
    parser.add_argument("--seed", type=int, default=0, help="which training of the main rows")
    parser.add_argument("--evaluate", action="store_true", help="also make and score the videos of what is shipped")
    parser.add_argument("--write", action="store_true", help="also fill docs/results.md")
    return parser


if __name__ == "__main__":
    main()
