"""Moving digits show what their captions say."""

import numpy as np
import pytest

from workbench.demo.moving_digits import COLOURS, DIRECTIONS, draw_clip, parse_caption, reflect, scans
from workbench.demo.settings import DataSettings

DATA = DataSettings()
CLIPS = [draw_clip(DATA, seed, held_out=False) for seed in range(120)]


def test_a_clip_is_a_function_of_its_seed_alone():
    again = draw_clip(DATA, 7, held_out=False)
    assert np.array_equal(again.video, CLIPS[7].video)
    assert not np.array_equal(again.video, draw_clip(DATA, 7, held_out=True).video)


def test_training_and_held_out_scans_never_meet():
    training, _ = scans(DATA.held_out_scans, DATA.seed, False)
    held_out, _ = scans(DATA.held_out_scans, DATA.seed, True)
    assert len(training) + len(held_out) == 1797
    assert not {scan.tobytes() for scan in training} & {scan.tobytes() for scan in held_out}


@pytest.mark.parametrize("clip", CLIPS[:40], ids=lambda clip: clip.factors.caption)
def test_first_direction_lasts_and_speed_is_as_told(clip):
    moves = np.diff(clip.corners, axis=0)[: DATA.first_direction_frames]
    if clip.factors.direction is None:
        assert np.all(moves == 0)
        return
    unit = np.array(DIRECTIONS[clip.factors.direction], float)
    expected = unit / np.hypot(*unit) * {"slow": DATA.slow, "fast": DATA.fast}[clip.factors.speed]
    assert np.allclose(moves, expected)


def test_the_digit_never_leaves_the_picture():
    for clip in CLIPS:
        assert clip.corners.min() >= 0
        assert clip.corners.max() <= DATA.height - DATA.digit_size


def test_the_digit_has_its_colour_and_the_background_stands_still():
    for clip in CLIPS[:40]:
        x, y = np.round(clip.corners[0]).astype(int)
        patch = clip.video[0, y : y + DATA.digit_size, x : x + DATA.digit_size].reshape(-1, 3) / 255
        nearest = np.abs(patch - np.array(COLOURS[clip.factors.colour])).sum(1).min()
        assert nearest < 0.15
        if clip.factors.direction is None:
            assert np.all(clip.video == clip.video[0])


def test_captions_are_read_back_and_others_refused():
    for clip in CLIPS:
        assert parse_caption(clip.factors.caption) == clip.factors
    with pytest.raises(ValueError):
        parse_caption("a red 7 moving nowhere, fast")


def test_every_factor_occurs():
    factors = [clip.factors for clip in CLIPS]
    assert {f.digit for f in factors} == set(range(10))
    assert {f.colour for f in factors} == set(COLOURS)
    assert {f.direction for f in factors} == {None, *DIRECTIONS}
    assert {f.speed for f in factors} == {"still", "slow", "fast"}


def test_walls_turn_the_motion_back():
    assert np.allclose(reflect(np.array([0.0, 5.0, 11.0, 19.0, 21.0]), 10.0), [0, 5, 9, 1, 1])
