"""What the player and the frame map are given, and what of their messages is believed."""

import doctest
import importlib
from pathlib import Path

import numpy as np
import pytest

from pare.errors import InputError
from pare.video import read_video, write_video
from workbench.components.frame_map.component import frame_map
from workbench.components.player.component import parse_frame
from workbench.components.player.video import PlayerVideo, Strip, check_videos, latent_frame_of, pairing
from workbench.pages.videos import strips, told
from workbench.places import Places


@pytest.mark.parametrize("name", ["player.component", "player.video", "frame_map.component"])
def test_examples(name):
    found = doctest.testmod(importlib.import_module(f"workbench.components.{name}"))
    assert found.attempted and not found.failed


def video(label: str = "a", **changes) -> PlayerVideo:
    facts = {"frames": 17, "fps": 8.0, "width": 48, "height": 48, "prompt": "a red 7", "seed": 0} | changes
    return PlayerVideo(f"{label}.mp4", label, **facts)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({}, "paired"),
        ({"seed": 1}, "not paired: other seed"),
        ({"prompt": "a blue 3"}, "not paired: other prompt"),
        ({"prompt": "a blue 3", "seed": 1}, "not paired: other prompt and seed"),
        ({"seed": None}, "not paired: unknown seed"),
        ({"prompt": None, "seed": None}, "not paired: unknown prompt and seed"),
    ],
)
def test_videos_are_paired_only_by_prompt_and_seed(other, words):
    assert pairing([video(), video("b", **other)]) == words
    assert pairing([video(), video(), video("b", **other)]) == words
    assert pairing([video("b", **other)]) == ""


def test_the_shortest_video_decides_and_what_cannot_be_shown_is_refused():
    assert check_videos([video(), video(frames=9)], [], latent_frame_of(9, 2)) == 9
    for videos, strip, latent in (
        ([], [], None),
        ([video()] * 5, [], None),
        ([video(frames=0)], [], None),
        ([video(fps=0.0)], [], None),
        ([video()], [Strip("PSNR", "dB", {"a": np.zeros(16)})], None),
        ([video()], [], [0] * 16),
        ([video()], [], [1] * 17),
        ([video()], [], [0, 2, *[1] * 15]),
    ):
        with pytest.raises(InputError):
            check_videos(videos, strip, latent)


@pytest.mark.parametrize("frames", [1, 2, 17, 81])
@pytest.mark.parametrize("factor", [2, 4])
def test_latent_frames_are_those_of_the_decoder(frames, factor):
    latent = latent_frame_of(frames, factor)
    assert len(latent) == frames and latent[0] == 0 and latent[-1] == -(-(frames - 1) // factor)
    assert all(latent.count(one) <= factor for one in set(latent)) and latent.count(0) == 1


@pytest.mark.parametrize("raw", [None, 3, {}, {"video_frame": -1}, {"video_frame": 17}, {"video_frame": 1.5},
                                 {"video_frame": [1]}, {"video_frame": float("inf")}])  # fmt: skip
def test_messages_that_name_no_frame_are_ignored(raw):
    assert parse_frame(raw, 17) is None
    assert parse_frame({"video_frame": 16.0}, 17) == 16


@pytest.mark.parametrize("shape", [(0, 0), (2, 3), (4,), (2, 2, 2)])
def test_a_frame_map_is_square(shape):
    with pytest.raises(InputError, match="frame_q"):
        frame_map(np.zeros(shape), title="x", palette=["#000000", "#ffffff"])


def test_numbers_under_the_transport_follow_from_the_files(tmp_path: Path):
    frames = np.full((5, 16, 16, 3), 100, np.uint8)
    frames[3:] = 130
    paths = []
    for name, shift, seed in (("a", 0, 0), ("b", 10, 0), ("c", 10, 1)):
        paths.append(tmp_path / f"{name}.mp4")
        write_video(frames + np.uint8(shift), paths[-1], 8, {"prompt": "p", "settings": {"seed": seed}})
    places = Places(tmp_path)
    files = {path.stem: path for path in paths}
    (a, _, c), *unpaired = told(places, files)
    assert (a.frames, a.fps, a.width, a.prompt, a.seed, c.seed) == (5, 8.0, 16, "p", 0, 1)
    assert a.address.startswith("data:video/mp4;base64,")
    psnr, change = strips(*told(places, {name: files[name] for name in "ab"})[1:])
    # Ten grey levels apart: 10·log10(255² / 10²) = 28.1 dB, to the rounding of the codec.
    np.testing.assert_allclose(psnr.lines["b against a"], 28.13, atol=1.0)
    assert np.isnan(change.lines["a"][0])
    np.testing.assert_allclose(change.lines["a"][1:], [0, 0, 30, 0], atol=1.0)
    # What is not paired is not compared pixel by pixel.
    assert [strip.name for strip in strips(*unpaired)] == ["change from the frame before"]


def test_every_video_is_decoded_once_whatever_is_told_of_it(tmp_path: Path, monkeypatch):
    decoded = []

    def read(path: str) -> tuple[np.ndarray, float, dict[str, object]]:
        decoded.append(Path(path).stem)
        return read_video(path)

    monkeypatch.setattr("pare.video.read_video", read)
    files = {name: tmp_path / f"{name}.mp4" for name in "abcd"}
    for shift, path in enumerate(files.values()):
        frames = np.full((5, 16, 16, 3), 100 + 10 * shift, np.uint8)
        write_video(frames, path, 8, {"prompt": "p", "settings": {"seed": 0}})
    videos, likeness, change = told(Places(tmp_path), files)
    assert (len(videos), list(likeness), list(change)) == (4, ["b", "c", "d"], list(files))
    assert decoded == list(files)
