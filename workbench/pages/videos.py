"""Videos on pages: what the player is told of a file, and the numbers under its transport."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st

from analysis.figures.videos import lines_by_frame
from analysis.metrics.by_frame import CHANGE, PSNR, UNITS, frame_change, frame_table
from pare.errors import InputError
from pare.geometry import Geometry
from workbench import video_recipes
from workbench.components.player.component import player
from workbench.components.player.video import PlayerVideo, Strip, latent_frame_of, pairing
from workbench.pages.chart import take_out
from workbench.pages.kept import kept
from workbench.pages.shell import PLAYED_KEY, choose
from workbench.places import Places
from workbench.server import video_address
from workbench.state import Selection

PSNR_HERE = f"{PSNR} of this frame"
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
    """Play these videos (label → file) on one transport, with the "Take out" of their numbers per video frame; the frame
    they rest on becomes the selection's.

    With the `geometry` of the model that made them, latent frames are marked; `link` names the frame map they follow.
    Raises `InputError` for a file that is no video.
    """
    st.session_state[PLAYED_KEY][key] = dict(paths)
    videos, likeness, change = told(places, paths)
    frames = min(video.frames for video in videos)
    player(
        videos,
        strips=strips(likeness, change),
        video_frame=selection.video_frame,
        latent=None if geometry is None else latent_frame_of(frames, geometry.vae_temporal),
        link=link,
        tallest=tallest,
        key=key,
        on_change=lambda frame: choose(video_frame=frame),
    )
    take_out(
        lambda: lines_by_frame(frame_table(likeness, change)),
        key=key,
        alt=f"{'PSNR and change' if likeness else 'Change'} of every video frame of {', '.join(paths)}.",
        table=lambda: frame_table(likeness, change),
        python=video_recipes.lines_by_frame(paths, paired=bool(likeness)),
        command=video_recipes.compare_commands(paths),
        name=f"{key.replace('_', '-')}-by-frame",
    )


def described(places: Places, path: Path, label: str) -> PlayerVideo:
    """A video's size, length, prompt and seed, and the address under which this server plays it.

    Raises `InputError` for one outside of the places, wherever its name came from.
    """
    # Outside of the places nothing is read.
    address = address_of(places, path)
    return replace(_facts(str(path), _stamp(path)), address=address, label=label)


def address_of(places: Places, path: Path) -> str:
    """The address under which a page plays a video. Raises `InputError` as `described` does."""
    address = video_address(places, path)
    if address is None and places.name_of(path) is None:
        raise InputError(
            "video",
            got=f"{path.name}, which lies elsewhere",
            expected="one in the workspace, data/ or a folder named at start",
            fix="pare app FOLDER opens another folder",
        )
    return address or _inline(path)


def told(
    places: Places, paths: Mapping[str, Path]
) -> tuple[list[PlayerVideo], dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The videos, their PSNR against the first where all are paired and of one size, and how much every frame differs from
    the last. Raises `InputError` as `described` does.
    """
    addresses = [address_of(places, path) for path in paths.values()]
    files = {label: str(path) for label, path in paths.items()}
    videos, likeness, change = _told(files, tuple(_stamp(path) for path in paths.values()))
    return [replace(one, address=at) for one, at in zip(videos, addresses, strict=True)], likeness, change


@kept(st.cache_data, max_entries=64)
def _told(
    paths: dict[str, str], stamps: tuple[int, ...]
) -> tuple[list[PlayerVideo], dict[str, np.ndarray], dict[str, np.ndarray]]:
    """What is `told` of these files, without their addresses.

    Everything is asked of a video while it is held, so that each is decoded once; the first is held throughout.
    """
    first, videos = (next(iter(paths.values())), stamps[0]), []
    likeness, change = {}, {}
    for (label, path), stamp in zip(paths.items(), stamps, strict=True):
        videos.append(replace(_facts(path, stamp), label=label))
        change[label] = _change(path, stamp)
        if _comparable(videos):
            likeness[label] = _psnr(*first, path, stamp)
    frames = min(video.frames for video in videos)
    return videos, likeness if _comparable(videos) else {}, {label: each[:frames] for label, each in change.items()}


def _comparable(videos: Sequence[PlayerVideo]) -> bool:
    return len({(video.frames, video.height, video.width) for video in videos}) == 1 and pairing(videos) == "paired"


def strips(likeness: Mapping[str, np.ndarray], change: Mapping[str, np.ndarray]) -> list[Strip]:
    """The numbers that are `told`, as the player's strips."""
    first = next(iter(change))
    lines = {f"{label} against {first}": values for label, values in likeness.items()}
    found = [Strip(PSNR_HERE, UNITS[PSNR], lines, from_zero=False)] if lines else []
    return [*found, Strip(CHANGE, UNITS[CHANGE], dict(change))]


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


@kept(st.cache_data, max_entries=64)
def _facts(path: str, stamp: int) -> PlayerVideo:
    """What a file says of itself, still without address and label."""
    frames, fps, about = _read(path, stamp)
    count, height, width, _ = frames.shape
    seed = about.get("seed", (about.get("settings") or {}).get("seed"))
    prompt = about.get("prompt")
    return PlayerVideo("", "", count, fps, width, height, prompt, seed if isinstance(seed, int) else None)


@kept(st.cache_resource, max_entries=2)
def _read(path: str, stamp: int) -> tuple[np.ndarray, float, dict[str, Any]]:
    """The decoded video; two are held, which is what comparing needs."""
    from pare.video import read_video

    return read_video(path)


@kept(st.cache_data, max_entries=64)
def _psnr(first: str, first_stamp: int, second: str, second_stamp: int) -> np.ndarray:
    from analysis.metrics.appearance import psnr

    # The first is asked for last: of the two that are held it stays when the next video comes.
    other = _read(second, second_stamp)[0]
    return psnr(_read(first, first_stamp)[0], other)


@kept(st.cache_data, max_entries=64)
def _change(path: str, stamp: int) -> np.ndarray:
    return frame_change(_read(path, stamp)[0])
