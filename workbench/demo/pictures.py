"""Pictures of the demo model for its document: `python -m workbench.demo.pictures`.

Writes `demo-data.png` (held-out clips), `demo-samples.png` (generated clips, with the evaluation's prompts and seeds),
`demo-ratios.png` (the bundled run's intra-slice ratios and entropies) and `demo-loss.png` (the training log, where the
build's cache is at hand).
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from analysis.runs import Run
from pare.geometry import DEMO
from pare.training.loop import read_log
from workbench.demo.build import cache_folder
from workbench.demo.moving_digits import draw_clip
from workbench.demo.settings import DemoSettings


def clip_rows(videos: Sequence[np.ndarray], captions: Sequence[str], every: int = 2) -> Figure:
    """A figure with one row per clip: its caption and every `every`-th video frame.

    Args: `videos` uint8 [frames, height, width, 3] each.
    """
    shown = [video[::every] for video in videos]
    figure = Figure(figsize=(1.0 * len(shown[0]) + 0.2, 1.22 * len(shown)), dpi=96)
    axes = figure.subplots(len(shown), 1, squeeze=False)[:, 0]
    for axis, frames, caption in zip(axes, shown, captions, strict=True):
        gap = np.full((frames.shape[1], 2, 3), 255, np.uint8)
        strip = np.concatenate([part for frame in frames for part in (frame, gap)][:-1], axis=1)
        axis.imshow(strip, interpolation="nearest")
        axis.set_title(caption, fontsize=9, loc="left", pad=3)
        axis.set_axis_off()
    figure.subplots_adjust(left=0.01, right=0.99, top=0.97, bottom=0.01, hspace=0.28)
    return figure


def loss_curve(records: Sequence[dict]) -> Figure:
    """The training loss (mean of ten logged steps) and the held-out error at three noise levels, over steps."""
    figure = Figure(figsize=(7, 3.4), dpi=110, layout="constrained")
    axis = figure.subplots()
    training = np.array([(record["step"], record["loss"]) for record in records if "loss" in record])
    groups = [training[k : k + 10].mean(axis=0) for k in range(0, len(training), 10)]
    axis.plot(*np.array(groups).T, color="#999999", label="training loss")
    held_out = [(record["step"], record["validation"]) for record in records if "validation" in record]
    for colour, name in zip(
        ("#0072B2", "#D55E00", "#009E73"), (key for key in held_out[0][1] if key != "n"), strict=False
    ):
        steps, values = zip(*((step, validation[name]) for step, validation in held_out), strict=True)
        axis.plot(steps, values, "o-", markersize=3, color=colour, label=f"held-out {name}, n = {held_out[0][1]['n']}")
    axis.set(xlabel="step", ylabel="mean squared error of the velocity", ylim=(0, None))
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=8)
    return figure


def ratio_histogram(run: Run) -> Figure:
    """Ratios of every head, block and timestep (means over samples) as a histogram, and each one's entropy beside it.

    Entropy is over its largest, log(tokens): 1 is attention spread evenly over all tokens, where the ratio is 1/Fl.
    """
    ratio, entropy = (run.summary(name)["mean"] for name in ("self/ratio", "self/entropy"))
    figure = Figure(figsize=(9, 3.4), dpi=110, layout="constrained")
    left, right = figure.subplots(1, 2)
    left.hist(ratio.ravel(), bins=np.linspace(0, 1, 41), color="#0072B2")
    left.set(xlabel="intra-slice ratio r", ylabel=f"heads x blocks x timesteps, n = {ratio.size}")
    right.scatter(ratio.ravel(), entropy.ravel() / run.uniform_entropy, s=6, alpha=0.5, color="#0072B2", linewidths=0)
    right.set(xlabel="intra-slice ratio r", ylabel="entropy / log(tokens)", xlim=(0, 1), ylim=(0, 1.02))
    for axis in (left, right):
        axis.axvline(run.uniform, color="#D55E00", linestyle="--", label=f"uniform attention, 1/{run.num_frames}")
        axis.spines[["top", "right"]].set_visible(False)
    left.legend(frameon=False, fontsize=8)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Writes a figure as PNG."""
    FigureCanvasAgg(figure)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})


def generated(prompts: Sequence[str], model: str = "demo") -> list[np.ndarray]:
    """One video per prompt, prompt i with seed i, at the model's own settings."""
    import tempfile

    from pare.models import load_pipeline
    from pare.video import read_video
    from workbench.commands.generate import generate

    pipeline = load_pipeline(model)
    videos = []
    with tempfile.TemporaryDirectory() as folder:
        for seed, prompt in enumerate(prompts):
            path = Path(folder) / f"{seed}.mp4"
            generate(model, prompt=prompt, out=str(path), seed=seed, load=lambda *args, **options: pipeline)
            videos.append(read_video(path)[0])
    return videos


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m workbench.demo.pictures", description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", type=Path, default=DEMO.parents[1] / "docs" / "images")
    parser.add_argument("--cache", type=Path, default=cache_folder())
    parser.add_argument("--model", default="demo")
    parser.add_argument("--clips", type=int, default=8)
    arguments = parser.parse_args()
    clips = [draw_clip(DemoSettings().data, seed, held_out=True) for seed in range(arguments.clips)]
    save(
        clip_rows([clip.video for clip in clips], [clip.factors.caption for clip in clips]),
        arguments.out / "demo-data.png",
    )
    prompts = (DEMO.parent / "prompts" / "held-out.txt").read_text().splitlines()[: arguments.clips]
    save(clip_rows(generated(prompts, arguments.model), prompts), arguments.out / "demo-samples.png")
    save(ratio_histogram(Run.open(DEMO.parent / "runs" / "demo")), arguments.out / "demo-ratios.png")
    log = arguments.cache / "transformer"
    if (log / "log.jsonl").exists():
        save(loss_curve(list(read_log(log))), arguments.out / "demo-loss.png")


if __name__ == "__main__":
    main()
