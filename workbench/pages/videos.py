"""Videos on pages: what the player is told of a file, and the numbers under its transport."""

from base64 import b64encode
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st

from pare.errors import InputError
from pare.geometry import Geometry
from workbench.components.player.component import player
from workbench.components.player.video import PlayerVideo, Strip, latent_frame_of, pairing
from workbench.pages.shell import choose
from workbench.places import Places
from workbench.server import video_address
from workbench.state import Selection

LARGEST_INLINE = 8_000_000
"""Bytes of a video that a page carries itself where the server has no route for videos."""


def show_player(
    places: Places,
    paths: Mapping[str, Path],
    selection: Selection,
    *,
    geometry: Geometry | None = None,
    link: str | None = None,
    tallest: int = 384,
    key: str,
) -> None:
    """Play these videos (label → file) on one transport; the frame they rest on becomes the selection's.

    With the `geometry` of the model that made them, latent frames are marked; `link` names the frame map they follow.
    Raises `InputError` for a file that is no video.
    """
    videos = [described(places, path, label) for label, path in paths.items()]
    frames = min(video.frames for video in videos)
    player(
        videos,
        strips=strips(list(paths.values()), videos),
        video_frame=selection.video_frame,
        latent=None if geometry is None else latent_frame_of(frames, geometry.vae_temporal),
        link=link,
        tallest=tallest,
        key=key,
        on_change=lambda frame: choose(video_frame=frame),
    )


def described(places: Places, path: Path, label: str) -> PlayerVideo:
    """A video's size, length, prompt and seed, and the address under which this server plays it.

    Raises `InputError` for one outside of the places, wherever its name came from.
    """
    if places.name_of(path) is None:
        raise InputError(
            "video",
            got=f"{path.name}, which lies elsewhere",
            expected="one in the workspace, data/ or a folder named at start",
            fix="pare app FOLDER opens another folder",
        )
    facts = _facts(str(path), _stamp(path))
    settings = facts["about"].get("settings") or {}
    seed = facts["about"].get("seed", settings.get("seed"))
    return PlayerVideo(
        address=video_address(places, path) or _inline(path),
        label=label,
        frames=facts["frames"],
        fps=facts["fps"],
        width=facts["width"],
        height=facts["height"],
        prompt=facts["about"].get("prompt"),
        seed=seed if isinstance(seed, int) else None,
    )


def strips(paths: list[Path], videos: list[PlayerVideo]) -> list[Strip]:
    """PSNR against the first video where all are paired and of one size, and how much every frame differs from the last."""
    first, *others = zip(paths, videos, strict=True)
    frames = min(video.frames for video in videos)
    found = []
    alike = {(video.frames, video.height, video.width) for video in videos}
    if others and len(alike) == 1 and pairing(videos) == "paired":
        lines = {f"{video.label} against {first[1].label}": _psnr(first[0], path) for path, video in others}
        found.append(Strip("PSNR", "dB", lines, from_zero=False))
    changes = {
        video.label: _change(str(path), _stamp(path))[:frames] for path, video in zip(paths, videos, strict=True)
    }
    return [*found, Strip("change from the frame before", "of 255", changes)]


def _stamp(path: Path) -> int:
    return path.stat().st_mtime_ns


def _inline(path: Path) -> str:
    if path.stat().st_size > LARGEST_INLINE:
        raise InputError(
            "video",
            got=f"{path.name}, {path.stat().st_size / 1e6:.0f} MB, from a server without video routes",
            expected=f"at most {LARGEST_INLINE / 1e6:.0f} MB there",
            fix="start the app with pare app",
        )
    return "data:video/mp4;base64," + b64encode(path.read_bytes()).decode()


@st.cache_data(max_entries=64, show_spinner=False)
def _facts(path: str, stamp: int) -> dict[str, Any]:
    frames, fps, about = _read(path, stamp)
    count, height, width, _ = frames.shape
    return {"frames": count, "fps": fps, "width": width, "height": height, "about": about}


@st.cache_resource(max_entries=2, show_spinner=False)
def _read(path: str, stamp: int) -> tuple[np.ndarray, float, dict[str, Any]]:
    """The decoded video; two are held, which is what comparing needs."""
    from pare.video import read_video

    return read_video(path)


def _psnr(first: Path, second: Path) -> np.ndarray:
    return _psnr_of(str(first), _stamp(first), str(second), _stamp(second))


@st.cache_data(max_entries=64, show_spinner=False)
def _psnr_of(first: str, first_stamp: int, second: str, second_stamp: int) -> np.ndarray:
    from analysis.metrics.appearance import psnr

    return psnr(_read(first, first_stamp)[0], _read(second, second_stamp)[0])


@st.cache_data(max_entries=64, show_spinner=False)
def _change(path: str, stamp: int) -> np.ndarray:
    """Mean |frame − frame before| over pixels and channels, 0..255; the first frame has none."""
    frames = _read(path, stamp)[0]
    values = [np.abs(after.astype(np.int16) - before).mean() for before, after in pairwise(frames)]
    return np.array([np.nan, *values])
