"""What choosing the neurons of one block costs: in blocks of matrix products, and one by one, on the same weights.

Weights are random, a few neurons near copies of others, so that some are passed over and visited again. Both ways must
choose the same neurons; the script ends with an error where they do not.
"""

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from measuring import hardware, turns

from pare.errors import InputError
from pare.files import check_output, write_bytes
from pare.geometry import PRESETS
from pare.width.neuron_count import kept_neurons

# (neurons, width) of the demo model's block; the others come from the presets.
SHAPES = {"demo": (640, 160), **{name: (each.geometry.ffn, each.geometry.dim) for name, each in PRESETS.items()}}
DEFAULTS = ("demo", "wan2.1-t2v-1.3b")
COPIES = 0.01


def weights(neurons: int, width: int, device: Any) -> tuple[Any, Any]:
    """W_up [neurons, width] and W_down [width, neurons] in bfloat16, as Wan2.1 is published."""
    import torch

    generator = torch.Generator().manual_seed(0)
    up, down = (torch.randn(neurons, width, generator=generator) for _ in range(2))
    for copy in range(int(neurons * COPIES)):
        noise = 0.01 * copy / (neurons * COPIES)
        up[-1 - copy] = up[copy] + noise * up[-1 - copy]
        down[-1 - copy] = down[copy] + noise * down[-1 - copy]
    return up.to(device, torch.bfloat16), down.T.contiguous().to(device, torch.bfloat16)


def one_by_one(up: Any, down: Any, count: int, tau: float = 0.9) -> Any:
    """Eq. 6 and 7 as they are written: every neuron against all kept ones, one product of a matrix and a vector each."""
    import torch

    signatures = torch.cat([up, down.T], dim=1).double()
    order = torch.argsort(up.double().norm(dim=1) * down.double().norm(dim=0), descending=True, stable=True)
    unit = (signatures / signatures.norm(dim=1, keepdim=True)).float()
    kept = torch.empty(count, unit.shape[1], device=up.device)
    keep, queue, done = torch.zeros(len(up), dtype=torch.bool), order.tolist(), 0
    while done < count:
        skipped = []
        for neuron in queue:
            if done == count:
                break
            if tau < 1 and done and bool((kept[:done] @ unit[neuron] > tau).any()):
                skipped.append(neuron)
            else:
                kept[done] = unit[neuron]
                keep[neuron] = True
                done += 1
        queue, tau = skipped, min(round(tau + 0.02, 10), 1.0)
    return keep.numpy()


def measure(model: str, device: Any, repeats: int, both: bool) -> dict[str, Any]:
    """One row: seconds of each way, their ratio, and what was chosen and passed over."""
    import numpy as np
    import torch

    from pare.width.neurons import diverse

    neurons, width = SHAPES[model]
    count, (up, down) = kept_neurons(neurons, 0.3), weights(neurons, width, device)
    found: dict[str, Any] = {}

    def way(name: str, call: Any) -> turns.Seconds:
        print(f"{model}: {name}", file=sys.stderr)

        def once() -> None:
            found[name] = call()
            if device.type == "cuda":
                torch.cuda.synchronize(device)

        return turns.timed(once)

    ways = {"blocks": lambda: way("blocks", lambda: diverse(up, down, count))}
    if both:
        ways["one by one"] = lambda: way("one by one", lambda: one_by_one(up, down, count))
    times = turns.in_turn(ways, dict.fromkeys(ways, repeats))
    row: dict[str, Any] = {"model": model, "neurons": neurons, "width": width, "kept": count}
    row |= {"device": str(device), "n": repeats}
    row["passes"] = [each._asdict() for each in found["blocks"].passes]
    # On a processor that others use too, the time that this process got is the one to trust.
    clock = row["clock"] = "passed" if device.type == "cuda" else "processor"
    row["seconds"] = {
        name: turns.Quartiles.of([getattr(each, clock) for each in own]).median for name, own in times.items()
    }
    if both:
        row["over"] = turns.over(times["one by one"], times["blocks"], clock).median
        row["same"] = bool(np.array_equal(found["blocks"].keep, found["one by one"]))
    return row


def line(row: dict[str, Any]) -> str:
    """One line of a Markdown table."""
    over = f"{row['over']:.1f}" if "over" in row else "–"
    slow = f"{row['seconds']['one by one']:.3g}" if "over" in row else "not run"
    cells = [
        row["model"],
        f"{row['neurons']:,} x {2 * row['width']:,}",
        f"{row['kept']:,}",
        f"{row['passes'][0]['skipped']:,}",
        row["device"],
        f"{row['seconds']['blocks']:.3g}",
        slow,
        over,
    ]
    return "| " + " | ".join(cells) + " |"


HEAD = "| model | neurons x signature | kept | passed over | device | seconds in blocks | seconds one by one | ratio |"


def main(
    preset: Annotated[str | None, typer.Option(help=f"One of {', '.join(SHAPES)}; default: two of them.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda.")] = "cpu",
    threads: Annotated[int, typer.Option(min=1, help="Threads of torch.")] = os.cpu_count() or 1,
    repeats: Annotated[int, typer.Option(min=1, help="Rounds that are counted.")] = 2,
    both: Annotated[bool, typer.Option("--both/--blocks-only", help="Also one by one, which is slow.")] = True,
    out: Annotated[Path, typer.Option(help="The JSON file to write.")] = Path("build/benchmarks/neurons.json"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be run.")] = False,
) -> None:
    """Times the choice of one block's neurons: seconds of processor time, on CUDA seconds that passed."""
    if preset is not None and preset not in SHAPES:
        raise InputError("--preset", got=preset, expected=f"one of {', '.join(SHAPES)}", fix="--preset demo")
    check_output(out)
    chosen = DEFAULTS if preset is None else (preset,)
    if dry_run:
        for name in chosen:
            neurons, width = SHAPES[name]
            print(f"{name}: {kept_neurons(neurons, 0.3):,} of {neurons:,} neurons, signatures of {2 * width:,} numbers")
        return
    import torch

    torch.set_num_threads(threads)
    where = torch.device(device)
    machine = hardware.describe(where, threads)
    print(hardware.line(machine) + "\n\n" + HEAD + "\n|" + "---|" * 8)
    rows = []
    for name in chosen:
        rows.append(measure(name, where, repeats, both))
        print(line(rows[-1]), flush=True)
    command = " ".join(["python", "benchmarks/neurons.py", *sys.argv[1:]])
    write_bytes(out, (json.dumps({"command": command, "hardware": machine, "rows": rows}, indent=1) + "\n").encode())
    if any(not row.get("same", True) for row in rows):
        raise SystemExit("the two ways chose other neurons")


if __name__ == "__main__":
    try:
        typer.run(main)
    except InputError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from error
