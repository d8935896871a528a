"""What a cut alone costs in quality: `python -m workbench.demo.width_quality --out FILE.json [--count N]`.

On a model of moving digits, without recovery training: the teacher, and students that keep as many heads and neurons of every
block, chosen in different ways (at random, by the size of weights, by PARE without and with protection of temporal heads).
Prompt i is generated with seed i every way in turn. One JSON line per finished video stands in FILE.jsonl, so that a
killed measurement goes on where it stopped; FILE.json holds the table.
"""

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from analysis.runs import Run
from pare.errors import InputError
from pare.files import write_bytes
from pare.geometry import DEMO
from pare.progress import Progress, silent
from pare.versions import versions
from workbench.demo.evaluate import identity, read_prompts
from workbench.demo.prompts import HELD_OUT
from workbench.demo.quality import Record, asked, measure_videos, render, resumed, table
from workbench.mask_build import build
from workbench.mask_settings import MaskSettings
from workbench.settings import RunSettings

SCHEMA = "pare-width-quality/1"
RATIOS = (0.3, 0.5)
COLUMNS = ("digit", "colour", "direction", "speed", "flow_magnitude", "still_share", "psnr", "ssim")
CHOICES: Mapping[str, Mapping[str, Any]] = {
    "random, seed 0": {"scorer": "random", "neurons": "random", "seed": 0},
    "random, seed 1": {"scorer": "random", "neurons": "random", "seed": 1},
    "magnitude": {"scorer": "magnitude", "neurons": "magnitude", "alpha": 1.0},
    "PARE, α = 1": {"alpha": 1.0},
    "PARE, α = 1.5": {"alpha": 1.5},
}
COMPENSATED = ", compensated"
"""Added to a choice: the mean of what is removed goes to the output bias."""
MENDED = ("random, seed 0", "magnitude", "PARE, α = 1.5")


@dataclass(frozen=True)
class Cut:
    """The teacher (no choice), or a student: what its mask is chosen by, and the ratio p of heads and neurons removed."""

    choice: str | None = None
    ratio: float = 0.0

    @property
    def name(self) -> str:
        """For tables."""
        return "teacher" if self.choice is None else f"p = {self.ratio:g}: {self.choice}"

    @property
    def share(self) -> float:
        """Asked share of heads and neurons."""
        return 1.0 - self.ratio


def all_cuts(
    ratios: Sequence[float] = RATIOS, choices: Sequence[str] = (*CHOICES, *(name + COMPENSATED for name in MENDED))
) -> list[Cut]:
    """The teacher first, then every choice at every ratio, without and with compensation.

    >>> [cut.name for cut in all_cuts([0.3], ["magnitude"])]
    ['teacher', 'p = 0.3: magnitude']
    """
    return [Cut(), *(Cut(choice, ratio) for ratio in ratios for choice in choices)]


class Bench:
    """A loaded pipeline that makes a video of a prompt and a seed as the teacher or as any of the students."""

    def __init__(self, model: str, settings: RunSettings, run: Run, load: Any = None):
        from pare.models import load_pipeline, set_flow_shift

        self.model, self.settings, self.run = model, settings, run
        self.pipe = (load or load_pipeline)(model, **settings.loading)
        set_flow_shift(self.pipe, settings.shift or 1.0)
        self.teacher = self.pipe.transformer
        self.moments = {name: run.moment(name)["mean"] for name in run.manifest.moments}
        self.students: dict[str, tuple[Any, float]] = {}

    def student(self, cut: Cut) -> tuple[Any, float]:
        """The transformer of a cut and its share of the teacher's operations; made once."""
        if cut.choice is None:
            return self.teacher, 1.0
        if cut.name not in self.students:
            from pare.width.surgery import prune

            choice = cut.choice.removesuffix(COMPENSATED)
            chosen = MaskSettings.of(ratio=cut.ratio, **CHOICES[choice])
            mask = build(self.run, chosen, model=self.model)
            share = float(mask.metadata["predicted"]["flop_ratio"])
            self.students[cut.name] = prune(self.teacher, mask, self.moments, compensate=choice != cut.choice), share
        return self.students[cut.name]

    def video(self, cut: Cut, prompt: str, seed: int) -> Record:
        """Frames uint8, the share of operations, seconds that passed and that processors worked."""
        import torch

        from analysis.generation import generate

        transformer, share = self.student(cut)
        self.pipe.transformer = transformer
        generator = torch.Generator("cpu").manual_seed(seed)
        try:
            with torch.no_grad():
                passed, processor = time.perf_counter(), time.process_time()
                pixels = generate(self.pipe, prompt, self.settings.model_dump(), generator, "np", lambda message: None)[
                    0
                ]
        finally:
            self.pipe.transformer = self.teacher
        return {
            "frames": np.round(np.clip(pixels, 0, 1) * 255).astype(np.uint8),
            "share": share,
            "seconds": time.perf_counter() - passed,
            "processor_seconds": time.process_time() - processor,
        }


def measure(
    model: str,
    out: Path,
    *,
    run: str | Path,
    prompts: Path = HELD_OUT,
    count: int | None = None,
    cuts: Sequence[Cut] | None = None,
    progress: Progress = silent,
    load: Any = None,
    **settings: Any,
) -> Record:
    """Measure every cut on the first `count` prompts and write FILE.json; finished videos are kept.

    `run` is a capture of the model, for scores and moments. Raises `InputError` for a file of another measurement.
    """
    chosen, opened = list(cuts or all_cuts()), Run.open(run)
    lines, filled = out.with_suffix(".jsonl"), RunSettings.of(**settings).filled(model)
    captions = read_prompts(prompts)[:count]
    header = json.loads(
        json.dumps({"schema": SCHEMA, "model": identity(model), "run": opened.hash, "settings": filled.model_dump(),
                    "prompts": captions, "ways": [asdict(cut) for cut in chosen], "versions": versions()})
    )  # fmt: skip
    _, records = resumed(lines, header)
    if len(asked(records, chosen, captions)) < len(chosen) * len(captions):
        bench = Bench(model, filled, opened, load)
        measure_videos(lines, header, records, chosen, captions, bench.video, progress)
    result = {**header, "table": table(asked(records, chosen, captions), chosen)}
    write_bytes(out, (json.dumps(result, indent=1) + "\n").encode())
    return result


SHOWN = ("random, seed 0", "magnitude", "PARE, α = 1.5", "magnitude, compensated", "PARE, α = 1.5, compensated")


def draw(model: str, run: str | Path, out: Path, *, number: int = 2, ratio: float = 0.3, load: Any = None) -> None:
    """A picture with a row per cut at one ratio: every second video frame of prompt `number`, of that seed."""
    from workbench.demo.pictures import clip_rows, save

    bench = Bench(model, RunSettings.of().filled(model), Run.open(run), load)
    cuts, prompt = [Cut(), *(Cut(choice, ratio) for choice in SHOWN)], read_prompts(HELD_OUT)[number]
    videos = [bench.video(cut, prompt, number)["frames"] for cut in cuts]
    save(clip_rows(videos, [f"{prompt} · {cuts[0].name}", *(cut.name for cut in cuts[1:])]), out)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="demo")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--run", type=Path, default=DEMO.parent / "runs" / "demo", help="a run of the model")
    parser.add_argument("--prompts", type=Path, default=HELD_OUT)
    parser.add_argument("--count", type=int, help="how many prompts; default: all")
    parser.add_argument("--picture", type=Path, help="also draw one prompt's videos, 30 %% cut, into this PNG")
    parser.add_argument("--dry-run", action="store_true", help="print the cuts and how many videos they are")
    given = parser.parse_args()
    try:
        if given.dry_run:
            cuts, captions = all_cuts(), read_prompts(given.prompts)[: given.count]
            print("\n".join(cut.name for cut in cuts))
            print(f"{len(cuts)} cuts x {len(captions)} prompts = {len(cuts) * len(captions)} videos")
            return
        found = measure(
            given.model, given.out, run=given.run, prompts=given.prompts, count=given.count,
            progress=lambda done, total, message="": print(f"{done}/{total} {message}", file=sys.stderr, flush=True),
        )  # fmt: skip
        if given.picture:
            draw(given.model, given.run, given.picture)
    except InputError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from error
    print(render(found["table"], COLUMNS))


if __name__ == "__main__":
    main()
