"""Videos come back as they went in, play in a browser, and appear whole or not at all."""

import doctest
import struct

import numpy as np
import pytest

import pare.video
from pare.errors import InputError
from pare.video import check_video_path, read_video, write_video


def _clip(frames: int, height: int, width: int) -> np.ndarray:
    """A bright square that moves over a dark gradient."""
    video = np.zeros((frames, height, width, 3), np.uint8)
    video[..., 2] = np.linspace(0, 120, width).astype(np.uint8)
    for index in range(frames):
        video[index, 4:12, 2 + index : 10 + index] = (220, 60, 40)
    return video


def _boxes(path) -> list[str]:
    data, position, names = path.read_bytes(), 0, []
    while position < len(data):
        size, name = struct.unpack(">I4s", data[position : position + 8])
        names.append(name.decode())
        position += size
    return names


def test_doctests():
    assert doctest.testmod(pare.video).failed == 0


@pytest.mark.parametrize(("frames", "height", "width", "fps"), [(17, 48, 48, 8), (5, 64, 96, 16), (1, 16, 16, 24)])
def test_size_length_speed_and_colours_survive(tmp_path, frames, height, width, fps):
    video = _clip(frames, height, width)
    write_video(video, tmp_path / "v.mp4", fps, {})
    back, speed, _ = read_video(tmp_path / "v.mp4")
    assert back.shape == video.shape and speed == fps
    error = np.abs(back.astype(int) - video.astype(int))
    # Colour is stored at half resolution, so edges differ; areas do not.
    assert np.median(error) <= 2 and error.mean() < 6


def test_metadata_survive_every_character(tmp_path):
    metadata = {"prompt": 'a "red" 7; x = #1 \\ 100 %\nsecond line', "ü": [1, 2.5, None, True], "empty": ""}
    write_video(_clip(3, 16, 16), tmp_path / "v.mp4", 8, metadata)
    assert read_video(tmp_path / "v.mp4")[2] == metadata


def test_a_browser_can_start_before_the_file_is_complete(tmp_path):
    path = tmp_path / "v.mp4"
    write_video(_clip(3, 32, 32), path, 8, {})
    boxes = _boxes(path)
    assert boxes.index("moov") < boxes.index("mdat")
    data = path.read_bytes()
    assert b"avc1" in data
    # The avcC box names the profile; 4:4:4 profiles (244) do not play in browsers.
    assert data[data.index(b"avcC") + 5] in (66, 77, 100)


def test_the_same_frames_give_the_same_file(tmp_path):
    for name in ("a.mp4", "b.mp4"):
        write_video(_clip(9, 32, 32), tmp_path / name, 8, {"seed": 1})
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_nothing_is_left_when_writing_fails(tmp_path):
    for bad in (_clip(2, 17, 16), np.zeros((0, 16, 16, 3), np.uint8)):
        with pytest.raises(InputError, match="even height"):
            write_video(bad, tmp_path / "v.mp4", 8, {})
    assert list(tmp_path.iterdir()) == []


def test_names_that_cannot_become_a_video_are_refused(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.mp4").mkdir()
    for name in ("v.gif", "v", "folder.mp4", "file/v.mp4"):
        with pytest.raises(InputError, match="--out"):
            check_video_path(tmp_path / name)
    check_video_path(tmp_path / "new" / "folder" / "v.mp4")


def test_a_folder_that_cannot_be_written_is_refused_before_the_work(tmp_path, monkeypatch):
    # Whoever runs the tests as root may write anywhere, so the answer is given here.
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(InputError, match="can be written"):
        check_video_path(tmp_path / "v.mp4")


def test_what_is_no_video_is_refused(tmp_path):
    (tmp_path / "note.mp4").write_text("no video")
    for name in ("missing.mp4", "note.mp4"):
        with pytest.raises(InputError, match="video"):
            read_video(tmp_path / name)
