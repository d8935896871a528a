"""Real videos as clips: which frames, what of each frame, and how much of a file is read."""

import numpy as np
import pytest

from analysis.film import fill_frame, frame_indices, read_clip
from pare.errors import InputError
from pare.video import read_video, write_video


@pytest.mark.parametrize("own", [4.0, 8.0, 16.0, 23.976, 30.0])
def test_every_frame_is_the_nearest_in_time(own):
    found = frame_indices(40, 16, own)
    for number, index in enumerate(found):
        distances = np.abs(np.arange(200) / own - number / 16)
        assert distances[index] <= distances.min() + 1e-12
    assert (found == np.arange(40)).all() == (own == 16.0)


def test_a_video_without_a_rate_is_taken_frame_by_frame():
    for none in (0.0, float("nan"), float("inf")):
        assert frame_indices(5, 16, none).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("height", "width"), [(30, 60), (60, 30), (17, 41), (64, 64)])
def test_frames_are_filled_without_stretching(height, width):
    """A picture whose value is its own coordinate: what comes out has one slope both ways, and its centre stays."""
    rows, columns = np.mgrid[0:height, 0:width]
    picture = np.stack([rows * 3, columns * 3, rows * 0], -1)[None].astype(np.uint8)
    filled = fill_frame(picture, 16, 24)[0].astype(float)
    assert filled.shape == (16, 24, 3)
    down, across = (np.gradient(filled[4:-4, 4:-4, axis], axis=axis).mean() for axis in (0, 1))
    scale = max(16 / height, 24 / width)
    assert down == pytest.approx(3 / scale, rel=0.05) and across == pytest.approx(down, rel=0.05)
    assert filled[7:9, 11:13, 0].mean() == pytest.approx(3 * (height - 1) / 2, abs=3)
    assert filled[7:9, 11:13, 1].mean() == pytest.approx(3 * (width - 1) / 2, abs=3)


def test_a_frame_of_the_right_size_is_left_alone():
    frames = np.random.default_rng(0).integers(0, 256, (2, 16, 24, 3), dtype=np.uint8)
    np.testing.assert_array_equal(fill_frame(frames, 16, 24), frames)


def test_a_clip_has_the_rate_and_size_of_the_model(tmp_path):
    film = tmp_path / "film.mp4"
    grey = np.arange(0, 240, 5, dtype=np.uint8)
    write_video(np.broadcast_to(grey[:, None, None, None], (48, 32, 64, 3)).copy(), film, 24, {})
    clip = {"height": 16, "width": 16, "frames": 5}
    for fps, chosen in ((8, [0, 3, 6, 9, 12]), (24, [0, 1, 2, 3, 4]), (48, [0, 1, 1, 2, 2])):
        found = read_clip(film, **clip, fps=fps)
        assert found.shape == (5, 16, 16, 3)
        np.testing.assert_allclose(found.mean((1, 2, 3)), grey[chosen], atol=2)
    with pytest.raises(InputError, match="48 video frames at 24 a second; expected at least 49"):
        read_clip(film, **clip | {"frames": 17}, fps=8)


def test_only_the_start_of_a_long_video_is_read(tmp_path):
    film = tmp_path / "film.mp4"
    write_video(np.zeros((48, 16, 16, 3), np.uint8), film, 24, {"seed": 3})
    whole, part = read_video(film), read_video(film, seconds=0.5)
    assert len(whole[0]) == 48 and len(part[0]) == 13 and part[1:] == (24.0, {"seed": 3})
