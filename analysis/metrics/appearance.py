"""Pixels of videos without regard to motion: likeness of two videos of one seed, sharpness of one."""

import numpy as np
from jaxtyping import Float
from skimage.measure import blur_effect
from skimage.metrics import structural_similarity

from analysis.metrics.pixels import Video, as_float, check_same_shape, check_video

# Equal frames have no finite ratio; 100 dB is one grey level in one of 150,000 values.
LARGEST_PSNR = 100.0


def psnr(a: Video, b: Video) -> Float[np.ndarray, " frames"]:
    """Peak signal-to-noise ratio of every frame, 10·log10(1 / mean squared difference in 0..1), in dB, at most 100.

    Raises `InputError` for videos of different sizes.

    >>> grey = np.full((2, 16, 16, 3), 0.5)
    >>> psnr(grey, grey + 0.1).round(6).tolist(), psnr(grey, grey).tolist()
    ([20.0, 20.0], [100.0, 100.0])
    """
    check_same_shape(a, b)
    error = ((as_float(a) - as_float(b)) ** 2).mean(axis=(1, 2, 3))
    return -10 * np.log10(np.maximum(error, 10 ** (-LARGEST_PSNR / 10)))


def ssim(a: Video, b: Video) -> Float[np.ndarray, " frames"]:
    """Structural similarity of every frame, mean over channels and windows; 1 for equal frames.

    Gaussian windows of sigma 1.5 and population statistics, as in Wang, Bovik, Sheikh, Simoncelli (2004). Raises
    `InputError` for videos of different sizes and frames below 11 x 11 pixels.

    >>> grey = np.full((2, 16, 16, 3), 0.5)
    >>> ssim(grey, grey).tolist()
    [1.0, 1.0]
    """
    check_same_shape(a, b)
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    pairs = zip(as_float(a), as_float(b), strict=True)
    return np.array([structural_similarity(x, y, channel_axis=-1, data_range=1.0, **settings) for x, y in pairs])


def sharpness(video: Video) -> Float[np.ndarray, " frames"]:
    """1 − blur of every frame, 0 (blurred, or without any edge) to 1: how much of its edges a further blur would take.

    Crete, Dolmiere, Ladret, Nicolas, The blur effect (2007), on grey frames.

    >>> sharpness(np.full((1, 16, 16, 3), 0.5)).tolist()
    [0.0]
    """
    check_video(video)
    return np.array([1 - blur_effect(frame, channel_axis=-1) for frame in as_float(video)])
