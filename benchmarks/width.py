"""What a width-pruned step costs: forwards of a pruned Wan transformer over those of the dense one, side by side in one run.

The dense model and one pruned to every ratio, in turn; beside the ratio of their times stands the ratio of their
operations, which is what pruning can save at most. Weights are random, the widths those that `pare mask --ratio` gives.
"""

import dataclasses
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from measuring import hardware, memory, turns
from measuring.shapes import Case, build, cases
from measuring.tables import head, interval, shape_cells

from pare.cost import flops, outside_flops, parameters
from pare.errors import InputError
from pare.files import check_output, write_bytes
from pare.geometry import latent_frames
from pare.student import QUERY_KEY_NORMS, pack
from pare.width.budget import Ratios

# model, blocks, height, width, frames: about four minutes on two cores.
DEFAULT_CASES = (
    ("demo", 8, 48, 48, 17),
    ("demo", 2, 160, 160, 41),
    ("wan2.1-t2v-1.3b", 2, 256, 256, 17),
)
DENSE = "dense"


@dataclasses.dataclass(frozen=True)
class Student:
    """One pruned model: its ratio p, what every block keeps, and what that is to `pare.cost` and to the model's config."""

    ratio: float
    counts: Mapping[str, int]
    whole_query_key: bool = False

    @classmethod
    def of(cls, case: Case, ratio: float, qk_norm: str) -> "Student":
        """The paper's uniform counts at a ratio."""
        counts = dataclasses.asdict(Ratios(ratio=ratio).counts(case.geometry))
        return cls(ratio, counts, whole_query_key=qk_norm == "exact")

    def config(self, case: Case, qk_norm: str) -> dict[str, Any]:
        """The entries of the pruned model's config; which heads and neurons stay makes no difference to its speed."""
        blocks, geometry = case.geometry.blocks, case.geometry
        entries: dict[str, Any] = {part: [count] * blocks for part, count in self.counts.items()}
        for part in ("self_heads", "cross_heads"):
            entries[f"kept_{part}"] = [list(range(self.counts[part]))] * blocks
        neurons = [number < self.counts["neurons"] for number in range(geometry.ffn)]
        entries["kept_neurons"] = [_packed(neurons)] * blocks
        return entries | {"qk_norm_mode": qk_norm}


def _packed(row: list[bool]) -> str:
    import numpy as np

    return pack(np.array(row))


def operations(case: Case, student: Student | None) -> float:
    """Operations of one forward, those outside of the blocks too."""
    kept = {} if student is None else dict(student.counts) | {"whole_query_key": student.whole_query_key}
    return flops(case.geometry, case.clip, **kept).total + outside_flops(case.geometry, case.clip)


def stored(case: Case, student: Student | None) -> int:
    """Parameters of the model."""
    kept = {} if student is None else dict(student.counts) | {"whole_query_key": student.whole_query_key}
    return parameters(case.geometry, **kept).total


def measure(
    case: Case, ratios: list[float], qk_norm: str, device: Any, dtype: Any, repeats: int
) -> list[dict[str, Any]]:
    """One row for the dense model and one per ratio: seconds, time over dense in every round, peak memory."""
    import torch

    from analysis.checks import random_inputs

    frames = latent_frames(case.geometry, case.clip.frames)
    height, width = case.clip.height // case.geometry.vae_spatial, case.clip.width // case.geometry.vae_spatial
    students = {DENSE: None} | {f"p = {ratio:g}": Student.of(case, ratio, qk_norm) for ratio in ratios}
    models = {
        name: build(case.geometry, device, dtype, None if each is None else each.config(case, qk_norm))
        for name, each in students.items()
    }
    for name, each in students.items():
        counted = sum(parameter.numel() for parameter in models[name].parameters())
        assert counted == stored(case, each), f"{name}: {counted} parameters, {stored(case, each)} predicted"
    inputs = random_inputs(models[DENSE], case.geometry, (frames, height, width), device)

    def forward(name: str) -> Any:
        with torch.no_grad(), models[name].cache_context("cond"):
            output = models[name](**inputs)[0]
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return output

    ways = {name: lambda name=name: turns.timed(lambda: forward(name)) for name in models}
    times = turns.in_turn(ways, dict.fromkeys(models, repeats))
    peaks = {name: memory.peak_bytes(lambda name=name: forward(name), device) for name in models}
    rows = []
    for name, each in students.items():
        own, work = times[name], operations(case, each) / operations(case, None)
        processor = turns.over(own, times[DENSE], "processor")
        passed = turns.over(own, times[DENSE], "passed")
        rows.append(
            {
                "model": case.model,
                "blocks": case.geometry.blocks,
                "height": case.clip.height,
                "width": case.clip.width,
                "frames": case.clip.frames,
                "tokens": case.tokens,
                "device": str(device),
                "dtype": str(dtype).removeprefix("torch."),
                "way": name,
                "qk_norm": qk_norm,
                "counts": None if each is None else dict(each.counts),
                "n": len(own),
                "seconds": dataclasses.asdict(turns.Quartiles.of([one.passed for one in own])),
                "time": dataclasses.asdict(passed),
                "processor_time": dataclasses.asdict(processor),
                "parameters": stored(case, each),
                "operations": operations(case, each),
                "operations_over_dense": work,
                "time_over_operations": passed.median / work,
                "processor_time_over_operations": processor.median / work,
                "peak_bytes": peaks[name],
                "memory": peaks[name] / peaks[DENSE],
            }
        )
    return rows


COLUMNS = (
    "model",
    "clip",
    "tokens",
    "forward",
    "parameters",
    "n",
    "seconds",
    "operations over dense",
    "time over dense",
    "processor time over dense",
    "time over operations",
    "peak memory over dense",
)


def body(rows: list[dict[str, Any]]) -> str:
    """The rows as lines of a Markdown table: medians, with the quartiles in brackets."""
    lines = []
    for row in rows:
        on_cpu = row["device"] == "cpu"
        cells = [
            *shape_cells(row),
            f"{row['parameters']:,}",
            str(row["n"]),
            f"{row['seconds']['median']:.3g}",
            f"{row['operations_over_dense']:.3f}",
            interval(row["time"]),
            interval(row["processor_time"]),
            # A shared processor's own time is the steadier clock; a GPU's work is in neither but the first.
            f"{row['processor_time_over_operations' if on_cpu else 'time_over_operations']:.3f}",
            f"{row['memory']:.2f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def planned(case: Case, ratios: list[float], qk_norm: str) -> str:
    """One line per model of what a case computes."""
    lines = []
    for student in (None, *(Student.of(case, ratio, qk_norm) for ratio in ratios)):
        work = operations(case, student)
        kept = "" if student is None else ", ".join(f"{count} {part}" for part, count in student.counts.items())
        lines.append(
            f"{case.model}, {case.geometry.blocks} blocks, {case.tokens:,} tokens: "
            + (DENSE if student is None else f"p = {student.ratio:g} ({kept})")
            + f", {stored(case, student):,} parameters, {work / 1e12:.3g} TFLOP, {work / operations(case, None):.3f} of dense"
        )
    return "\n".join(lines)


def main(
    preset: Annotated[str | None, typer.Option(help="One model: demo or a preset. Default: several shapes.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 or auto.")] = "cpu",
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    blocks: Annotated[int | None, typer.Option(help="Blocks of the model; a few are enough for a ratio.")] = None,
    clip: Annotated[tuple[int, int, int] | None, typer.Option(help="Height, width and video frames.")] = None,
    ratio: Annotated[list[float] | None, typer.Option(help="Pruning ratio p; may be given again.")] = None,
    qk_norm: Annotated[str, typer.Option(help="none (fold costs the same) or exact.")] = "none",
    threads: Annotated[int | None, typer.Option(help="Threads of torch; default: torch's own choice.")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Rounds that are counted.")] = 5,
    out: Annotated[Path, typer.Option(help="The JSON file to write.")] = Path("build/benchmarks/width.json"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be measured.")] = False,
) -> None:
    """Forwards of a Wan transformer, dense and pruned to several ratios, in turn: time and memory over the dense one."""
    try:
        ratios = ratio or [0.1, 0.3, 0.5, 0.7]
        if qk_norm not in QUERY_KEY_NORMS:
            raise InputError(
                "--qk-norm", got=qk_norm, expected=f"one of {', '.join(QUERY_KEY_NORMS)}", fix="--qk-norm none"
            )
        chosen = cases(preset, blocks, clip, DEFAULT_CASES)
        plan = "\n".join(planned(case, ratios, qk_norm) for case in chosen)
        if dry_run:
            print(plan)
            return
        check_output(out)
        import torch

        from pare.models import check_device, check_dtype

        where = check_device(device)
        precision = check_dtype(dtype, where)
        if threads is not None:
            torch.set_num_threads(threads)
        machine = hardware.describe(where, torch.get_num_threads())
        print(hardware.line(machine), head(COLUMNS), sep="\n\n", flush=True)
        rows = []
        for case in chosen:
            found = measure(case, ratios, qk_norm, where, precision, repeats)
            print(body(found), flush=True)
            rows += found
    except InputError as error:
        print(error, file=sys.stderr)
        raise typer.Exit(2) from error
    command = " ".join(["python", "benchmarks/width.py", *sys.argv[1:]])
    content = {"command": command, "hardware": machine, "rows": rows}
    write_bytes(out, (json.dumps(content, indent=1) + "\n").encode())


if __name__ == "__main__":
    typer.run(main)
