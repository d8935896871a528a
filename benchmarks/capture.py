"""What a capture costs: forwards of a Wan transformer with and without it, side by side in one run.

Four ways, in turn: a plain forward; one with the exact intra-slice ratios of all heads; one with everything that is
cheap to measure (`CaptureSpec()`, frame maps and moments included); and, where it fits into memory, one whose softmax
is written out, tokens x tokens, which is how ratios are had without a log-sum-exp.

Weights are random: time and memory do not depend on their values. A few blocks of a real shape are enough for a ratio,
since every block costs the same with and without capture and almost nothing lies outside of the blocks.
"""

import dataclasses
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer
from measuring import hardware, memory, turns
from measuring.shapes import Case, build, cases, free_bytes
from measuring.tables import head, interval, shape_cells

from pare.cost import flops, parameters
from pare.errors import InputError
from pare.geometry import latent_frames

SHARE_OF_FREE_MEMORY = 0.5
# Written out, the softmax is slow, and its ratio to the others is not a close one.
MOST_WRITTEN_OUT = 2


# model, blocks, height, width, frames: about five minutes on two cores.
DEFAULT_CASES = (
    ("demo", 8, 48, 48, 17),
    ("demo", 2, 144, 144, 17),
    ("demo", 2, 160, 160, 41),
    ("wan2.1-t2v-1.3b", 2, 256, 256, 17),
    ("wan2.1-t2v-1.3b", 1, 320, 320, 81),
)


@contextmanager
def written_out(transformer: Any, num_frames: int) -> Iterator[list[Any]]:
    """Self-attention with its softmax written out, tokens x tokens; yields the ratios [heads] of every block that ran."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention
    from torch.overrides import TorchFunctionMode

    ratios: list[Any] = []
    inside: list[bool] = []

    class WrittenOut(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func is not scaled_dot_product_attention or not inside:
                return func(*args, **(kwargs or {}))
            given = dict(zip(("query", "key", "value"), args, strict=False)) | (kwargs or {})
            query, key, value = (given[name] for name in ("query", "key", "value"))
            weights = torch.softmax(query * query.shape[-1] ** -0.5 @ key.mT, dim=-1)
            length = query.shape[2] // num_frames
            own = [
                weights[:, :, part : part + length, part : part + length].sum(dim=(2, 3), dtype=torch.float32)
                for part in range(0, query.shape[2], length)
            ]
            ratios.append(torch.stack(own).sum(dim=0)[0] / query.shape[2])
            return weights @ value

    hooks = []
    for block in transformer.blocks:
        hooks.append(block.attn1.register_forward_pre_hook(lambda *_: inside.append(True)))
        hooks.append(block.attn1.register_forward_hook(lambda *_: inside.clear(), always_call=True))
    try:
        with WrittenOut():
            yield ratios
    finally:
        for hook in hooks:
            hook.remove()


def measure(case: Case, device: Any, dtype: Any, repeats: int, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """One row per way: seconds, the time over a plain forward in every round, peak memory, and the ratios seen."""
    import numpy as np
    import torch

    from analysis.capture import CaptureSpec, capture
    from analysis.checks import random_inputs

    frames = latent_frames(case.geometry, case.clip.frames)
    height, width = case.clip.height // case.geometry.vae_spatial, case.clip.width // case.geometry.vae_spatial
    transformer = build(case.geometry, device, dtype)
    inputs = random_inputs(transformer, case.geometry, (frames, height, width), device)
    specs = {"exact ratios": CaptureSpec(("self/ratio",), moments=False), "everything": CaptureSpec()}
    seen: dict[str, Any] = {}

    def forward() -> Any:
        with torch.no_grad(), transformer.cache_context("cond"):
            output = transformer(**inputs)[0]
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return output

    @contextmanager
    def way(name: str) -> Iterator[None]:
        if name == "softmax written out":
            with written_out(transformer, frames) as ratios:
                yield
            seen[name] = torch.stack(ratios[-case.geometry.blocks :]).float().cpu().numpy()
        elif name == "plain":
            yield
        else:
            with capture(transformer, specs[name]) as recorder:
                yield
            seen[name] = recorder.take()[-1].arrays["self/ratio"]

    def once(name: str) -> turns.Seconds:
        say(f"{case.model}, {case.tokens:,} tokens: {name}")
        with way(name):
            return turns.timed(forward)

    def peak(name: str) -> int:
        say(f"{case.model}, {case.tokens:,} tokens: memory of {name}")
        with way(name):
            return memory.peak_bytes(forward, device)

    names = ["plain", *specs]
    # The logits and their softmax live at the same time.
    need = 2 * case.geometry.heads * case.tokens**2 * dtype.itemsize
    fits = need <= SHARE_OF_FREE_MEMORY * free_bytes(device)
    if fits:
        names.append("softmax written out")
    repeated = {name: min(repeats, MOST_WRITTEN_OUT) if name == "softmax written out" else repeats for name in names}
    times = turns.in_turn({name: lambda name=name: once(name) for name in names}, repeated)
    peaks = {name: peak(name) for name in names}
    exact = seen["exact ratios"]
    rows = []
    for name in names:
        own = times[name]
        row = {
            "n": len(own),
            "seconds": dataclasses.asdict(turns.Quartiles.of([each.passed for each in own])),
            "time": dataclasses.asdict(turns.over(own, times["plain"], "passed")),
            "processor_time": dataclasses.asdict(turns.over(own, times["plain"], "processor")),
            "peak_bytes": peaks[name],
            "memory": peaks[name] / peaks["plain"],
        }
        if name in seen:
            row["ratios"] = {
                "heads": seen[name].size,
                "finite": bool(np.isfinite(seen[name]).all()),
                "smallest": float(seen[name].min()),
                "largest": float(seen[name].max()),
                "off_by": float(np.abs(seen[name] - exact).max()),
            }
        rows.append(described(case, name, device, dtype) | row)
    if not fits:
        rows.append(described(case, "softmax written out", device, dtype) | {"n": 0, "needs_bytes": need})
    return rows


def described(case: Case, way: str, device: Any, dtype: Any) -> dict[str, Any]:
    """What a row is about."""
    return {
        "model": case.model,
        "blocks": case.geometry.blocks,
        "heads": case.geometry.heads,
        "height": case.clip.height,
        "width": case.clip.width,
        "frames": case.clip.frames,
        "latent_frames": latent_frames(case.geometry, case.clip.frames),
        "tokens": case.tokens,
        "device": str(device),
        "dtype": str(dtype).removeprefix("torch."),
        "way": way,
    }


COLUMNS = (
    "model",
    "clip",
    "tokens",
    "forward",
    "n",
    "seconds",
    "time over plain",
    "processor time over plain",
    "peak memory",
    "memory over plain",
)


def body(rows: list[dict[str, Any]]) -> str:
    """The rows as lines of a Markdown table: medians, with the quartiles in brackets."""
    lines = []
    for row in rows:
        cells = [
            *shape_cells(row),
            str(row["n"]),
        ]
        if row["n"]:
            cells += [
                f"{row['seconds']['median']:.3g}",
                interval(row["time"]),
                interval(row["processor_time"]),
                _size(row["peak_bytes"]),
                f"{row['memory']:.2f}",
            ]
        else:
            cells += ["–", f"does not fit: {_size(row['needs_bytes'])}", "–", "–", "–"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _size(count: int) -> str:
    return f"{count / 2**30:,.2f} GiB" if count >= 2**30 else f"{count / 2**20:,.1f} MiB"


def planned(case: Case) -> str:
    """One line of what a case computes."""
    work, weights = flops(case.geometry, case.clip), parameters(case.geometry)
    return (
        f"{case.model}, {case.geometry.blocks} blocks of {case.geometry.heads} heads, {weights.total:,} parameters: "
        f"{case.clip.height} x {case.clip.width} x {case.clip.frames}, {case.tokens:,} tokens, "
        f"{work.total / 1e12:.3g} TFLOP a forward, {work.self_core_share:.0%} of it in self-attention"
    )


def main(
    preset: Annotated[str | None, typer.Option(help="One model: demo or a preset. Default: several shapes.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 or auto.")] = "cpu",
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    blocks: Annotated[int | None, typer.Option(help="Blocks of the model; a few are enough for a ratio.")] = None,
    clip: Annotated[tuple[int, int, int] | None, typer.Option(help="Height, width and video frames.")] = None,
    threads: Annotated[int | None, typer.Option(help="Threads of torch; default: torch's own choice.")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Rounds that are counted.")] = 5,
    out: Annotated[Path, typer.Option(help="The JSON file to write.")] = Path("build/benchmarks/capture.json"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be measured.")] = False,
) -> None:
    """Forwards of a Wan transformer, plain and captured, in turn: time and peak memory over a plain forward."""
    try:
        chosen = cases(preset, blocks, clip, DEFAULT_CASES)
        if dry_run:
            print("\n".join(planned(case) for case in chosen))
            return
        import torch

        from pare.files import write_bytes
        from pare.models import check_device, check_dtype

        where = check_device(device)
        precision = check_dtype(dtype, where)
        if threads is not None:
            torch.set_num_threads(threads)
        machine = hardware.describe(where, torch.get_num_threads())
        print(hardware.line(machine), head(COLUMNS), sep="\n\n", flush=True)
        rows = []
        for case in chosen:
            with _status() as say:
                found = measure(case, where, precision, repeats, say)
            print(body(found), flush=True)
            rows += found
    except InputError as error:
        print(error, file=sys.stderr)
        raise typer.Exit(2) from error
    out.parent.mkdir(parents=True, exist_ok=True)
    command = " ".join(["python", "benchmarks/capture.py", *sys.argv[1:]])
    result = {"command": command, "hardware": machine, "rows": rows}
    write_bytes(out, (json.dumps(result, indent=1) + "\n").encode())


@contextmanager
def _status() -> Iterator[Callable[[str], None]]:
    """Says on standard error what is being measured, where somebody looks."""
    if not sys.stderr.isatty():
        with nullcontext():
            yield lambda message: None
        return
    from rich.console import Console

    with Console(stderr=True).status("building the model") as status:
        yield status.update


if __name__ == "__main__":
    typer.run(main)
