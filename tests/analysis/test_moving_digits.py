"""The oracle reads what was drawn, and says None where nothing can be read."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.metrics.moving_digits import (
    TOLERANCE,
    Reading,
    angle_between,
    direction_angle,
    nearest_colour,
    nearest_direction,
    read,
    score,
)
from analysis.metrics.moving_digits_factors import COLOURS, DIRECTIONS, SPEEDS, Factors, glyph, parse_caption, scans
from analysis.metrics.moving_digits_glyphs import COPIES, glyph_reader
from analysis.metrics.moving_digits_track import crops, track
from analysis.metrics.proportions import wilson_interval
from pare.errors import InputError
from workbench.demo.moving_digits import draw_clip
from workbench.demo.settings import DataSettings

DATA = DataSettings()
SIZE, FRAMES = DATA.height, DATA.frames
NOTHING = {"digit": None, "colour": None, "angle": None, "direction": None, "speed": None, "pixels_per_frame": None}

factors_drawn = st.builds(
    lambda digit, colour, motion: Factors(digit, colour, *motion),
    st.integers(0, 9),
    st.sampled_from(list(COLOURS)),
    st.one_of(st.just((None, "still")), st.tuples(st.sampled_from(list(DIRECTIONS)), st.sampled_from(SPEEDS[1:]))),
)


@pytest.fixture(scope="module")
def real():
    clips = [draw_clip(DATA, seed, held_out=True) for seed in range(2000, 2120)]
    return [(clip, read(clip.video, DATA)) for clip in clips]


def mask_of(digit: int, number: int = 0) -> np.ndarray:
    images, labels = scans(DATA.held_out_scans, DATA.seed, True)
    return glyph(images[np.flatnonzero(labels == digit)[number]], DATA.digit_size)


def drawn(masks, corners, colours, background=0.2) -> np.ndarray:
    """A video of masks at corners (x, y) in colours, one each per frame, on a plain background."""
    frames = []
    for mask, (x, y), colour in zip(masks, corners, colours, strict=True):
        # A rim of zeros: reading between pixels cuts off what would fall half outside the mask, which moves its centre.
        centre = (SIZE - 1) / 2 + 1
        moved = crops(np.pad(mask, 1)[None], np.array([[centre - x, centre - y]]), SIZE)[0]
        frames.append(background * (1 - moved[..., None]) + np.array(colour) * moved[..., None])
    return np.round(np.stack(frames) * 255).astype(np.uint8)


def straight(start, velocity) -> np.ndarray:
    return np.array(start) + np.arange(FRAMES)[:, None] * np.array(velocity)


def clip_of(digit=3, corners=None, colour=COLOURS["green"]) -> np.ndarray:
    corners = straight((12.0, 12.0), (0.0, 0.0)) if corners is None else corners
    return drawn([mask_of(digit)] * FRAMES, corners, [colour] * FRAMES)


@pytest.mark.parametrize("attribute", ["digit", "colour", "direction", "speed", "consistent"])
def test_real_clips_of_held_out_scans_are_read_right(real, attribute):
    counted = [right for clip, reading in real if (right := score(reading, clip.factors)[attribute]) is not None]
    assert len(counted) >= 90
    assert np.mean(counted) >= 0.97


@pytest.mark.parametrize("change", ["noise", "brighter", "blurred over time"])
def test_readings_survive_what_a_decoder_does(real, change):
    rng = np.random.default_rng(0)
    for clip, reading in real[:25]:
        video = clip.video.astype(float)
        changed = {
            "noise": video + rng.normal(0, 15, video.shape),
            "brighter": video * 1.2,
            "blurred over time": (video + np.concatenate([video[:1], video[:-1]])) / 2,
        }[change]
        found = read(np.clip(changed, 0, 255).round().astype(np.uint8), DATA)
        assert (found.colour, found.direction, found.speed) == (reading.colour, reading.direction, reading.speed)
        assert found.digit == reading.digit or reading.digit_confidence < 0.9


def test_centres_follow_the_digit_to_a_fraction_of_a_pixel(real):
    for clip, _ in real[:40]:
        offset = track(clip.video, DATA.digit_size).centres - clip.corners
        assert np.abs(offset - offset.mean(0)).max() < 0.5


def test_still_digits_are_told_from_moving_ones_and_have_no_direction(real):
    for clip, reading in real:
        assert (reading.direction is None) == (clip.factors.direction is None)
        assert (reading.pixels_per_frame < 0.01) == (clip.factors.speed == "still")


@pytest.mark.parametrize("colour", COLOURS)
def test_colour_of_a_still_digit_needs_no_motion(colour):
    reading = read(clip_of(5, colour=COLOURS[colour]), DATA)
    assert (reading.digit, reading.colour, reading.speed) == (5, colour, "still")
    assert reading.angle is None
    assert reading.consistency == pytest.approx(1)


@pytest.mark.parametrize("speed", [0.5, 0.6, 0.7])
def test_any_direction_is_measured_in_degrees(speed):
    for number, angle in enumerate(np.arange(-180.0, 180.0, 11.0).tolist()):
        velocity = speed * np.array([np.cos(np.radians(angle)), -np.sin(np.radians(angle))])
        reading = read(clip_of(number % 10, straight((12, 12), velocity)), DATA)
        # 2.1 degrees at worst over every third degree, all digits and five speeds; what counts as right is within 22.5.
        assert angle_between(reading.angle, angle) < 3
        assert reading.direction == nearest_direction(reading.angle)
        assert reading.pixels_per_frame == pytest.approx(speed, rel=0.02)
        assert reading.direction_confidence > 0.99


def test_turning_back_changes_neither_first_direction_nor_speed():
    x = np.concatenate([np.arange(9.0), np.arange(7, -1, -1)]) * 2 + 4
    reading = read(clip_of(corners=np.stack([x, np.full(FRAMES, 12.0)], -1)), DATA)
    assert (reading.direction, reading.speed) == ("right", "fast")


def test_a_digit_that_waits_and_then_runs_has_no_first_direction():
    x = np.maximum(0, np.arange(FRAMES) - 7) * 2.0
    reading = read(clip_of(corners=np.stack([x, np.full(FRAMES, 12.0)], -1)), DATA)
    assert reading.direction is None
    assert reading.speed == "slow"


@pytest.mark.parametrize("kind", ["black", "white", "dark noise", "noise", "two digits"])
def test_what_shows_no_single_digit_is_unreadable(kind):
    rng = np.random.default_rng(0)
    video = {
        "black": np.zeros((FRAMES, SIZE, SIZE, 3), np.uint8),
        "white": np.full((FRAMES, SIZE, SIZE, 3), 255, np.uint8),
        "dark noise": rng.integers(0, 110, (FRAMES, SIZE, SIZE, 3), dtype=np.uint8),
        "noise": rng.integers(0, 256, (FRAMES, SIZE, SIZE, 3), dtype=np.uint8),
        "two digits": np.maximum(
            clip_of(3, straight((0, 12), (0, 0))), clip_of(8, straight((24, 12), (0, 0)), COLOURS["red"])
        ),
    }[kind]
    reading = read(video, DATA)
    assert {name: getattr(reading, name) for name in NOTHING} == NOTHING
    assert reading.digit_confidence == reading.colour_confidence == reading.direction_confidence == 0
    found = score(reading, Factors(3, "green", "up", "slow"))
    assert not any(found[name] for name in ("digit", "colour", "direction", "speed", "consistent"))


def test_a_shape_that_is_no_digit_has_colour_and_motion_but_no_digit():
    square = np.zeros((24, 24))
    square[4:20, 4:20] = 1
    corners = straight((4, 12), (0.8, 0.0))
    reading = read(drawn([square] * FRAMES, corners, [COLOURS["red"]] * FRAMES), DATA)
    assert (reading.digit, reading.colour, reading.direction, reading.speed) == (None, "red", "right", "slow")


def test_a_colour_outside_the_table_is_none():
    reading = read(clip_of(4, colour=(0.62, 0.62, 0.62)), DATA)
    assert (reading.digit, reading.colour) == (4, None)
    assert nearest_colour(np.array([0.1, 0.1, 0.1])) == (None, 0.0)


def test_another_digit_halfway_is_inconsistent():
    corners = straight((12, 12), (0, 0))
    masks = [mask_of(1)] * 8 + [mask_of(0)] * 9
    reading = read(drawn(masks, corners, [COLOURS["blue"]] * FRAMES), DATA)
    assert not score(reading, Factors(0, "blue", None, "still"))["consistent"]
    assert reading.consistency < read(clip_of(1), DATA).consistency


def test_a_digit_missing_from_a_few_frames_is_inconsistent_and_still_read():
    video = clip_of(6, straight((4, 12), (0.8, 0)))
    video[[8, 13]] = 40
    reading = read(video, DATA)
    assert (reading.digit, reading.direction, reading.frames_seen) == (6, "right", pytest.approx(15 / 17))
    assert reading.consistency < 0.9


def test_jumping_about_is_no_speed():
    corners = np.array([(0, 0), (0, 24), (24, 24), (24, 0)] * 5)[:FRAMES].astype(float)
    assert read(clip_of(corners=corners), DATA).speed is None


def test_reading_leaves_the_video_as_it_was_and_repeats_itself(real):
    clip, reading = real[0]
    before = clip.video.copy()
    assert read(clip.video, DATA) == reading
    assert np.array_equal(clip.video, before)


def test_short_videos_are_refused():
    with pytest.raises(InputError, match="5 frames"):
        read(np.zeros((5, 48, 48, 3), np.uint8), DATA)


@given(factors=factors_drawn)
def test_a_reading_of_what_was_asked_for_is_right_in_everything(factors):
    angle = None if factors.direction is None else direction_angle(factors.direction)
    reading = Reading(
        factors.digit, 1.0, factors.colour, 1.0, angle, factors.direction, 1.0, factors.speed, 1.0, 0.99, 1.0
    )
    found = score(reading, factors)
    assert found.pop("direction") is (None if factors.direction is None else True)
    assert found == {"digit": True, "colour": True, "speed": True, "consistent": True, "consistency": 0.99}
    assert parse_caption(factors.caption) == factors


@given(off=st.floats(-180, 180), direction=st.sampled_from(list(DIRECTIONS)))
def test_direction_is_right_within_its_tolerance(off, direction):
    angle = direction_angle(direction) + off
    reading = Reading(3, 1.0, "red", 1.0, angle, nearest_direction(angle), 1.0, "slow", 0.8, 0.99, 1.0)
    if abs(abs(off) - TOLERANCE) > 1e-6:
        assert score(reading, Factors(3, "red", direction, "slow"))["direction"] is (abs(off) < TOLERANCE)


@pytest.mark.parametrize(
    "text",
    ["", "a red 7", "a pink 7 standing still", "a red 12 standing still", "a red 7 moving up", "a red 7 moving up, still",
     "A red 7 moving up, fast", "a red seven moving up, fast"],
)  # fmt: skip
def test_other_captions_are_refused(text):
    with pytest.raises(ValueError, match="not a moving-digits caption"):
        parse_caption(text)


def test_the_classifier_knows_the_training_scans_alone():
    training, labels = scans(DATA.held_out_scans, DATA.seed, False)
    reader = glyph_reader(DATA.digit_size, DATA.held_out_scans, DATA.seed)
    assert reader.neighbours.n_samples_fit_ == len(training) * len(COPIES)
    assert np.array_equal(reader.labels[: len(labels)], labels)


@given(n=st.integers(1, 400), data=st.data())
def test_wilson_intervals_hold_the_share_and_narrow_with_n(n, data):
    right = data.draw(st.integers(0, n))
    low, high = wilson_interval(right, n)
    assert -1e-12 <= low <= right / n + 1e-12 and right / n - 1e-12 <= high <= 1 + 1e-12
    wider_low, wider_high = wilson_interval(right, n, 0.99)
    assert wider_low <= low + 1e-12 and high <= wider_high + 1e-12
    assert wilson_interval(0, 0) == (0.0, 1.0)
