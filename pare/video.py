"""Videos in and out: H.264 in an mp4 that every browser plays, with the settings that made it inside."""

import json
import math
import re
import subprocess
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
from jaxtyping import UInt8

from pare.errors import InputError
from pare.files import check_output, replacing

# Near-lossless for the eye: the files are evidence, and short.
QUALITY = "10"
# Untagged colours are read differently from player to player.
COLOURS = ["-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709", "-color_range", "tv"]


def write_video(
    frames: UInt8[np.ndarray, "frames height width 3"], path: str | Path, fps: int | float, metadata: Mapping[str, Any]
) -> None:
    """Write RGB frames as H.264 (yuv420p, index first) with `metadata` as JSON in the file's comment.

    Width and height stay as they are and must be even. The file appears whole or not at all; the same frames give the
    same file. Raises `InputError` for odd sizes, no frames, and a path that `check_video_path` refuses.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "grey.mp4"
    >>> write_video(np.full((5, 16, 16, 3), 128, np.uint8), path, fps=8, metadata={"seed": 0})
    >>> frames, fps, metadata = read_video(path)
    >>> frames.shape, fps, metadata
    ((5, 16, 16, 3), 8.0, {'seed': 0})
    """
    check_video_path(path)
    count, height, width, _ = frames.shape
    if count == 0 or height % 2 or width % 2 or not height or not width:
        raise InputError(
            "video",
            got=f"{count} frames of {height} x {width}",
            expected="at least one frame, of even height and width",
            fix="choose another size",
        )
    with replacing(path) as temporary:
        writer = imageio_ffmpeg.write_frames(
            str(temporary),
            (width, height),
            fps=fps,
            codec="libx264",
            pix_fmt_in="rgb24",
            pix_fmt_out="yuv420p",
            quality=None,
            macro_block_size=2,
            ffmpeg_log_level="error",
            output_params=[
                "-crf", QUALITY, "-vf", "scale=out_color_matrix=bt709:out_range=tv", *COLOURS,
                "-movflags", "+faststart", "-metadata", f"comment={json.dumps(metadata, sort_keys=True)}",
            ],
        )  # fmt: skip
        writer.send(None)
        try:
            for frame in frames:
                writer.send(np.ascontiguousarray(frame))
        finally:
            writer.close()


def read_video(
    path: str | Path, seconds: int | float | None = None
) -> tuple[UInt8[np.ndarray, "frames height width 3"], float, dict[str, Any]]:
    """All RGB frames of a video, its frames per second, and the metadata that `write_video` put in (else empty).

    With `seconds` only the frames of so much from its start are read and held, and the one that follows. Raises
    `InputError` for a missing file and for one that holds no video.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError("video", got=f"{path}, no such file", expected="a video file", fix="check the path")
    try:
        reader = imageio_ffmpeg.read_frames(str(path), pix_fmt="rgb24", output_params=["-fps_mode", "passthrough"])
        properties = next(reader)
        width, height = properties["size"]
        fps = float(properties["fps"])
        most = None if seconds is None or not (math.isfinite(fps) and fps > 0) else int(seconds * fps) + 1
        frames = [np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in islice(reader, most)]
        reader.close()
    except (OSError, RuntimeError, StopIteration, ValueError, KeyError) as error:
        raise InputError(
            "video", got=f"{path}, which cannot be decoded", expected="a video file", fix="use another file"
        ) from error
    return np.stack(frames), fps, _metadata(path)


def read_metadata(path: str | Path) -> dict[str, Any]:
    """What `write_video` put into a video's comment, read without decoding it; empty where there is nothing."""
    return _metadata(Path(path))


def check_video_path(path: str | Path) -> None:
    """Raises `InputError` unless `path` names an mp4 file that could be written; for use before long work."""
    path = Path(path)
    if path.suffix.lower() != ".mp4":
        raise InputError("--out", got=path.name, expected="a name that ends in .mp4", fix=f"{path.stem or 'video'}.mp4")
    check_output(path)


def _metadata(path: Path) -> dict[str, Any]:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(path), "-f", "ffmetadata", "-"]
    text = subprocess.run(command, capture_output=True, check=False, stdin=subprocess.DEVNULL).stdout.decode()
    # ffmpeg escapes = ; # \ and line ends with a backslash.
    match = re.search(r"^comment=((?:[^\\\n]|\\.|\\\n)*)", text, flags=re.MULTILINE)
    if match is None:
        return {}
    try:
        value = json.loads(re.sub(r"\\(.|\n)", r"\1", match.group(1)))
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
