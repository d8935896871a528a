"""Scores the demo model with the oracle: `python -m workbench.demo.evaluate --model data/demo --out FILE.json [--real]`.

Prompt i is generated with seed i and the model's own defaults, and the oracle reads the decoded pixels. One JSON line per finished
video stands in FILE.jsonl, so that a killed evaluation goes on where it stopped; FILE.json holds the tables. `--real` also scores
drawn clips of held-out scans, which says how far the oracle itself can be trusted.
"""

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from analysis.metrics.moving_digits import read, score
from analysis.metrics.moving_digits_factors import Factors, parse_caption
from analysis.metrics.proportions import wilson_interval
from analysis.roles import bootstrap_interval
from pare.errors import InputError
from pare.files import write_bytes
from pare.progress import Progress, silent
from pare.reference import model_identity, resolve
from pare.versions import versions
from workbench.demo.moving_digits import draw_clip
from workbench.demo.prompts import HELD_OUT
from workbench.demo.settings import DATA, DataSettings
from workbench.settings import RunSettings

SCHEMA = "pare-demo-evaluation/1"
REAL_CLIPS = 600
# What the demo model must reach, and the oracle itself on real clips.
BARS = {"digit": 0.90, "colour": 0.95, "direction": 0.90, "speed": 0.85}
REAL_BARS = dict.fromkeys(("digit", "colour", "direction", "speed", "consistent"), 0.97)

Record = dict[str, Any]


def judge(video: np.ndarray, factors: Factors, data: DataSettings) -> Record:
    """What the oracle reads in a video uint8 [frames, height, width, 3], and whether that is what was asked for."""
    reading = read(video, data)
    return {"reading": asdict(reading), "score": score(reading, factors)}


def table(records: Sequence[Record]) -> Record:
    """Share right per attribute with n and its Wilson interval (95 %), the mean consistency, and how many were unreadable."""
    rows: Record = {}
    for attribute in ("digit", "colour", "direction", "speed", "consistent"):
        counted = [record["score"][attribute] for record in records if record["score"][attribute] is not None]
        low, high = wilson_interval(sum(counted), len(counted))
        share = sum(counted) / len(counted) if counted else None
        rows[attribute] = {"right": sum(counted), "n": len(counted), "share": share, "low": low, "high": high}
    values = np.array([v for record in records if (v := record["score"]["consistency"]) is not None])
    if len(values) > 1:
        low, high = (float(bound) for bound in bootstrap_interval(values))
        rows["consistency"] = {"mean": float(values.mean()), "n": len(values), "low": low, "high": high}
    rows["unreadable"] = {"count": sum(record["reading"]["colour"] is None for record in records), "n": len(records)}
    return rows


def render(title: str, rows: Record, bars: Mapping[str, float]) -> str:
    """The table for people."""
    lines = [title, f"{'':<12}{'right':>7}{'n':>6}{'share':>9}   {'95 % interval':<18}{'bar':>6}"]
    for name, row in rows.items():
        if "share" in row and row["share"] is not None:
            bar = f"{bars[name]:.0%}" if name in bars else ""
            interval = f"{row['low']:.1%} to {row['high']:.1%}"
            lines.append(f"{name:<12}{row['right']:>7}{row['n']:>6}{row['share']:>9.1%}   {interval:<18}{bar:>6}")
        elif "mean" in row:
            interval = f"{row['low']:.4f} to {row['high']:.4f}"
            lines.append(f"{name:<12}{'mean':>7}{row['n']:>6}{row['mean']:>9.4f}   {interval:<18}")
    unreadable = rows["unreadable"]
    return "\n".join([*lines, f"no colour readable in {unreadable['count']} of {unreadable['n']} videos"])


def real_records(data: DataSettings, clips: int, progress: Progress = silent) -> list[Record]:
    """The oracle on drawn clips of held-out scans, seeds 0, 1, ..."""
    records = []
    for seed in range(clips):
        clip = draw_clip(data, seed, held_out=True)
        records.append({"seed": seed, "prompt": clip.factors.caption, **judge(clip.video, clip.factors, data)})
        progress(seed + 1, clips, clip.factors.caption)
    return records


def read_prompts(path: Path) -> list[str]:
    """The captions of a file, one a line; raises `InputError` naming the line that is none."""
    try:
        prompts = [line for line in path.read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            "--prompts", got=f"{path}, which cannot be read", expected="a text file", fix="check the path"
        ) from error
    for number, prompt in enumerate(prompts, 1):
        try:
            parse_caption(prompt)
        except ValueError as error:
            raise InputError(
                f"{path}, prompt {number}",
                got=prompt,
                expected="a moving-digits caption",
                fix='for example "a red 7 moving up, fast"',
            ) from error
    if not prompts:
        raise InputError("--prompts", got=f"{path}, which is empty", expected="one prompt a line", fix="add prompts")
    return prompts


def finished_records(path: Path, header: Record, prompts: Sequence[str]) -> list[Record]:
    """The records of an earlier, unfinished evaluation; a line cut off by a kill is dropped.

    Raises `InputError` when the file was made with another model, other settings or other prompts.
    """
    if not path.exists():
        return []
    lines = []
    for line in path.read_text().splitlines():
        try:
            lines.append(json.loads(line))
        except json.JSONDecodeError:
            break
    if not lines:
        return []
    records = lines[1:]
    same = lines[0] == header and len(records) <= len(prompts)
    if not same or [r["prompt"] for r in records] != list(prompts[: len(records)]):
        raise InputError(
            str(path),
            got="an evaluation of another model, other settings or other prompts",
            expected="one that this command began",
            fix="remove it, or name another --out",
        )
    return records


def generated_records(
    model: str,
    prompts: Sequence[str],
    lines: Path,
    data: DataSettings,
    run: RunSettings,
    *,
    load: Callable[..., Any] | None = None,
    progress: Progress = silent,
) -> list[Record]:
    """Generates prompt i with seed i, scores the pixels and appends a JSON line each to `lines`; finished ones are kept."""
    settings = run.model_dump(exclude={"seed", "dry_run"})
    header = json.loads(
        json.dumps({"schema": SCHEMA, "model": identity(model), "settings": settings, "data": asdict(data)})
    )
    records = finished_records(lines, header, prompts)
    write_bytes(lines, "".join(json.dumps(line) + "\n" for line in [header, *records]).encode())
    if len(records) == len(prompts):
        return records

    # Seconds of import, so only when there is something left to generate.
    import torch

    from analysis.generation import generate
    from pare.models import load_pipeline, set_flow_shift

    pipe = (load or load_pipeline)(model, **run.loading)
    set_flow_shift(pipe, run.shift or 1.0)
    for number in range(len(records), len(prompts)):
        prompt = prompts[number]

        def step(message: str, number: int = number) -> None:
            progress(number, len(prompts), message)

        generator = torch.Generator("cpu").manual_seed(number)
        pixels = generate(pipe, prompt, run.model_dump(), generator, "np", step)[0]
        video = np.round(np.clip(pixels, 0, 1) * 255).astype(np.uint8)
        record = {"seed": number, "prompt": prompt, **judge(video, parse_caption(prompt), data)}
        with lines.open("a") as file:
            file.write(json.dumps(record) + "\n")
            file.flush()
            os.fsync(file.fileno())
        records.append(record)
        progress(number + 1, len(prompts), prompt)
    return records


def identity(model: str) -> Record:
    """Which model this is; its VAE, which makes the pixels, is hashed too where it lies in a folder."""
    path = resolve(model).path
    files = sorted((Path(path) / "vae").glob("*.safetensors")) if path else []
    vae_hash = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest() if files else None
    return {**model_identity(model), "vae_hash": vae_hash}


def evaluate(
    model: str | None,
    *,
    out: Path,
    prompts: Path = HELD_OUT,
    real: int = 0,
    data: DataSettings = DATA,
    load: Callable[..., Any] | None = None,
    progress: Callable[[str], Progress] = lambda stage: silent,
    **settings: Any,
) -> Record:
    """Scores the videos of `model` for a file of prompts, and `real` drawn clips of held-out scans; writes `out` and returns it.

    Args: `model` None for the real clips alone; `load` stands in for `pare.models.load_pipeline`; `settings` are fields of
    `RunSettings` that replace the model's defaults.
    """
    if out.suffix != ".json":
        raise InputError("--out", got=str(out), expected="a name ending in .json", fix="for example --out scores.json")
    if model is None and not real:
        raise InputError("--model", got="no model", expected="a model, --real, or both", fix="add --real")
    result: Record = {"schema": SCHEMA, "data": asdict(data), "versions": versions()}
    if model is not None:
        asked = read_prompts(prompts)
        run = RunSettings.of(**settings).filled(model)
        lines = out.with_suffix(".jsonl")
        records = generated_records(model, asked, lines, data, run, load=load, progress=progress("generated videos"))
        about = {"model": identity(model), "settings": run.model_dump(exclude={"seed", "dry_run"})}
        result["generated"] = {**about, "bars": BARS, "table": table(records)}
    if real:
        records = real_records(data, real, progress("real clips"))
        result["real"] = {"clips": real, "bars": REAL_BARS, "table": table(records)}
    write_bytes(out, (json.dumps(result, indent=1) + "\n").encode())
    return result


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m workbench.demo.evaluate", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--model", help="demo, a diffusers folder or a hub id; left out, only real clips are scored")
    parser.add_argument("--prompts", type=Path, default=HELD_OUT, help="captions, one a line")
    parser.add_argument("--out", type=Path, required=True, help="FILE.json; finished videos stand in FILE.jsonl")
    parser.add_argument("--real", action="store_true", help="also score drawn clips of held-out scans")
    parser.add_argument("--real-clips", type=int, default=REAL_CLIPS, help=f"how many of them (default {REAL_CLIPS})")
    parser.add_argument("--steps", type=int, help="denoising steps (default: the model's)")
    parser.add_argument("--guidance", type=float, help="guidance scale (default: the model's)")
    arguments = parser.parse_args()

    def report(stage: str) -> Progress:
        from workbench.demo.report import StageReport

        return StageReport(stage, sys.stderr)

    try:
        result = evaluate(
            arguments.model,
            out=arguments.out,
            prompts=arguments.prompts,
            real=arguments.real_clips if arguments.real else 0,
            progress=report,
            steps=arguments.steps,
            guidance=arguments.guidance,
        )
    except InputError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    for part, title in (("generated", "Generated videos"), ("real", "Real clips of held-out scans")):
        if part in result:
            print(render(title, result[part]["table"], result[part]["bars"]))


if __name__ == "__main__":
    main()
