"""Seconds of a video for every row, measured in turn on an idle machine: one video of each, then the next round."""

import json
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from analysis.paired import mean_over_prompts
from pare.files import write_bytes
from pare.geometry import read_json
from pare.progress import Progress, silent
from workbench.demo.results.measured import SECONDS
from workbench.demo.results.rows import TEACHER, Row
from workbench.demo.results.work import Bench
from workbench.settings import RunSettings

ROUNDS = 7


def has_seconds(bench: Bench, rows: Sequence[Row]) -> bool:
    """Whether these rows are timed; nothing is timed of the teacher alone."""
    path = bench.folder / SECONDS
    timed = set(read_json(path)["rows"]) if path.is_file() else {TEACHER}
    return timed >= {row.key for row in rows}


def measure_seconds(
    bench: Bench, rows: Sequence[Row], *, rounds: int = ROUNDS, progress: Progress = silent
) -> dict[str, Any]:
    """Generate a video with every row's first student in turn, `rounds` times after a first that does not count.

    Round i is prompt i with seed i. The median of each, and its ratio to the teacher's of the same round, the mean with its
    95 % interval over rounds; written into the folder of results, beside rows that were timed before and are not now. Like
    machines alone can be compared, so every row names its own.
    """
    import torch

    from analysis.generation import generate
    from pare.models import load_pipeline, set_flow_shift

    pipes = {}
    for row in rows:
        model = bench.model if row.key == TEACHER else str(bench.student(row.name(0)))
        few = any(stage.name == "steps" for stage in row.stages)
        run = RunSettings.of(**({} if few else bench.settings), device="cpu").filled(model)
        pipes[row.key] = load_pipeline(model, **run.loading), run
        set_flow_shift(pipes[row.key][0], run.shift or 1.0)
    taken: dict[str, list[float]] = {key: [] for key in pipes}
    for number in range(rounds + 1):
        prompt = bench.prompts[number % len(bench.prompts)]
        for key, (pipe, run) in pipes.items():
            start = time.perf_counter()
            with torch.no_grad():
                generate(
                    pipe, prompt, run.model_dump(), torch.Generator("cpu").manual_seed(number), "np", lambda _: None
                )
            if number:
                taken[key].append(time.perf_counter() - start)
        progress(number + 1, rounds + 1, "seconds of a video")
    teacher = np.array(taken[TEACHER])
    machine = f"{processor()}, {torch.get_num_threads()} threads"
    path = bench.folder / SECONDS
    before = read_json(path)["rows"] if path.is_file() else {}
    now = {
        key: {
            "median": float(np.median(values)),
            "over_teacher": asdict(mean_over_prompts(np.array(values) / teacher)),
            "rounds": rounds,
            "machine": machine,
        }
        for key, values in taken.items()
    }
    result = {"rows": before | now}
    write_bytes(path, (json.dumps(result, indent=1) + "\n").encode())
    return result


def processor() -> str:
    """The processor's own name and how many cores there are."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = (each.partition(":")[2].strip() for each in lines if each.startswith("model name"))
    return f"{next(names, platform.machine())}, {os.cpu_count()} cores"
