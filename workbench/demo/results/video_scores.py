"""What the table takes from a video: motion, likeness to the teacher's video of the same prompt and seed, the oracle.

`pare compare` says more of a pair, at twice the time: it takes the flow of both videos, forth and back. Here the flow forth is
enough, and the teacher's is taken once.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from analysis.metrics.appearance import psnr, ssim
from analysis.metrics.flow import end_point_error, flow_magnitude, optical_flow, still_share
from analysis.metrics.pixels import Video
from pare.files import replacing
from pare.progress import Progress, silent
from pare.video import read_video
from workbench.call import plain
from workbench.demo.results.work import video_path
from workbench.distill_validation import oracle_scores

FLOWS = "flows"
Flow = Float[np.ndarray, "pairs 2 rows columns"]


def alone(frames: Video, flow: Flow, caption: str) -> dict[str, float]:
    """Motion (mean flow, px/frame), the share of still pixels, and whether the oracle reads what the caption asks for."""
    found = {"flow_magnitude": flow_magnitude(flow), "still_share": still_share(flow)}
    return {name: float(values.mean()) for name, values in found.items()} | oracle_scores(frames, caption)


def beside(frames: Video, flow: Flow, teacher: Video, teacher_flow: Flow) -> dict[str, float]:
    """Flow end-point error, PSNR and SSIM against the teacher's video; no PSNR where the two are the same."""
    found = {
        "flow_error": end_point_error(teacher_flow, flow),
        "psnr": psnr(teacher, frames),
        "ssim": ssim(teacher, frames),
    }
    return {name: float(values.mean()) for name, values in found.items() if np.isfinite(values.mean())}


def score_videos(
    folder: Path, teacher: Path, prompts: Sequence[str], lines: Path, progress: Progress = silent
) -> list[dict[str, Any]]:
    """Values of every video of an evaluation, caption i with seed i; a JSON line each in `lines`, so that it can go on.

    The teacher's own folder keeps its flows for the others.
    """
    own = folder == teacher
    records = read_lines(lines)[: len(prompts)]
    lines.parent.mkdir(parents=True, exist_ok=True)
    lines.write_text("".join(json.dumps(each) + "\n" for each in records))
    for number in range(len(records), len(prompts)):
        frames = read_video(video_path(folder, number))[0]
        flow = teacher_flow(teacher, number) if own else optical_flow(frames).astype(np.float32)
        values = alone(frames, flow, prompts[number])
        if not own:
            values |= beside(frames, flow, read_video(video_path(teacher, number))[0], teacher_flow(teacher, number))
        record = plain({"prompt": prompts[number], "seed": number, "values": values})
        with lines.open("a") as file:
            file.write(json.dumps(record) + "\n")
            file.flush()
            os.fsync(file.fileno())
        records.append(record)
        progress(number + 1, len(prompts), "scored")
    return records


def teacher_flow(teacher: Path, number: int) -> Flow:
    """The flow of a video of the teacher's, taken once."""
    kept = teacher / FLOWS / f"{number:05d}.npy"
    if not kept.is_file():
        flow = optical_flow(read_video(video_path(teacher, number))[0]).astype(np.float32)
        with replacing(kept) as temporary, Path(temporary).open("wb") as file:
            np.save(file, flow)
    return np.load(kept)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a file of JSON lines; one that a kill cut off ends it."""
    found = []
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            found.append(json.loads(line))
        except ValueError:
            break
    return found
