"""A finished run with every statistic that a capture can have: parts of blocks, frame maps, entropy, marked heads."""

from pathlib import Path

import numpy as np

from analysis.manifest import BLOCK_AXES, HEAD_AXES, Manifest, Statistic
from analysis.run_writer import RunWriter
from analysis.runs import Run
from pare.video import write_video
from tests.runs_fixture import make_manifest, random_sample

UNIFORM_HEAD, SINK_HEAD = (1, 2), (2, 0)
"""The heads (block, head) that look at all tokens alike, and at the first frame."""
MAP_STEPS = (0, 1)


def make_sampled_run(
    folder: str | Path,
    blocks: int = 8,
    heads: int = 10,
    steps: int = 10,
    samples: int = 6,
    num_frames: int = 9,
    branches: tuple[str, ...] = ("cond", "uncond"),
    seed: int = 0,
    ratio: np.ndarray | None = None,
    videos: int = 0,
) -> Run:
    """Write a run whose heads have these ratios [block, head], random ones unless given; the marked two have 1/Fl.

    The first `videos` samples have a video: frame t is 12·t bright everywhere.
    """
    manifest = _extended(make_manifest(blocks, heads, steps, samples, num_frames, branches))
    named = (
        one.model_copy(update={"video": f"videos/{i:05d}.mp4"}) if i < videos else one
        for i, one in enumerate(manifest.samples)
    )
    manifest = manifest.model_copy(update={"samples": tuple(named)})
    generator = np.random.default_rng(seed)
    weights = {f"{kind}/output_weight_norm": generator.lognormal(0, 0.2, (blocks, heads)) for kind in ("self", "cross")}
    if ratio is None:
        low, high = generator.beta(2, 9, (blocks, heads)), generator.beta(8, 3, (blocks, heads))
        ratio = np.where(generator.random((blocks, heads)) < 0.4, low, high)
    ratio[UNIFORM_HEAD] = ratio[SINK_HEAD] = 1 / num_frames
    writer = RunWriter(folder, manifest, weights)
    for index in writer.pending():
        writer.write_sample(index, _sample(manifest, generator, ratio))
        if index < videos:
            _write_video(manifest, index, Path(folder))
    return writer.finish()


def _extended(manifest: Manifest) -> Manifest:
    ratio, block = manifest.statistics["self/ratio"], manifest.statistics["block/residual_norm"]
    statistics = dict(manifest.statistics)
    for name in ("entropy", "temporal_distance", "first_frame_share"):
        for end in ("", "_error"):
            statistics[f"self/{name}{end}"] = Statistic(axes=HEAD_AXES, shape=ratio.shape, unit="", description=name)
    for name in ("self_norm", "cross_norm", "ffn_norm"):
        statistics[f"block/{name}"] = Statistic(axes=BLOCK_AXES, shape=block.shape, unit="norm", description=name)
    frames = manifest.num_frames
    statistics["self/frame_map"] = Statistic(
        axes=(*HEAD_AXES, "frame_q", "frame_k"),
        shape=(len(MAP_STEPS), 1, *ratio.shape[2:], frames, frames),
        dtype="float16",
        unit="share",
        description="frame map",
        steps=MAP_STEPS,
        branches=manifest.branches[:1],
    )
    return manifest.model_copy(update={"statistics": statistics})


def _write_video(manifest: Manifest, index: int, folder: Path) -> None:
    clip, sample = manifest.clip, manifest.samples[index]
    level = (12 * np.arange(clip["frames"]) % 256).astype(np.uint8)
    frames = np.broadcast_to(level[:, None, None, None], (clip["frames"], clip["height"], clip["width"], 3))
    assert sample.video is not None
    (folder / "videos").mkdir(exist_ok=True)
    about = {"prompt": sample.prompt, "seed": sample.seed}
    write_video(np.ascontiguousarray(frames), folder / sample.video, clip["fps"], about)


def _sample(manifest: Manifest, generator: np.random.Generator, ratio: np.ndarray) -> dict[str, np.ndarray]:
    arrays = random_sample(manifest, generator, ratio)
    shape = manifest.statistics["self/ratio"].shape
    step, block = np.ogrid[: shape[0], : shape[2]]
    # Early and late blocks change their input most, and all of them more towards the end.
    size = (0.15 + 1.2 * np.abs(block / max(shape[2] - 1, 1) - 0.5) ** 1.5 + 0.03 * step)[:, None]
    norm = generator.lognormal(3, 0.1, arrays["block/input_norm"].shape)
    noise = generator.lognormal(0, 0.06, (4, *norm.shape))
    shares = (1.0, 0.6, 0.25, 0.7)
    for name, share, spread in zip(("residual", "self", "cross", "ffn"), shares, noise, strict=True):
        arrays[f"block/{name}_norm"] = norm * size * share * spread
    arrays["block/input_norm"] = norm
    arrays["block/cosine"] = 1 - 0.5 * size * noise[0]
    uniform = np.log(manifest.num_frames * manifest.tokens_per_frame)
    arrays["self/entropy"] = uniform - generator.uniform(0.6, 3, shape)
    arrays["self/entropy"][..., *UNIFORM_HEAD] = uniform - generator.uniform(0, 0.02, shape[:2])
    arrays["self/first_frame_share"] = generator.uniform(0.05, 0.2, shape)
    arrays["self/first_frame_share"][..., *SINK_HEAD] = generator.uniform(0.6, 0.9, shape[:2])
    for name in ("entropy", "temporal_distance", "first_frame_share"):
        arrays[f"self/{name}_error"] = np.full(shape, 0.01)
    arrays["self/frame_map"] = _maps(manifest, ratio)
    return {name: np.asarray(values, manifest.statistics[name].dtype) for name, values in arrays.items()}


def _maps(manifest: Manifest, ratio: np.ndarray) -> np.ndarray:
    """Each frame looks at itself by its ratio and at the others alike; the sink looks at the first frame."""
    frames = manifest.num_frames
    own = np.eye(frames)
    maps = ratio[..., None, None] * own + (1 - ratio[..., None, None]) * (1 - own) / max(frames - 1, 1)
    maps[SINK_HEAD] = [0.75] + [0.25 / max(frames - 1, 1)] * (frames - 1)
    return np.broadcast_to(maps, manifest.statistics["self/frame_map"].shape)
