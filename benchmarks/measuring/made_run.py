"""A run of random values at the size of a real one, written through the product's own writer; measured, never shipped."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from analysis.catalogue import BLOCK_STATISTICS, STATISTICS
from analysis.manifest import BLOCK_AXES, HEAD_AXES, MAP_AXES, Manifest, Sample, Statistic
from analysis.run_writer import RunWriter
from analysis.runs import Run
from pare.geometry import Geometry

PLAIN = ("self/ratio", "self/value_norm", "cross/value_norm")
ENERGY = ("self/projected_energy", "cross/projected_energy")
ROWS = ("self/entropy", "self/entropy_error", "self/first_frame_share", "self/first_frame_share_error")
MAP, MAP_STEPS, MAP_SAMPLES = "self/frame_map", 5, 2
# As often as the bundled run has them.
ENERGY_EVERY, ROWS_EVERY = 2, 20


@dataclass(frozen=True)
class Size:
    """How much of everything a run has; `everything`: also energies, sampled rows, frame maps and parts of blocks."""

    blocks: int
    heads: int
    steps: int
    samples: int
    branches: tuple[str, ...] = ("cond",)
    everything: bool = True

    def words(self) -> str:
        """The size in a table.

        >>> Size(40, 40, 50, 100, ("cond", "uncond")).words()
        '40 blocks, 40 heads, 50 steps, 100 samples, 2 branches'
        """
        counts = {"block": self.blocks, "head": self.heads, "step": self.steps, "sample": self.samples}
        counts["branch"] = len(self.branches)
        plural = {"branch": "branches"}
        return ", ".join(f"{n} {word if n == 1 else plural.get(word, f'{word}s')}" for word, n in counts.items())


def write_run(folder: Path, size: Size, seed: int = 0) -> Run:
    """Write a finished run of this size with random values and open it."""
    manifest = _manifest(size)
    generator = np.random.default_rng(seed)
    heads = (size.blocks, size.heads)
    weights = {f"{kind}/output_weight_norm": generator.lognormal(0, 0.2, heads) for kind in ("self", "cross")}
    # Of the model, hence the same in two runs that are compared.
    ratio = np.random.default_rng(0).beta(0.8, 1.2, heads)
    writer = RunWriter(folder, manifest, weights)
    for index in writer.pending():
        writer.write_sample(index, _sample(manifest, index, generator, ratio))
    return writer.finish()


def _manifest(size: Size) -> Manifest:
    wan = Geometry(
        blocks=size.blocks, heads=size.heads, head_dim=128, ffn=13824, in_channels=16, out_channels=16, text_dim=4096
    )
    timesteps = tuple((i + 0.5) * 1000 / size.steps for i in reversed(range(size.steps)))
    every = range(size.samples)
    statistics = {name: _statistic(name, size) for name in PLAIN}
    if size.everything:
        statistics |= {name: _statistic(name, size, every[::ENERGY_EVERY]) for name in ENERGY}
        statistics |= {name: _statistic(name, size, every[::ROWS_EVERY]) for name in ROWS}
        statistics[MAP] = _statistic(MAP, size, every[:: max(1, size.samples // MAP_SAMPLES)])
    blocks = BLOCK_STATISTICS if size.everything else tuple(BLOCK_STATISTICS)[:3]
    statistics |= {name: _statistic(name, size) for name in blocks}
    return Manifest(
        schema="pare-run/1",
        model={"model_id": "random", "revision": None, "config_hash": "0" * 16, "weight_hash": "0" * 16},
        geometry=wan.to_dict(),
        clip={"height": 480, "width": 832, "frames": 81, "fps": 16},
        num_frames=21,
        tokens_per_frame=1560,
        mode="calibration",
        settings={"steps": size.steps, "seed": 0},
        timesteps=timesteps,
        sigmas=tuple(t / 1000 for t in timesteps),
        branches=size.branches,
        samples=tuple(Sample(prompt=f"a prompt of nine words, the one numbered {i}", seed=i) for i in every),
        statistics=statistics,
        attention={"backend": "native", "kernel": "flash", "log_sum_exp": "fused"},
        versions={"torch": "0", "pare-workbench": "0"},
    )


def _statistic(name: str, size: Size, samples: range | None = None) -> Statistic:
    unit, words = STATISTICS[name.removesuffix("_error")]
    part = (size.steps, len(size.branches))
    axes, shape, steps = HEAD_AXES, (*part, size.blocks, size.heads), None
    if name in BLOCK_STATISTICS:
        axes, shape = BLOCK_AXES, (*part, size.blocks)
    elif name == MAP:
        steps = tuple(range(0, size.steps, -(-size.steps // MAP_STEPS)))
        axes, shape = MAP_AXES, (len(steps), *shape[1:], 21, 21)
    given = None if samples is None else tuple(samples)
    return Statistic(axes=axes, shape=shape, unit=unit, description=words, steps=steps, samples=given)


def _sample(manifest: Manifest, index: int, generator: np.random.Generator, ratio: np.ndarray) -> dict[str, np.ndarray]:
    """Ratios around `ratio` [block, head], cosines in (-1, 1), positive norms, maps whose rows sum to 1."""
    arrays = {}
    for name, statistic in manifest.measured(index).items():
        noise = generator.random(statistic.shape, np.float32)
        if name == "self/ratio":
            arrays[name] = np.clip(ratio + (noise - 0.5) / 10, 0.001, 0.999)
        elif name == "block/cosine":
            arrays[name] = 2 * noise - 1
        elif name == MAP:
            arrays[name] = noise / noise.sum(axis=-1, keepdims=True)
        else:
            arrays[name] = 0.1 + noise
    return {name: values.astype(np.float32) for name, values in arrays.items()}
