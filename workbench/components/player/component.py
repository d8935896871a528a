"""The video player on a Streamlit page: it plays in the browser alone, and says which frame it rests on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.components.columns import arrow
from workbench.components.player.video import PlayerVideo, Strip, check_videos, pairing
from workbench.components.source import source

if TYPE_CHECKING:
    from streamlit.components.v2.types import ComponentRenderer

# One browser module: shared parts, pure functions, drawing, the videos in step, then the element itself.
SCRIPTS = (
    "canvas.js", "echo.js", "page_link.js", "frame_link.js",
    "player/timing.js", "player/draw.js", "player/videos.js", "player/player.js",
)  # fmt: skip


def player(
    videos: Sequence[PlayerVideo],
    *,
    strips: Sequence[Strip] = (),
    video_frame: int = 0,
    latent: Sequence[int] | None = None,
    link: str | None = None,
    tallest: int = 384,
    key: str = "player",
    on_change: Callable[[int], None] | None = None,
) -> int:
    """Play one to four videos on one transport: the same video frame of all of them is on the screen, always.

    Nothing is sent while they play or while the cursor is dragged; a pause, a step or a release sends the video frame.

    Args:
        videos: shown in this order. Where their lengths differ, the shortest decides; at other speeds they play at the
            first one's frames per second.
        strips: numbers per video frame under the transport; with several, one is chosen.
        video_frame: the frame it rests on. Python holds it: pass it in, store what `on_change` brings.
        latent: the latent frame of every video frame (`latent_frame_of`), marked below the strip.
        link: name shared with a frame map of the same page: it marks the latent frame, and a click there seeks.
        tallest: largest height of a picture in CSS pixels; small videos are enlarged to a whole multiple below it.
        key: Streamlit key, unique on the page.
        on_change: called with the video frame before the page runs again.

    Returns:
        The video frame it rests on.

    Raises:
        InputError: no video or more than four, an empty one, a strip or `latent` that is too short.
    """
    frames = check_videos(videos, strips, latent)
    current = min(max(video_frame, 0), frames - 1)

    def changed() -> None:
        import streamlit as st

        frame = parse_frame(st.session_state.get(key), frames)
        if frame is not None and on_change is not None:
            on_change(frame)

    lines = [values for strip in strips for values in strip.lines.values()]
    result = _renderer()(
        key=key,
        data={
            "videos": [
                {"address": one.address, "label": one.label, "fps": one.fps, "width": one.width, "height": one.height}
                for one in videos
            ],
            "frames": frames,
            "pairing": pairing(videos),
            "strips": [
                {"name": one.name, "unit": one.unit, "lines": list(one.lines), "fromZero": one.from_zero}
                for one in strips
            ],
            "values": arrow({f"line{i}": np.asarray(each[:frames], np.float32) for i, each in enumerate(lines)}),
            "latent": None if latent is None else list(latent[:frames]),
            "link": link,
            "tallest": tallest,
            "videoFrame": current,
        },
        on_video_frame_change=changed,
    )
    sent = parse_frame(result, frames)
    return current if sent is None else sent


def parse_frame(raw: Any, frames: int) -> int | None:
    """The video frame that a browser's message names, None for anything that is none. The browser's side is not trusted.

    >>> [parse_frame({"video_frame": frame}, frames=17) for frame in (16, 17, "3", True, float("nan"))]
    [16, None, None, None, None]
    """
    frame = raw.get("video_frame") if hasattr(raw, "get") else None
    if isinstance(frame, bool) or not isinstance(frame, int | float) or not float(frame).is_integer():
        return None
    return int(frame) if 0 <= frame < frames else None


@cache
def _renderer() -> ComponentRenderer:
    """Registered once per process; Streamlit itself registers it again on a new runtime."""
    import streamlit as st

    return st.components.v2.component(
        "pare-workbench.player",
        html=source("player/player.html"),
        css=source("player/player.css"),
        js=source(*SCRIPTS),
    )
