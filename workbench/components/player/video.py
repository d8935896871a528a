"""What the player is told of its videos: where they are, what made them, and numbers for every video frame."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pare.errors import InputError

MOST_VIDEOS = 4


@dataclass(frozen=True)
class PlayerVideo:
    """One video: its address, a short label, its video frames, and prompt and seed where they are known."""

    address: str
    label: str
    frames: int
    fps: float
    width: int
    height: int
    prompt: str | None = None
    seed: int | None = None


@dataclass(frozen=True)
class Strip:
    """Numbers for every video frame, one line per entry of `lines` (label → values [frames]; NaN: no value there).

    `unit` follows a value in the text; `from_zero` starts the scale at 0, else at the smallest value.
    """

    name: str
    unit: str
    lines: dict[str, np.ndarray]
    from_zero: bool = True


def pairing(videos: Sequence[PlayerVideo]) -> str:
    """ "paired" where all videos have the same prompt and seed, else in what they differ; nothing for a single one.

    >>> one, two = (PlayerVideo("a.mp4", "a", 17, 8, 48, 48, "a red 7", seed) for seed in (0, 1))
    >>> pairing([one, one]), pairing([one, two]), pairing([one])
    ('paired', 'not paired: other seed', '')
    """
    if len(videos) < 2:
        return ""
    unknown = [name for name in ("prompt", "seed") if any(getattr(video, name) is None for video in videos)]
    if unknown:
        return f"not paired: unknown {' and '.join(unknown)}"
    other = [name for name in ("prompt", "seed") if len({getattr(video, name) for video in videos}) > 1]
    return f"not paired: other {' and '.join(other)}" if other else "paired"


def check_videos(videos: Sequence[PlayerVideo], strips: Sequence[Strip], latent: Sequence[int] | None) -> int:
    """The number of video frames that all videos have. Raises `InputError` for what cannot be shown on one transport."""
    if not 1 <= len(videos) <= MOST_VIDEOS:
        raise InputError("videos", got=len(videos), expected=f"1 to {MOST_VIDEOS}", fix="choose fewer")
    for video in videos:
        if min(video.frames, video.width, video.height) < 1 or not video.fps > 0:
            raise InputError(
                f"video {video.label}",
                got=f"{video.frames} frames of {video.height} x {video.width} at {video.fps:g} per second",
                expected="at least one frame, and a speed",
                fix="generate it again",
            )
    frames = min(video.frames for video in videos)
    for name, values in [(name, values) for strip in strips for name, values in strip.lines.items()]:
        if len(values) < frames:
            raise InputError(
                f"strip {name}",
                got=f"{len(values)} values",
                expected=f"one per video frame, {frames}",
                fix="pad with NaN",
            )
    if latent is not None and (len(latent) < frames or list(latent) != sorted(latent) or latent[0] != 0):
        raise InputError(
            "latent frames",
            got=list(latent)[:8],
            expected="one per video frame, rising from 0",
            fix="use latent_frame_of",
        )
    return frames


def latent_frame_of(frames: int, vae_temporal: int) -> list[int]:
    """The latent frame behind every video frame: the first stands alone, then every `vae_temporal` share one.

    >>> latent_frame_of(9, 4)
    [0, 1, 1, 1, 1, 2, 2, 2, 2]
    """
    return [0 if frame == 0 else 1 + (frame - 1) // vae_temporal for frame in range(frames)]
