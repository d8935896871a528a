"""Video metrics on synthetic motion with known answers."""

import doctest
import importlib

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, map_coordinates

from analysis.metrics import appearance, flicker, flow
from analysis.metrics.video import METRICS, measure, measure_pair
from pare.errors import InputError

MODULES = ["appearance", "by_frame", "flicker", "flow", "pixels", "video"]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    found = doctest.testmod(importlib.import_module(f"analysis.metrics.{name}"))
    assert found.attempted and not found.failed


def texture(size=48, sigma=2.0, seed=0):
    """A periodic texture in 0..1."""
    values = gaussian_filter(np.random.default_rng(seed).random((size, size)), sigma, mode="wrap")
    return (values - values.min()) / np.ptp(values)


def shifted(image, right, down):
    """The periodic image moved by any number of pixels, exact for what a grid of this size can hold."""
    rows, columns = np.fft.fftfreq(image.shape[0])[:, None], np.fft.fftfreq(image.shape[1])
    turned = np.fft.fft2(image) * np.exp(-2j * np.pi * (rows * down + columns * right))
    return np.clip(np.real(np.fft.ifft2(turned)), 0, 1)


def moving(right, down, frames=4, **about):
    image = texture(**about)
    return np.stack([shifted(image, right * t, down * t) for t in range(frames)])[..., None].repeat(3, axis=-1)


def as_bytes(video):
    return np.round(video * 255).astype(np.uint8)


def square(speed, frames=5, size=48, side=14):
    """A bright textured square that moves right over a still dark texture."""
    ground, front = 0.3 * texture(size, seed=1), 0.5 + 0.5 * texture(side, sigma=1.0, seed=2)
    video = np.tile(ground, (frames, 1, 1))
    for t in range(frames):
        left = 6 + speed * t
        video[t, 17 : 17 + side, left : left + side] = front
    return video[..., None].repeat(3, axis=-1)


@pytest.mark.parametrize("velocity", [(1.0, 0.0), (0.0, -2.0), (0.4, 0.0), (3.0, -2.0)])
def test_a_translated_texture_moves_at_its_velocity(velocity):
    found = flow.optical_flow(as_bytes(moving(*velocity)))
    # At the border pixels enter that were not there before, though here they are those that left.
    inner = found[:, :, 6:-6, 6:-6]
    assert inner.mean(axis=(2, 3)) == pytest.approx(np.tile(velocity, (3, 1)), abs=0.05)
    assert flow.flow_magnitude(found) == pytest.approx(np.full(3, np.hypot(*velocity)), abs=0.06)
    # The fastest pixels are those at the border, where what enters has no origin.
    assert (flow.fastest_flow(found) > np.hypot(*velocity) - 0.05).all()
    assert flow.fastest_flow(found) == pytest.approx(np.full(3, np.hypot(*velocity)), abs=0.8)
    assert (flow.still_share(found) < 0.02).all()


def test_backward_flow_is_the_other_way_and_large_frames_keep_their_pixels():
    video = moving(2.0, 0.0, frames=2)
    assert flow.optical_flow(video, backward=True)[:, 0].mean() == pytest.approx(-2, abs=0.05)
    large = moving(6.0, -3.0, frames=2, size=288, sigma=8.0)
    found = flow.optical_flow(large)
    assert found.shape == (1, 2, 144, 144)
    assert found.mean(axis=(0, 2, 3)) == pytest.approx([6, -3], abs=0.15)


def test_a_still_video_has_no_motion_no_flicker_and_nothing_unexplained():
    found = measure(as_bytes(moving(0, 0))).summary
    for name in ("flow_magnitude", "fastest_flow", "warp_error", "flicker"):
        assert found[name] == 0
    assert found["still_share"] == 1


def test_one_moving_square_moves_its_own_share_of_pixels():
    video = as_bytes(square(speed=2))
    found = flow.optical_flow(video)
    share = 1 - (14 * 14) / 48**2
    assert flow.still_share(found) == pytest.approx(np.full(4, share), abs=0.06)
    assert flow.fastest_flow(found) == pytest.approx(np.full(4, 2.0), abs=0.25)
    inside = found[0, :, 19:29, 10:18]
    assert np.median(inside[0]) == pytest.approx(2, abs=0.1) and np.median(inside[1]) == pytest.approx(0, abs=0.1)
    faster = flow.optical_flow(as_bytes(square(speed=4)))
    assert (flow.fastest_flow(faster) > 1.6 * flow.fastest_flow(found)).all()


def test_flow_error_is_the_distance_of_two_velocities():
    one, other, still = (flow.optical_flow(moving(*velocity)) for velocity in ((1.0, 0.0), (1.0, 2.0), (0.0, 0.0)))
    assert flow.end_point_error(one, one).tolist() == [0, 0, 0]
    assert flow.end_point_error(one, other) == pytest.approx(np.full(3, 2.0), abs=0.1)
    assert flow.end_point_error(one, still) == pytest.approx(flow.flow_magnitude(one))


def test_warp_error_sees_what_motion_does_not_explain():
    def error(video):
        there, back = flow.optical_flow(video), flow.optical_flow(video, backward=True)
        return flow.warp_error(video, there, back)

    video = 0.2 + 0.6 * moving(1.0, 0.0)
    explained = error(video)
    assert (explained < 2e-4).all()
    # Noise of standard deviation s in both frames leaves about 2s², less what drawing between pixels averages away.
    noise = np.random.default_rng(3).normal(scale=0.05, size=video.shape)
    assert error(np.clip(video + noise, 0, 1)) == pytest.approx(np.full(3, 2 * 0.05**2), rel=0.5)


def test_warp_error_by_brute_force():
    rng = np.random.default_rng(5)
    video, there = rng.random((3, 12, 14, 3)), rng.normal(scale=0.4, size=(2, 2, 12, 14))
    back = -there
    expected = []
    for t in range(2):
        total, count = 0.0, 0
        for y in range(12):
            for x in range(14):
                to_x, to_y = x + there[t, 0, y, x], y + there[t, 1, y, x]
                if not (0 <= to_x <= 13 and 0 <= to_y <= 11):
                    continue
                x0, y0 = min(int(to_x), 12), min(int(to_y), 10)
                right, down = to_x - x0, to_y - y0
                corner = [(0, 0, (1 - down) * (1 - right)), (0, 1, (1 - down) * right), (1, 0, down * (1 - right)),
                          (1, 1, down * right)]  # fmt: skip
                returned = sum(w * back[t, :, y0 + dy, x0 + dx] for dy, dx, w in corner)
                own = there[t, :, y, x]
                if ((own + returned) ** 2).sum() > 0.01 * ((own**2).sum() + (returned**2).sum()) + 0.5:
                    continue
                drawn = sum(w * video[t + 1, y0 + dy, x0 + dx] for dy, dx, w in corner)
                total, count = total + ((video[t, y, x] - drawn) ** 2).sum(), count + 3
        expected.append(total / count)
    assert flow.warp_error(video, there, back) == pytest.approx(expected, rel=1e-9)


def test_covered_pixels_are_left_out_of_the_warp_error():
    video = square(speed=4)
    there, back = np.zeros((4, 2, 48, 48)), np.zeros((4, 2, 48, 48))
    for t in range(4):
        there[t, 0, 17:31, 6 + 4 * t : 20 + 4 * t] = 4
        back[t, 0, 17:31, 10 + 4 * t : 24 + 4 * t] = -4
    assert flow.warp_error(video, there, back).tolist() == [0, 0, 0, 0]
    assert (flow.warp_error(video, there, -there) > 1e-3).all()


@pytest.mark.parametrize("amplitude", [0.02, 0.1])
def test_flicker_is_the_amplitude_of_an_alternating_brightness(amplitude):
    steady = 0.3 + 0.4 * moving(1.0, 0.0, frames=6)
    alternating = steady + amplitude * (-1.0) ** np.arange(6)[:, None, None, None]
    fading = steady + amplitude * np.arange(6)[:, None, None, None] / 6
    assert flicker.flicker(alternating) == pytest.approx(np.full(4, amplitude), abs=2e-4)
    assert flicker.flicker(as_bytes(alternating)) == pytest.approx(np.full(4, amplitude), abs=1e-3)
    assert flicker.flicker(fading).max() < 2e-4
    assert flicker.flicker(square(speed=3)).max() < 0.01


def test_sharpness_falls_with_every_level_of_blur():
    sharp = np.random.default_rng(4).random((48, 48))
    levels = [gaussian_filter(sharp, sigma, mode="wrap") for sigma in (0, 0.5, 1, 2, 4)]
    video = np.stack([(each - each.min()) / np.ptp(each) for each in levels])[..., None].repeat(3, axis=-1)
    found = appearance.sharpness(video)
    assert (np.diff(found) < -0.01).all() and found.min() >= 0 and found.max() <= 1
    # A frame's contrast is not its sharpness.
    assert appearance.sharpness(0.2 + 0.3 * video) == pytest.approx(found, abs=1e-9)


def test_psnr_is_that_of_the_noise_and_ssim_by_brute_force():
    first = moving(1.0, 0.0, frames=2)
    noise = np.random.default_rng(6).choice([-0.05, 0.05], size=first.shape)
    second = np.clip(first + noise, 0, 1)
    error = ((first - second) ** 2).mean(axis=(1, 2, 3))
    assert appearance.psnr(first, second) == pytest.approx(10 * np.log10(1 / error))
    assert appearance.psnr(as_bytes(first), as_bytes(first)).tolist() == [100, 100]
    row = np.arange(-5, 6)
    window = np.exp(-(row[:, None] ** 2 + row**2) / (2 * 1.5**2))
    window /= window.sum()
    values = []
    for channel in range(3):
        for y in range(5, 43):
            for x in range(5, 43):
                here = np.s_[0, y - 5 : y + 6, x - 5 : x + 6, channel]
                a, b = first[here], second[here]
                mean_a, mean_b = (window * a).sum(), (window * b).sum()
                var_a, var_b = (window * a**2).sum() - mean_a**2, (window * b**2).sum() - mean_b**2
                both = (window * a * b).sum() - mean_a * mean_b
                values.append(
                    (2 * mean_a * mean_b + 1e-4) * (2 * both + 9e-4)
                    / ((mean_a**2 + mean_b**2 + 1e-4) * (var_a + var_b + 9e-4))
                )  # fmt: skip
    assert appearance.ssim(first, second)[0] == pytest.approx(np.mean(values), abs=1e-9)


def test_series_stand_at_the_frames_they_belong_to_and_groups_stay_apart():
    video = as_bytes(square(speed=2))
    video[3:] = 255 - video[3:]
    found = measure(video)
    assert all(len(values) == 5 for values in found.series.values())
    for name in ("flow_magnitude", "still_share", "warp_error"):
        assert np.isnan(found.series[name][0]) and not np.isnan(found.series[name][1:]).any()
    assert np.isnan(found.series["flicker"][[0, 4]]).all() and np.nanargmax(found.series["flicker"]) in (2, 3)
    # The cut lies between frames 2 and 3.
    assert np.nanargmax(found.series["warp_error"]) == 3
    both = measure_pair(video, video, found, found)
    assert set(found.series) | set(both) == set(METRICS)
    assert {name for name, metric in METRICS.items() if metric.two} == set(both)
    assert {metric.group for metric in METRICS.values()} == {"motion", "steadiness", "appearance"}


@pytest.mark.parametrize(
    ("video", "words"),
    [
        (np.zeros((2, 16, 16, 3), np.uint8), "2 frames"),
        (np.zeros((4, 8, 16, 3), np.uint8), "8 x 16"),
        (np.full((4, 16, 16, 3), 1.5), "outside of 0..1"),
        (np.full((4, 16, 16, 3), np.nan), "outside of 0..1"),
    ],
)
def test_what_is_no_video_is_refused(video, words):
    with pytest.raises(InputError, match=words):
        measure(video)


def test_videos_of_two_sizes_are_refused():
    with pytest.raises(InputError, match="4 frames of 16 x 16 and 5 frames of 16 x 16"):
        appearance.psnr(np.zeros((4, 16, 16, 3), np.uint8), np.zeros((5, 16, 16, 3), np.uint8))


def test_the_still_threshold_is_between_pixels_that_tremble_and_pixels_that_move():
    rows, columns = np.indices((48, 48), dtype=float)
    image = texture()
    # The right half moves by one pixel, the left half trembles by a tenth.
    by = np.where(columns < 24, 0.1, 1.0)
    second = map_coordinates(image, [rows, columns - by], order=3, mode="wrap")
    video = np.clip(np.stack([image, second]), 0, 1)[..., None].repeat(3, axis=-1)
    assert flow.still_share(flow.optical_flow(video))[0] == pytest.approx(0.5, abs=0.08)
