"""A small well-formed run of random values, written through the product's own writer."""

from pathlib import Path

import numpy as np

from analysis.manifest import BLOCK_AXES, HEAD_AXES, Manifest, Sample, Statistic
from analysis.run_writer import RunWriter
from analysis.runs import Run
from pare.geometry import Geometry


def make_manifest(
    blocks: int = 8,
    heads: int = 10,
    steps: int = 10,
    samples: int = 6,
    num_frames: int = 9,
    branches: tuple[str, ...] = ("cond",),
) -> Manifest:
    """The manifest of a calibration run of a model that exists nowhere."""
    geometry = Geometry(
        blocks=blocks, heads=heads, head_dim=16, ffn=64 * heads, in_channels=8, out_channels=8, text_dim=64,
        vae_spatial=4, vae_temporal=2, latent_channels=8,
    )  # fmt: skip
    timesteps = tuple((i + 0.5) * 1000 / steps for i in reversed(range(steps)))
    head_shape, block_shape = (steps, len(branches), blocks, heads), (steps, len(branches), blocks)
    statistics = {
        name: Statistic(axes=HEAD_AXES, shape=head_shape, unit=unit, description=name)
        for name, unit in (("self/ratio", "share"), ("self/value_norm", "norm"), ("cross/value_norm", "norm"))
    } | {
        f"block/{name}": Statistic(axes=BLOCK_AXES, shape=block_shape, unit="norm", description=name)
        for name in ("residual_norm", "input_norm", "cosine")
    }
    return Manifest(
        schema="pare-run/1",
        model={"model_id": "random", "revision": None, "config_hash": "0" * 16, "weight_hash": "0" * 16},
        geometry=geometry.to_dict(),
        clip={"height": 48, "width": 48, "frames": 2 * num_frames - 1, "fps": 8},
        num_frames=num_frames,
        tokens_per_frame=36,
        mode="calibration",
        settings={"steps": steps, "seed": 0},
        timesteps=timesteps,
        sigmas=tuple(t / 1000 for t in timesteps),
        branches=branches,
        samples=tuple(Sample(prompt=f"a red {i % 10}", seed=i) for i in range(samples)),
        statistics=statistics,
        attention={"backend": "native", "kernel": "flash_cpu", "log_sum_exp": "fused"},
        versions={"torch": "0", "pare-workbench": "0"},
    )


def random_sample(manifest: Manifest, generator: np.random.Generator, ratio: np.ndarray) -> dict[str, np.ndarray]:
    """One sample: ratios around `ratio` [block, head], cosines in (-1, 1), positive norms."""
    arrays = {}
    for name, statistic in manifest.statistics.items():
        if name == "self/ratio":
            arrays[name] = np.clip(ratio + generator.normal(0, 0.03, statistic.shape), 0.001, 0.999)
        elif name == "block/cosine":
            arrays[name] = generator.uniform(-0.99, 0.99, statistic.shape)
        else:
            arrays[name] = generator.lognormal(1, 0.5, statistic.shape)
    return {name: values.astype(np.float32) for name, values in arrays.items()}


def make_run(
    folder: str | Path,
    blocks: int = 8,
    heads: int = 10,
    steps: int = 10,
    samples: int = 6,
    num_frames: int = 9,
    seed: int = 0,
    branches: tuple[str, ...] = ("cond",),
) -> Run:
    """Write a finished run with random values into `folder` and open it."""
    manifest = make_manifest(blocks, heads, steps, samples, num_frames, branches)
    generator = np.random.default_rng(seed)
    weights = {f"{kind}/output_weight_norm": generator.lognormal(0, 0.2, (blocks, heads)) for kind in ("self", "cross")}
    ratio = generator.beta(0.8, 1.2, (blocks, heads))
    writer = RunWriter(folder, manifest, weights)
    for index in writer.pending():
        writer.write_sample(index, random_sample(manifest, generator, ratio))
    return writer.finish()
