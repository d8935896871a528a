"""A page with nothing but a player, for the browser tests: the mp4 files that PLAYER_VIDEOS names, the value below."""

import json
import os
from base64 import b64encode
from pathlib import Path

import numpy as np
import streamlit as st

from pare.video import read_video
from workbench.components.player.component import player
from workbench.components.player.video import PlayerVideo, Strip, latent_frame_of


def load(path: str) -> tuple[PlayerVideo, np.ndarray]:
    frames, fps, about = read_video(path)
    address = "data:video/mp4;base64," + b64encode(Path(path).read_bytes()).decode()
    count, height, width, _ = frames.shape
    video = PlayerVideo(address, Path(path).stem, count, fps, width, height, about.get("prompt"), about.get("seed"))
    return video, frames.mean((1, 2, 3))


def keep(frame: int) -> None:
    st.session_state.video_frame = frame
    st.session_state.changes = st.session_state.get("changes", 0) + 1


st.set_page_config(page_title="Player", layout="wide")
st.title("Player")
videos, means = zip(*(load(path) for path in json.loads(os.environ["PLAYER_VIDEOS"])), strict=True)
st.button("Run again")
if st.button("Frame 3"):
    st.session_state.video_frame = 3
strip = Strip("brightness", "of 255", {video.label: mean for video, mean in zip(videos, means, strict=True)})
steady = Strip("zero", "", {"all": np.zeros(max(len(mean) for mean in means))})
player(
    videos,
    strips=[strip, steady],
    video_frame=st.session_state.get("video_frame", 0),
    latent=latent_frame_of(min(video.frames for video in videos), 2),
    on_change=keep,
)
st.text(f"kept {st.session_state.get('video_frame')} after {st.session_state.get('changes', 0)} changes")
