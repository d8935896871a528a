"""What running fewer blocks costs in quality: `python -m workbench.demo.depth_quality --out FILE.json [--prompts FILE]`.

On a model of moving digits, without recovery training: the teacher; a static, a random and an importance router at
shares of the block FLOPs; caches of steps at equal executed FLOPs, alone and together with the importance router.
Prompt i is generated with seed i every way in turn. One JSON line per finished video stands in FILE.jsonl, so that a
killed measurement goes on where it stopped; FILE.json holds the table.
"""

import argparse
import contextlib
import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pare.errors import InputError
from pare.files import write_bytes
from pare.progress import Progress, silent
from pare.versions import versions
from workbench.demo.evaluate import identity, read_prompts
from workbench.demo.prompts import HELD_OUT
from workbench.demo.quality import Record, asked, measure_videos, render, resumed, table
from workbench.routing import RoutingChoice, choose_routing, routed
from workbench.routing_settings import RoutingSettings
from workbench.settings import RunSettings

SCHEMA = "pare-depth-quality/1"
SHARES, CACHE_SHARES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5), (0.75, 0.5)


@dataclass(frozen=True)
class Way:
    """One way to run the model: a router at a share of block FLOPs, a cache, both, or neither (the teacher).

    `share` is what is to be executed in all; `routed` what the router is given, the cache making up for the rest.
    """

    share: float = 1.0
    router: str | None = None
    routed: float | None = None
    cache: str | None = None

    @property
    def name(self) -> str:
        """For tables."""
        parts = [self.cache, f"{self.router} router" if self.router else None]
        return " + ".join(part for part in parts if part) + (f" {self.share:g}" if any(parts) else "teacher")


def all_ways(shares: Sequence[float] = SHARES, cache_shares: Sequence[float] = CACHE_SHARES) -> list[Way]:
    """The teacher first, then routers, then caches alone and with the importance router at the same FLOPs."""
    found = [Way()]
    found += [Way(s, router, s) for router in ("static", "random", "importance") for s in shares]
    for cache in ("first block cache", "mag cache"):
        for share in cache_shares:
            found += [Way(share, cache=cache), Way(share, "importance", math.sqrt(share), cache)]
    return found


class Bench:
    """A loaded pipeline that makes a video of a prompt and a seed in any of the ways."""

    def __init__(self, model: str, run: RunSettings, importance: str | None, load: Any = None):
        from pare.models import load_pipeline, set_flow_shift

        self.model, self.run, self.importance = model, run, importance
        self.pipe = (load or load_pipeline)(model, **run.loading)
        set_flow_shift(self.pipe, run.shift or 1.0)
        self.branches = 2 if (run.guidance or 0) > 1 else 1
        self.ratios: list[float] = []
        self.thresholds: dict[str, float] = {}

    def choice(self, way: Way) -> RoutingChoice | None:
        """The router and budget of a way."""
        if way.router is None:
            return None
        own = self.importance if way.router != "random" else None
        return choose_routing(self.model, RoutingSettings.of(router=way.router, share=way.routed, run=own), self.run)

    @contextlib.contextmanager
    def set_up(self, way: Way, seed: int, threshold: float | None = None) -> Iterator[list[int]]:
        """The pipeline as the way wants it; yields the count of executed blocks."""
        from workbench.demo.block_caches import cache_config, cached, executions

        steps = self.run.steps or 1
        threshold = self.thresholds.get(way.name) if threshold is None else threshold
        config = None if way.cache is None else cache_config(way.cache, threshold or 0.0, steps, self.ratios)
        with contextlib.ExitStack() as stack:
            stack.enter_context(routed(self.pipe, self.choice(way), seed))
            stack.enter_context(cached(self.pipe.transformer, config))
            yield stack.enter_context(executions(self.pipe.transformer))

    def video(self, way: Way, prompt: str, seed: int, threshold: float | None = None, output: str = "np") -> Record:
        """Frames uint8 (for `np`), the share of blocks that ran, seconds that passed and that processors worked."""
        import torch

        from analysis.generation import generate

        generator = torch.Generator("cpu").manual_seed(seed)
        with torch.no_grad(), self.set_up(way, seed, threshold) as count:
            passed, processor = time.perf_counter(), time.process_time()
            pixels = generate(self.pipe, prompt, self.run.model_dump(), generator, output, lambda message: None)[0]
            seconds = {"seconds": time.perf_counter() - passed, "processor_seconds": time.process_time() - processor}
        dense = len(self.pipe.transformer.blocks) * (self.run.steps or 1) * self.branches
        frames = np.round(np.clip(pixels, 0, 1) * 255).astype(np.uint8) if output == "np" else None
        return {"frames": frames, "share": count[0] / dense, **seconds}

    def tune(self, ways: Sequence[Way], prompt: str, progress: Progress = silent) -> None:
        """Find every cache's threshold on one prompt: the one that executes the share asked for, as near as it gets."""
        from workbench.demo.block_caches import magnitude_ratios, threshold_for

        tuned = [way for way in ways if way.cache is not None]
        if not tuned:
            return

        def dense() -> None:
            self.video(Way(), prompt, 0, output="latent")

        self.ratios = magnitude_ratios(self.pipe.transformer, dense)
        for number, way in enumerate(tuned):
            progress(number, len(tuned), f"threshold of {way.name}")

            def executed(threshold: float, way: Way = way) -> float:
                return float(self.video(way, prompt, 0, threshold, output="latent")["share"])

            self.thresholds[way.name], _ = threshold_for(way.share, executed)


def measure(
    model: str,
    out: Path,
    *,
    prompts: Path = HELD_OUT,
    count: int | None = None,
    ways: Sequence[Way] | None = None,
    importance: str | None = None,
    progress: Progress = silent,
    load: Any = None,
    **settings: Any,
) -> Record:
    """Measure every way on the first `count` prompts and write FILE.json; finished videos are kept.

    `importance` is a run of the model (the demo's own unless given). Raises `InputError` for a file of another
    measurement.
    """
    chosen = list(ways or all_ways())
    lines, run = out.with_suffix(".jsonl"), RunSettings.of(**settings).filled(model)
    captions = read_prompts(prompts)[:count]
    header = json.loads(
        json.dumps({"schema": SCHEMA, "model": identity(model), "settings": run.model_dump(), "prompts": captions,
                    "ways": [asdict(way) for way in chosen], "versions": versions()})
    )  # fmt: skip
    kept, records = resumed(lines, header)
    thresholds = kept.get("thresholds", {})
    if len(asked(records, chosen, captions)) < len(chosen) * len(captions):
        bench = Bench(model, run, importance, load)
        bench.tune(chosen, captions[0], progress)
        # An interrupted measurement goes on with the thresholds that it began with.
        bench.thresholds |= thresholds
        thresholds = bench.thresholds
        first = header | {"thresholds": thresholds}
        measure_videos(lines, first, records, chosen, captions, bench.video, progress)
    result = {**header, "thresholds": thresholds, "table": table(asked(records, chosen, captions), chosen)}
    write_bytes(out, (json.dumps(result, indent=1) + "\n").encode())
    return result


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="demo")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--prompts", type=Path, default=HELD_OUT)
    parser.add_argument("--count", type=int, help="how many prompts; default: all")
    parser.add_argument("--run", help="a run of the model, for block importance; the demo has one")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--dry-run", action="store_true", help="print the ways and how many videos they are")
    given = parser.parse_args()
    try:
        if given.dry_run:
            ways, captions = all_ways(), read_prompts(given.prompts)[: given.count]
            print("\n".join(way.name for way in ways))
            print(f"{len(ways)} ways x {len(captions)} prompts = {len(ways) * len(captions)} videos")
            return
        found = measure(
            given.model, given.out, prompts=given.prompts, count=given.count, importance=given.run, steps=given.steps,
            progress=lambda done, total, message="": print(f"{done}/{total} {message}", file=sys.stderr, flush=True),
        )  # fmt: skip
    except InputError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from error
    print(render(found["table"]))


if __name__ == "__main__":
    main()
