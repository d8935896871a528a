"""What routing saves and costs: K of N blocks against N of N, the router's decision, and batches whose routes differ.

All ways are taken in turn in one run: a dense forward; forwards of K of N blocks; the decision of a learned router
alone; a batch whose samples all run the same K blocks, and one whose samples each run their own K. Weights are random,
since time does not depend on their values. From the forwards it makes a cost table (`--costs`), by which a budget can be
asked for in seconds. `--model` measures a real model instead, whose table then includes text encoder and decoding.
"""

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from measuring import hardware, turns
from measuring.shapes import Case, build, cases

from pare.cost import flops
from pare.depth.costs import CostTable
from pare.errors import InputError
from pare.geometry import Clip, Geometry, latent_frames

# model, blocks, height, width, frames: a minute on two idle cores.
DEFAULT_CASES = (("demo", 8, 48, 48, 17), ("wan2.1-t2v-1.3b", 6, 128, 128, 17))
TIMESTEP, BATCH = 700.0, 2


@dataclasses.dataclass(frozen=True)
class Ways:
    """One transformer and its inputs, run in different ways; every call waits for the device."""

    transformer: Any
    geometry: Geometry
    clip: Clip
    device: Any
    dtype: Any

    def inputs(self, batch: int) -> dict[str, Any]:
        """Noise of the right shape; text as long as the model takes."""
        import torch

        g, spatial = self.geometry, self.geometry.vae_spatial
        frames = latent_frames(g, self.clip.frames)
        like = {"device": self.device, "dtype": self.dtype}
        generator = torch.Generator(self.device).manual_seed(0)
        shape = (batch, g.in_channels, frames, self.clip.height // spatial, self.clip.width // spatial)
        values = {
            "hidden_states": torch.randn(shape, generator=generator, **like),
            "timestep": torch.full((batch,), TIMESTEP, device=self.device),
            "encoder_hidden_states": torch.randn(batch, g.text_tokens, g.text_dim, generator=generator, **like),
        }
        if g.image_dim is not None:
            image = (batch, g.image_tokens, g.image_dim)
            values["encoder_hidden_states_image"] = torch.randn(image, generator=generator, **like)
        return values

    def forward(self, values: dict[str, Any], config: Any = None) -> Callable[[], turns.Seconds]:
        """One forward, routed as the config says; None runs every block without a router."""
        import torch

        def call() -> None:
            with torch.no_grad():
                self.transformer(**values)
            self.wait()

        def measure() -> turns.Seconds:
            with self.transformer.routed(config):
                return turns.timed(call)

        return measure

    def decision(self, values: dict[str, Any], routing: Any) -> Callable[[], turns.Seconds]:
        """One decision of a step, without a forward."""
        import torch

        image = values.get("encoder_hidden_states_image")
        token = None if image is None else image[:, 0]

        def call() -> None:
            with torch.no_grad():
                routing.decide(values["timestep"], values["hidden_states"], token)
            self.wait()

        return lambda: turns.timed(call)

    def wait(self) -> None:
        """Until the device is done."""
        import torch

        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


class OwnRoutes:
    """Other random scores for every sample of a batch: routes that differ as much as they can."""

    on_host, name = True, "own routes"

    def __init__(self, blocks: int):
        self.blocks = blocks

    def __call__(self, timestep: Any, latents: Any, image: Any = None) -> Any:
        import torch

        rows = [np.random.default_rng(sample).random(self.blocks) for sample in range(len(timestep))]
        return torch.from_numpy(np.stack(rows))


def counts(blocks: int, given: str | None) -> list[int]:
    """The K to measure: those given, or a quarter, a half, three quarters and all of N, at least two.

    >>> counts(8, None), counts(8, "3,8")
    ([2, 4, 6, 8], [3, 8])
    """
    words = [] if given is None else given.split(",")
    if any(not word.strip().isdecimal() or not min(2, blocks) <= int(word) <= blocks for word in words):
        raise InputError(
            "--counts", got=given, expected=f"numbers from 2 to {blocks} with commas between", fix="drop it"
        )
    quarters = [max(min(2, blocks), round(blocks * part / 4)) for part in (1, 2, 3, 4)]
    return sorted({int(word) for word in words} if words else set(quarters))


def measure(ways: Ways, ks: list[int], batch: int, repeats: int) -> dict[str, Any]:
    """All rows of one shape, and its cost table less what a video costs once."""
    from pare.depth.budget import BudgetSchedule
    from pare.depth.learned import LearnedRouter
    from pare.depth.routers import RandomRouter
    from pare.depth.routing import Routing, RoutingConfig

    g = ways.geometry
    one, many = ways.inputs(1), ways.inputs(batch)
    content = {"content": "image", "content_width": g.image_dim} if g.image_dim else {"channels": g.out_channels}
    learned = LearnedRouter(g.blocks, **content).to(ways.device)
    half = BudgetSchedule.constant(ks[len(ks) // 2 - 1] if len(ks) > 1 else ks[0])
    runs = {"dense": ways.forward(one)}
    for k in ks:
        runs[f"{k} of {g.blocks} blocks"] = ways.forward(
            one, RoutingConfig(RandomRouter(g.blocks), BudgetSchedule.constant(k))
        )
    runs["router decision"] = ways.decision(one, Routing(learned, half, g.blocks))
    batched = f"batch of {batch}, {int(half.k_min)} blocks"
    runs[f"{batched}, one route"] = ways.forward(many, RoutingConfig(RandomRouter(g.blocks), half))
    runs[f"{batched}, a route each"] = ways.forward(many, RoutingConfig(OwnRoutes(g.blocks), half))
    times = turns.in_turn(runs, dict.fromkeys(runs, repeats))
    rows = []
    for name, own in times.items():
        base = times[f"{batched}, one route"] if name.startswith("batch") else times["dense"]
        row = {"way": name, "n": len(own)}
        row["seconds"] = dataclasses.asdict(turns.Quartiles.of([each.passed for each in own]))
        for clock in ("passed", "processor"):
            row[clock] = dataclasses.asdict(turns.over(own, base, clock))
        rows.append(row)
    for row, k in zip(rows[1:], ks, strict=False):
        row["share"] = k / g.blocks
        row["off_by"] = {clock: row[clock]["median"] / row["share"] - 1 for clock in ("passed", "processor")}
    # Two branches of guidance run a step, and one decision is made for both.
    rows[1 + len(ks)]["share_of_step"] = rows[1 + len(ks)]["passed"]["median"] / 2
    return {"rows": rows, "costs": costs_of(rows, ks, g.blocks)}


def costs_of(rows: list[dict[str, Any]], ks: list[int], blocks: int) -> dict[str, float]:
    """Seconds of a block and of the rest of a forward: the line through the medians over K; the router's beside it."""
    seconds = [row["seconds"]["median"] for row in rows[1 : 1 + len(ks)]]
    if len(ks) > 1:
        block, rest = np.polyfit(ks, seconds, 1)
    else:
        block, rest = seconds[0] / ks[0], 0.0
    router = rows[1 + len(ks)]["seconds"]["median"]
    return {"blocks": blocks, "block": max(float(block), 1e-12), "forward": max(float(rest), 0.0), "step": router}


def once_per_video(ways: Ways, pipe: Any, settings: dict[str, Any]) -> float:
    """Seconds of text encoder, sampler and decoding: one step of the pipeline less one forward."""
    import torch

    def generate() -> None:
        pipe(
            prompt="a red 7", height=ways.clip.height, width=ways.clip.width, num_frames=ways.clip.frames,
            num_inference_steps=1, guidance_scale=1.0, generator=torch.Generator().manual_seed(0), output_type="np",
            **settings,
        )  # fmt: skip
        ways.wait()

    with ways.transformer.routed(None):
        runs = {"video": lambda: turns.timed(generate), "forward": ways.forward(ways.inputs(1))}
        times = turns.in_turn(runs, dict.fromkeys(runs, 3))
    medians = {name: turns.Quartiles.of([each.passed for each in own]).median for name, own in times.items()}
    return max(0.0, medians["video"] - medians["forward"])


def table(found: dict[str, Any]) -> str:
    """The rows as a Markdown table: medians, quartiles in brackets."""
    lines = ["| forward | n | seconds | time over dense | processor time | against K/N |", "|" + "---|" * 6]
    for row in found["rows"]:
        over = [
            f"{row[c]['median']:.3f} [{row[c]['lower']:.3f}, {row[c]['upper']:.3f}]" for c in ("passed", "processor")
        ]
        last = ""
        if "share" in row:
            off = row["off_by"]
            last = f"{row['share']:.3f}, off by {off['passed']:+.1%}, in processor time {off['processor']:+.1%}"
        if "share_of_step" in row:
            last = f"{row['share_of_step']:.2%} of a step of two dense forwards"
        if row["way"].startswith("batch"):
            over = [f"{each} (over one route)" for each in over]
        cells = [row["way"], str(row["n"]), f"{row['seconds']['median']:.3g}", *over, last]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(
    preset: Annotated[str | None, typer.Option(help="One shape: demo or a preset. Default: two shapes.")] = None,
    model: Annotated[
        str | None, typer.Option(help="A real model in place of a shape: demo, a folder, a hub id.")
    ] = None,
    blocks: Annotated[int | None, typer.Option(help="Blocks of the shape; a share of N is what is measured.")] = None,
    clip: Annotated[tuple[int, int, int] | None, typer.Option(help="Height, width and video frames.")] = None,
    ks: Annotated[str | None, typer.Option("--counts", help="K to measure, with commas between.")] = None,
    batch: Annotated[int, typer.Option(min=2, help="Samples of the batches.")] = BATCH,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 or auto.")] = "cpu",
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    threads: Annotated[int | None, typer.Option(help="Threads of torch; default: torch's own choice.")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Rounds that are counted.")] = 5,
    costs: Annotated[Path | None, typer.Option(help="The cost table to write, for --seconds.")] = None,
    out: Annotated[Path, typer.Option(help="The JSON file to write.")] = Path("build/benchmarks/depth.json"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be measured.")] = False,
) -> None:
    """K of N blocks against N of N over K, the router's cost and what a batch whose routes differ costs, in one run."""
    try:
        chosen = real(model, clip) if model is not None else cases(preset, blocks, clip, DEFAULT_CASES)
        if model is not None and (preset or blocks):
            raise InputError("--model", got="with --preset or --blocks", expected="one of them", fix="drop the others")
        if costs is not None and len(chosen) != 1:
            raise InputError("--costs", got="several shapes", expected="one model", fix="--model demo")
        wanted = [counts(case.geometry.blocks, ks) for case in chosen]
        if dry_run:
            print("\n".join(planned(case, each) for case, each in zip(chosen, wanted, strict=True)))
            return
        import torch

        from pare.files import write_bytes
        from pare.models import check_device, check_dtype, load_pipeline
        from pare.transformer import PareWanTransformer3DModel

        where = check_device(device)
        precision = check_dtype(dtype, where)
        if threads is not None:
            torch.set_num_threads(threads)
        machine = hardware.describe(where, torch.get_num_threads())
        print(hardware.line(machine), flush=True)
        results = []
        for case, each in zip(chosen, wanted, strict=True):
            pipe = None if model is None else load_pipeline(model, device=device, dtype=dtype)
            transformer = PareWanTransformer3DModel.from_stock(
                build(case.geometry, where, precision) if pipe is None else pipe.transformer
            )
            ways = Ways(transformer, case.geometry, case.clip, where, precision)
            found = measure(ways, each, batch, repeats)
            if pipe is not None and not case.geometry.image_to_video:
                found["costs"]["video"] = once_per_video(ways, pipe, {})
            about = described(case, where, precision)
            print(f"\n{planned(case, each)}\n\n{table(found)}", flush=True)
            results.append(about | found)
            if costs is not None:
                CostTable(**found["costs"], about=about | {"hardware": machine}).save(costs)
    except InputError as error:
        print(error, file=sys.stderr)
        raise typer.Exit(2) from error
    out.parent.mkdir(parents=True, exist_ok=True)
    command = " ".join(["python", "benchmarks/depth.py", *sys.argv[1:]])
    result = {"command": command, "hardware": machine, "shapes": results}
    write_bytes(out, (json.dumps(result, indent=1) + "\n").encode())


def real(model: str, clip: tuple[int, int, int] | None) -> list[Case]:
    """A model with all its blocks at its usual clip, or at this one."""
    from pare.geometry import check_clip
    from pare.reference import defaults, model_geometry

    usual = defaults(model)
    if clip is None and not {"height", "width", "frames"} <= set(usual):
        raise InputError("--clip", got="no value", expected="height, width and video frames", fix="--clip 480 832 81")
    size = Clip(*(clip or (usual["height"], usual["width"], usual["frames"])))
    check_clip(model_geometry(model), size)
    return [Case(model, model_geometry(model), size)]


def described(case: Case, device: Any, dtype: Any) -> dict[str, Any]:
    """What was measured."""
    clip = dataclasses.asdict(case.clip)
    return {"model": case.model, **clip, "device": str(device), "dtype": str(dtype).removeprefix("torch.")}


def planned(case: Case, ks: list[int]) -> str:
    """One line of what a case computes."""
    work = flops(case.geometry, case.clip).total
    return (
        f"{case.model}, {case.geometry.blocks} blocks, {case.clip.height} x {case.clip.width} x {case.clip.frames}, "
        f"{case.tokens:,} tokens, {work / 1e12:.3g} TFLOP a dense forward; K = {', '.join(map(str, ks))}"
    )


if __name__ == "__main__":
    typer.run(main)
