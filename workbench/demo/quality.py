"""Measuring several ways to run the demo model on the same prompts and seeds: a line per video, a row per way.

A way has a name and the share of operations that it is to execute; the first way is the teacher, all others are compared with it.
One JSON line per finished video stands in a file, so that a killed measurement goes on where it stopped.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from analysis.paired import mean_over_prompts, paired_difference
from pare.errors import InputError
from pare.files import write_bytes
from pare.progress import Progress, silent
from workbench.demo.evaluate import judge
from workbench.demo.settings import DATA

ORACLE = ("digit", "colour", "direction", "speed")
COLUMNS = ("digit", "direction", "speed", "flow_magnitude", "psnr", "ssim")
Record = dict[str, Any]


class Way(Protocol):
    """One way to run the model."""

    @property
    def name(self) -> str:
        """For tables, and what its lines are found by."""

    @property
    def share(self) -> float:
        """The share of operations that it is to execute."""


W = TypeVar("W", bound=Way)


def measure_videos(
    lines: Path,
    header: Record,
    records: list[Record],
    ways: Sequence[W],
    captions: Sequence[str],
    video: Callable[[W, str, int], Record],
    progress: Progress = silent,
) -> None:
    """Make, score and append to `lines` and `records` every video that is not among the records: prompt i with seed i.

    `video(way, prompt, seed)` gives frames uint8, the share executed and the seconds; `header` becomes the first line.
    """
    from analysis.metrics.moving_digits_factors import parse_caption
    from analysis.metrics.video import measure as motion
    from analysis.metrics.video import measure_pair, summary

    done = {(record["way"], record["seed"]) for record in records}
    write_bytes(lines, "".join(json.dumps(line) + "\n" for line in [header, *records]).encode())
    for seed, prompt in enumerate(captions):
        if all((way.name, seed) in done for way in ways):
            continue
        teacher = video(ways[0], prompt, seed)
        own = motion(teacher["frames"])
        for number, way in enumerate(ways):
            if (way.name, seed) in done:
                continue
            made = video(way, prompt, seed) if number else teacher
            seen = motion(made["frames"])
            pair = summary(measure_pair(teacher["frames"], made["frames"], own, seen)) if number else {}
            score = judge(made["frames"], parse_caption(prompt), DATA)["score"]
            record = {"way": way.name, "seed": seed, "prompt": prompt, "share": made["share"],
                      "seconds": made["seconds"], "processor_seconds": made["processor_seconds"],
                      "score": score, "motion": seen.summary, "to_teacher": pair}  # fmt: skip
            _append(lines, record)
            records.append(record)
            progress(seed * len(ways) + number + 1, len(captions) * len(ways), f"{way.name}: {prompt}")


def table(records: Sequence[Record], ways: Sequence[Way]) -> list[Record]:
    """One row per way: executed share, seconds over the teacher's, oracle scores and motion less the teacher's, PSNR, SSIM.

    Differences are paired over prompts, with 95 % bootstrap intervals and n.
    """
    by_way: dict[str, dict[int, Record]] = {}
    for record in records:
        by_way.setdefault(record["way"], {})[record["seed"]] = record
    teacher = by_way.get(ways[0].name, {})
    rows = []
    for way in ways:
        own = by_way.get(way.name, {})
        seeds = sorted(set(own) & set(teacher))
        if not seeds:
            continue

        def column(found: Mapping[int, Record], *path: str, seeds: list[int] = seeds) -> list[float]:
            values = []
            for seed in seeds:
                value: Any = found[seed]
                for key in path:
                    value = value.get(key) if isinstance(value, Mapping) else None
                values.append(float("nan") if value is None else float(value))
            return values

        row: Record = {"way": way.name, "n": len(seeds), "asked": way.share}
        row["share"] = float(np.mean(column(own, "share")))
        for clock in ("seconds", "processor_seconds"):
            row[clock] = float(np.median(column(own, clock)))
            ratios = np.array(column(own, clock)) / np.array(column(teacher, clock))
            row[f"{clock}_over_teacher"] = asdict(mean_over_prompts(ratios))
        for group, names in (("score", ORACLE), ("motion", ("flow_magnitude", "still_share", "warp_error"))):
            row |= {
                name: asdict(paired_difference(column(teacher, group, name), column(own, group, name)))
                for name in names
            }
        if way is not ways[0]:
            row |= {name: asdict(mean_over_prompts(column(own, "to_teacher", name))) for name in ("psnr", "ssim")}
        rows.append(row)
    return rows


def render(rows: Sequence[Record], columns: Sequence[str] = COLUMNS) -> str:
    """The table as Markdown: means, and in brackets the interval of the difference to the teacher, or of the mean."""
    names = ["way", "n", "share run", "time", *(each.replace("_", " ") for each in columns)]
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    for row in rows:
        cells = [
            row["way"],
            str(row["n"]),
            f"{row['share']:.3f}",
            f"{row['processor_seconds_over_teacher']['mean']:.2f}",
        ]
        for name in columns:
            found = row.get(name)
            if found is None or found["n"] == 0:
                cells.append("–")
            elif "difference" in found:
                spread = f" [{found['low']:+.3f}, {found['high']:+.3f}]" if row is not rows[0] else ""
                cells.append(f"{found['mean_b']:.3f}{spread}")
            else:
                cells.append(f"{found['mean']:.3f} [{found['low']:.3f}, {found['high']:.3f}]")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def asked(records: Sequence[Record], ways: Sequence[Way], captions: Sequence[str]) -> list[Record]:
    """The records of these ways and prompts, among all that a file holds."""
    names = {way.name for way in ways}
    return [record for record in records if record["way"] in names and record["seed"] < len(captions)]


def resumed(lines: Path, header: Record) -> tuple[Record, list[Record]]:
    """What an earlier start added to its header, and its records; a line cut off by a kill is dropped.

    More or fewer prompts, or other ways, than at that start are the same measurement. Raises `InputError` where the file
    was begun with another header.
    """
    if not lines.is_file():
        return {}, []
    found = []
    for line in lines.read_text().splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            break
    if not found:
        return {}, []
    first, records = found[0], found[1:]
    count = min(len(first.get("prompts", [])), len(header["prompts"]))
    if _comparable(first, header, count) != _comparable(header, header, count):
        raise InputError(
            str(lines),
            got="a measurement of another model, other settings or prompts",
            expected="one that this command began",
            fix="remove it, or name another --out",
        )
    return {name: value for name, value in first.items() if name not in header}, records


def _comparable(first: Mapping[str, Any], header: Record, prompts: int) -> Record:
    compared = {name: first.get(name) for name in header if name != "ways"}
    return compared | {"prompts": first.get("prompts", [])[:prompts]}


def _append(lines: Path, record: Record) -> None:
    with lines.open("a") as file:
        file.write(json.dumps(record) + "\n")
        file.flush()
        os.fsync(file.fileno())
