"""What pruning on disk needs: a sharded folder cut block by block by a process whose memory is capped.

A folder of random weights at a real shape is written, then a process of its own prunes it with an operating-system
limit on the memory that it may allocate, and reports its time and the most it really held. Beside it, with
`--in-memory`, the same cut of the whole model in memory, without a limit.
"""

import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from measuring import hardware
from measuring.shapes import geometries

from pare.cost import parameters
from pare.errors import InputError
from pare.files import write_bytes
from pare.geometry import Geometry
from pare.width.budget import Ratios

GIB = 2**30
BLOCKS, CAP, SHARD = 10, 3.0, 1.0
WAYS = ("block by block", "in memory")


def write_model(folder: Path, geometry: Geometry) -> int:
    """Write a transformer of random bfloat16 weights as shards of 1 GiB, block by block; returns their bytes."""
    import torch
    from accelerate import init_empty_weights

    from pare.transformer import PareWanTransformer3DModel
    from pare.width.weight_files import ShardWriter

    config = {
        "num_layers": geometry.blocks,
        "num_attention_heads": geometry.heads,
        "attention_head_dim": geometry.head_dim,
        "ffn_dim": geometry.ffn,
        "in_channels": geometry.in_channels,
        "out_channels": geometry.out_channels,
        "text_dim": geometry.text_dim,
        "freq_dim": geometry.freq_dim,
        "image_dim": geometry.image_dim,
        "added_kv_proj_dim": geometry.added_kv_proj_dim,
    }
    with init_empty_weights(include_buffers=False):
        model = PareWanTransformer3DModel(**config)
    model.save_config(folder)
    writer, torch_random = ShardWriter(folder, GIB), torch.Generator().manual_seed(0)
    # Values make no difference to time and memory, so every tensor of one shape is the same.
    drawn: dict[tuple[int, ...], Any] = {}
    for name, tensor in model.state_dict().items():
        shape = tuple(tensor.shape)
        if shape not in drawn:
            drawn[shape] = torch.empty(shape, dtype=torch.bfloat16).normal_(0, 0.02, generator=torch_random)
        writer.add({name: drawn[shape].clone()})
    return writer.finish()


def prune_capped(source: str, out: str, *, ratio: float, cap: float, shard: float, measure: bool) -> dict[str, Any]:
    """What the process under the limit does; the limit is on private memory (`RLIMIT_DATA`), which Linux enforces."""
    import torch

    torch.set_num_threads(1)
    # Set before the work and after the imports, whose memory counts all the same.
    resource.setrlimit(resource.RLIMIT_DATA, (int(cap * GIB), int(cap * GIB)))
    from pare.width.folder import prune_folder
    from pare.width.surgery import plan_cut

    config = json.loads((Path(source) / "config.json").read_text())
    start = time.perf_counter()
    cut = plan_cut(config, _mask(config, ratio), qk_norm="none")
    report = prune_folder(source, out, cut, max_shard_bytes=int(shard * GIB), measure=measure)
    return _result(start, report.parameters, report.weight_bytes)


def prune_whole(source: str, out: str, *, ratio: float, **_: Any) -> dict[str, Any]:
    """The same cut of the whole model in memory."""
    import torch

    torch.set_num_threads(1)
    from pare.transformer import PareWanTransformer3DModel
    from pare.width.surgery import prune

    start = time.perf_counter()
    model = PareWanTransformer3DModel.from_pretrained(source, dtype=torch.bfloat16)
    pruned = prune(model, _mask(model.config, ratio), qk_norm="none")
    pruned.save_pretrained(out, max_shard_size="1GB")
    weights = list(pruned.parameters())
    return _result(start, sum(each.numel() for each in weights), sum(each.nbytes for each in weights))


def _result(start: float, count: int, weight_bytes: int) -> dict[str, Any]:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "seconds": time.perf_counter() - start,
        "processor_seconds": time.process_time(),
        "peak_bytes": peak,
        "parameters": count,
        "written_bytes": weight_bytes,
    }


def _mask(config: Mapping[str, Any], ratio: float) -> Any:
    import numpy as np

    from pare.mask import Mask

    geometry, draw = Geometry.from_config(config), np.random.default_rng(0)
    counts = vars(Ratios(ratio=ratio).counts(geometry))

    def rows(units: int, count: int) -> np.ndarray:
        return np.stack([draw.permutation(np.arange(units) < count) for _ in range(geometry.blocks)])

    heads = (rows(geometry.heads, counts[part]) for part in ("self_heads", "cross_heads"))
    return Mask(*heads, rows(geometry.ffn, counts["neurons"]))


def in_a_process(way: str, source: Path, out: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Run one way in a process of its own, so that its peak is its own; its failure is a result too."""
    function = {"block by block": "prune_capped", "in memory": "prune_whole"}[way]
    code = f"import json, sys, shards; print(json.dumps(shards.{function}(*sys.argv[1:3], **json.loads(sys.argv[3]))))"
    words = [sys.executable, "-c", code, str(source), str(out), json.dumps(dict(settings))]
    done = subprocess.run(words, cwd=Path(__file__).parent, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{way}: {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else done.returncode}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def table(result: Mapping[str, Any]) -> list[str]:
    """The result for people, as Markdown."""
    head = ["model", "way", "memory cap", "peak resident", "read", "written", "seconds", "processor seconds"]
    rows = [
        [
            f"{result['model']}, {result['blocks']} blocks",
            row["way"],
            "none" if row["cap"] is None else f"{row['cap']:.1f} GiB",
            f"{row['peak_bytes'] / GIB:.2f} GiB",
            f"{result['source_bytes'] / GIB:.2f} GiB",
            f"{row['written_bytes'] / GIB:.2f} GiB",
            f"{row['seconds']:.0f}",
            f"{row['processor_seconds']:.0f}",
        ]
        for row in result["rows"]
    ]
    return ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)]


def main(
    preset: Annotated[str, typer.Option(help="The model whose shape it is.")] = "wan2.1-t2v-14b",
    blocks: Annotated[int, typer.Option(help="How many of its blocks.")] = BLOCKS,
    ratio: Annotated[float, typer.Option(help="Share of heads and neurons to remove.")] = 0.3,
    cap: Annotated[float, typer.Option(help="GiB of memory that the pruning process may have.")] = CAP,
    measure: Annotated[bool, typer.Option("--measure/--no-measure", help="Take every block's error too.")] = True,
    in_memory: Annotated[bool, typer.Option("--in-memory", help="Also cut the whole model in memory.")] = False,
    folder: Annotated[str | None, typer.Option(help="Where the weights go while it runs.")] = None,
    out: Annotated[str | None, typer.Option(help="Also write the result here, as JSON.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print sizes, run nothing.")] = False,
) -> None:
    """Prune a sharded folder of random weights under a memory limit, and print time and peak."""
    import dataclasses

    import torch

    known = geometries()
    if preset not in known:
        raise InputError("--preset", got=preset, expected=f"one of {', '.join(known)}", fix="--preset demo")
    if not 1 <= blocks <= known[preset].blocks:
        raise InputError("--blocks", got=blocks, expected=f"1 to {known[preset].blocks}", fix=f"--blocks {BLOCKS}")
    geometry = dataclasses.replace(known[preset], blocks=blocks)
    need = 2 * parameters(geometry).total
    free = shutil.disk_usage(folder or tempfile.gettempdir()).free
    print(f"{preset}, {blocks} blocks: {need / GIB:.2f} GiB of bfloat16 weights, {free / GIB:.0f} GiB free")
    if dry_run:
        return
    # The dense model, and up to two students beside it.
    if 3 * need > free:
        raise InputError(
            "disk", got=f"{free / GIB:.1f} GiB", expected=f"{3 * need / GIB:.1f} GiB", fix="fewer --blocks"
        )
    about = hardware.describe(torch.device("cpu"), 1)
    print(hardware.line(about), flush=True)
    rows = []
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        source = Path(temporary) / "source"
        source.mkdir()
        source_bytes = write_model(source, geometry)
        for way in WAYS[: 2 if in_memory else 1]:
            target = Path(temporary) / way.replace(" ", "-")
            target.mkdir()
            settings = {"ratio": ratio, "cap": cap, "shard": SHARD, "measure": measure}
            found = in_a_process(way, source, target, settings)
            rows.append({"way": way, "cap": cap if way == WAYS[0] else None, **found})
            shutil.rmtree(target)
    result = {"model": preset, "blocks": blocks, "source_bytes": source_bytes, "hardware": about, "rows": rows}
    print("\n".join(["", *table(result)]))
    if out is not None:
        write_bytes(out, (json.dumps(result, indent=2) + "\n").encode())


if __name__ == "__main__":
    try:
        typer.run(main)
    except InputError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
