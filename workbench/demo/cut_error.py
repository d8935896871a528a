"""How far a cut throws the velocity, part by part: `python -m workbench.demo.cut_error --out FILE.json [--clips N]`.

The flow error (Eq. 1) of the teacher and of students without recovery training, on drawn clips of held-out scans with fixed
noise, in float32. Only one part of every block is cut at a time (self-attention heads, cross-attention heads, neurons), by each
way to choose, with the mean of what is removed added to the output bias (`compensate`) and without. It takes minutes and tells
choices apart where no video is readable.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from analysis.paired import mean_over_prompts, paired_difference
from analysis.runs import Run
from pare.errors import InputError
from pare.files import write_bytes
from pare.geometry import DEMO
from pare.progress import Progress, silent
from pare.versions import versions
from workbench.demo.evaluate import identity
from workbench.demo.moving_digits import draw_clip
from workbench.demo.settings import DATA
from workbench.demo.width_quality import CHOICES
from workbench.mask_build import build
from workbench.mask_settings import MaskSettings

SCHEMA = "pare-cut-error/1"
SIGMAS = (0.3, 0.6, 0.85)
RATIO = 0.3
PARTS = {"self-attention heads": "self_ratio", "cross-attention heads": "cross_ratio", "neurons": "neuron_ratio"}
Record = dict[str, Any]


def clip_errors(pipe: Any, clips: int, batch: int = 8) -> Any:
    """A function: transformer → flow errors float64 [clips, sigmas] on the first held-out clips, noise of seed 1."""
    import torch

    chosen = [draw_clip(DATA, seed, held_out=True) for seed in range(clips)]
    config = pipe.vae.config
    mean, std = (torch.tensor(each).view(1, -1, 1, 1, 1) for each in (config.latents_mean, config.latents_std))
    pixels = torch.stack([torch.from_numpy(np.array(clip.video)).permute(3, 0, 1, 2) for clip in chosen]) / 127.5 - 1
    with torch.no_grad():
        encoded = [pipe.vae.encode(each).latent_dist.mode() for each in pixels.float().split(batch)]
        latents = (torch.cat(encoded) - mean) / std
        captions = [clip.factors.caption for clip in chosen]
        text = pipe.encode_prompt(captions, negative_prompt=None, do_classifier_free_guidance=False)[0]
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(1))

    def errors(transformer: Any) -> np.ndarray:
        found: list[list[np.ndarray]] = [[] for _ in SIGMAS]
        with torch.no_grad():
            for column, sigma in zip(found, SIGMAS, strict=True):
                for clean, words, drawn in zip(*(each.split(batch) for each in (latents, text, noise)), strict=True):
                    timestep = torch.full((len(clean),), 1000 * sigma)
                    mixed = (1 - sigma) * clean + sigma * drawn
                    velocity = transformer(mixed, timestep, words, return_dict=False)[0]
                    column.append((velocity - (drawn - clean)).square().mean((1, 2, 3, 4)).double().numpy())
        return np.stack([np.concatenate(column) for column in found], axis=1)

    return errors


def measure(
    model: str,
    out: Path,
    *,
    run: str | Path,
    clips: int = 64,
    choices: Sequence[str] = tuple(CHOICES),
    progress: Progress = silent,
    load: Any = None,
) -> Record:
    """Measure every choice for every part and write FILE.json; returns what it holds. Raises `InputError` for no clips."""
    from pare.models import load_pipeline
    from pare.width.surgery import prune

    if clips < 2:
        raise InputError("--clips", got=clips, expected="at least 2, for an interval", fix="--clips 64")
    pipe, opened = (load or load_pipeline)(model), Run.open(run)
    moments = {name: opened.moment(name)["mean"] for name in opened.manifest.moments}
    errors = clip_errors(pipe, clips)
    teacher = errors(pipe.transformer)
    rows = [_row("teacher", "", False, teacher, teacher)]
    total = len(PARTS) * len(choices) * 2
    for part, flag in PARTS.items():
        kept: dict[str, Any] = {**dict.fromkeys(PARTS.values(), 0.0), flag: RATIO}
        for choice in choices:
            mask = build(opened, MaskSettings.of(**kept, **CHOICES[choice]), model=model)
            for compensate in (False, True):
                student = prune(pipe.transformer, mask, moments, compensate=compensate)
                rows.append(_row(part, choice, compensate, teacher, errors(student)))
                progress(len(rows) - 1, total, f"{part}: {choice}")
    result = {"schema": SCHEMA, "model": identity(model), "run": opened.hash, "ratio": RATIO, "clips": clips,
              "sigmas": SIGMAS, "rows": rows, "versions": versions()}  # fmt: skip
    write_bytes(out, (json.dumps(result, indent=1) + "\n").encode())
    return result


def _row(part: str, choice: str, compensate: bool, teacher: np.ndarray, own: np.ndarray) -> Record:
    mean = mean_over_prompts(own.mean(axis=1))
    more = paired_difference(teacher.mean(axis=1), own.mean(axis=1))
    return {
        "part": part, "choice": choice, "compensate": compensate, "by_sigma": own.mean(axis=0).tolist(),
        "n": mean.n, "mean": mean.mean, "more": more.difference, "low": more.low, "high": more.high,
    }  # fmt: skip


def render(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table as Markdown: mean error, how much more than the teacher's with its interval; compensated beside it."""
    teacher = rows[0]
    lines = [
        "| cut of 30 % | chosen by | n | error | more than the teacher | the same, compensated |",
        "|" + "---|" * 6,
    ]
    lines.append(f"| nothing: teacher | | {teacher['n']} | {teacher['mean']:.3f} | | |")
    for plain, mended in zip(rows[1::2], rows[2::2], strict=True):
        more, less = (f"{row['more']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]" for row in (plain, mended))
        lines.append(f"| {plain['part']} | {plain['choice']} | {plain['n']} | {plain['mean']:.3f} | {more} | {less} |")
    return "\n".join(lines)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="demo")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--run", type=Path, default=DEMO.parent / "runs" / "demo", help="a run of the model")
    parser.add_argument("--clips", type=int, default=64)
    parser.add_argument("--dry-run", action="store_true", help="print what would be cut")
    given = parser.parse_args()
    try:
        if given.dry_run:
            print("\n".join(f"{part}: {choice}" for part in PARTS for choice in CHOICES))
            return
        found = measure(
            given.model, given.out, run=given.run, clips=given.clips,
            progress=lambda done, total, message="": print(f"{done}/{total} {message}", file=sys.stderr, flush=True),
        )  # fmt: skip
    except InputError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from error
    print(render(found["rows"]))


if __name__ == "__main__":
    main()
