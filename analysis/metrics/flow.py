"""Motion of one video by dense optical flow: how much moves, how much stands still, what the flow does not explain.

Flow is scikit-image's TV-L1. Of scikit-image's two methods it is the one with sharp edges of motion: on 20 drawn clips of
48 x 48 pixels with one moving digit and a known flow (`workbench.demo.moving_digits`, seeds 0 to 19, three pairs each) its mean
end-point error is 0.11 pixels and 86 % of pixels count as still, where 93 % are; iterative Lucas-Kanade (`optical_flow_ilk`) has
0.19 and 79 % with radius 3, 0.32 and 66 % with radius 7, since its window smears the digit's motion over the background. With
noise of 1 % of the range TV-L1 has 0.19 (0.23 without the slight blur before it), Lucas-Kanade 0.36 and 0.37. On textures that
move as a whole both are within 0.05 pixels.
"""

import math
from itertools import pairwise

import numpy as np
from jaxtyping import Float
from scipy.ndimage import map_coordinates
from skimage.color import rgb2gray
from skimage.filters import gaussian
from skimage.registration import optical_flow_tvl1
from skimage.transform import downscale_local_mean

from analysis.metrics.pixels import Video, as_float, check_video

ATTACHMENT = 25
BLUR = 0.7
# scikit-image's own 15 warps per level take three times as long and give the same errors on those clips.
WARPS = 5
# Larger frames are averaged down to this many pixels on their longer side: the flow of one 480p pair takes seconds.
LONGEST_SIDE = 256
# Pixels per video frame below which a pixel counts as still; decoders tremble by a tenth.
STILL = 0.25
# Share of pixels that move fastest, as in VBench's dynamic degree.
FASTEST = 0.05
# Sundaram, Brox, Keutzer (ECCV 2010): where forward and backward flow do not cancel, something was covered.
OCCLUSION_RELATIVE, OCCLUSION_ABSOLUTE = 0.01, 0.5


def optical_flow(video: Video, *, backward: bool = False) -> Float[np.ndarray, "pairs 2 rows columns"]:
    """Displacement (x right, y down) in pixels of the video from every frame to the next (`backward`: to the one before).

    Video uint8 or float in 0..1 [frames, height, width, 3]; forward flow t belongs to frame t, backward flow t to frame
    t + 1. Frames above 256 pixels are averaged down by a whole factor, so rows and columns may be fewer; displacements
    stay in the video's own pixels. Zach, Pock, Bischof, A duality based approach for realtime TV-L1 optical flow (2007).
    Raises `InputError` for anything else than such a video with at least two frames.

    >>> texture = gaussian(np.random.default_rng(0).random((32, 32)), 2, mode="wrap")
    >>> texture = (texture - texture.min()) / np.ptp(texture)
    >>> video = np.stack([np.roll(texture, 2 * t, axis=1) for t in range(3)])[..., None].repeat(3, axis=-1)
    >>> np.abs(optical_flow(video).mean(axis=(0, 2, 3))).round(1).tolist()
    [2.0, 0.0]
    """
    check_video(video, frames=2)
    factor = _factor(video)
    grey = _reduced(video)
    smooth = [gaussian(frame, BLUR) for frame in grey]
    pairs = [(b, a) if backward else (a, b) for a, b in pairwise(smooth)]
    # scikit-image gives (rows, columns).
    return np.stack([optical_flow_tvl1(a, b, attachment=ATTACHMENT, num_warp=WARPS)[::-1] * factor for a, b in pairs])


def flow_magnitude(flow: Float[np.ndarray, "pairs 2 rows columns"]) -> Float[np.ndarray, " pairs"]:
    """Mean length of the flow over all pixels, pixels per video frame.

    >>> flow_magnitude(np.stack([np.full((1, 4, 4), 3.0), np.full((1, 4, 4), 4.0)], axis=1)).tolist()
    [5.0]
    """
    return _length(flow).mean(axis=(1, 2))


def fastest_flow(flow: Float[np.ndarray, "pairs 2 rows columns"]) -> Float[np.ndarray, " pairs"]:
    """Mean length of the flow over the 5 % of pixels that move fastest: motion that a small object does not dilute.

    VBench's dynamic degree thresholds this number (there with RAFT; Huang et al., CVPR 2024).
    """
    lengths = np.sort(_length(flow).reshape(len(flow), -1), axis=1)
    return lengths[:, -max(1, round(FASTEST * lengths.shape[1])) :].mean(axis=1)


def still_share(flow: Float[np.ndarray, "pairs 2 rows columns"]) -> Float[np.ndarray, " pairs"]:
    """Share of pixels whose flow is shorter than 0.25 pixels per video frame.

    >>> flow = np.zeros((1, 2, 4, 4))
    >>> flow[:, 0, :, :1] = 2
    >>> still_share(flow).tolist()
    [0.75]
    """
    return (_length(flow) < STILL).mean(axis=(1, 2))


def end_point_error(
    flow_a: Float[np.ndarray, "pairs 2 rows columns"], flow_b: Float[np.ndarray, "pairs 2 rows columns"]
) -> Float[np.ndarray, " pairs"]:
    """Mean over pixels of ‖flow_a − flow_b‖₂ in pixels: how differently two videos move.

    Baker et al., A database and evaluation methodology for optical flow (2011).

    >>> end_point_error(np.zeros((1, 2, 2, 2)), np.ones((1, 2, 2, 2))).round(3).tolist()
    [1.414]
    """
    return _length(flow_a - flow_b).mean(axis=(1, 2))


def warp_error(
    video: Video,
    flow: Float[np.ndarray, "pairs 2 rows columns"],
    backward: Float[np.ndarray, "pairs 2 rows columns"],
) -> Float[np.ndarray, " pairs"]:
    """What motion does not explain: mean squared difference in 0..1² of frame t and frame t + 1 drawn back along the flow.

    E_t = mean over visible pixels and channels of (V_t(p) − V_{t+1}(p + flow_t(p)))². Left out are pixels that leave the
    frame and those where forward and backward flow do not cancel (covered by something). NaN where none is left.
    Lai et al., Learning blind video temporal consistency (ECCV 2018). `flow` and `backward` are `optical_flow`'s.
    """
    factor = _factor(video)
    frames = _averaged(as_float(video), factor)
    errors = []
    for first, second, there, back in zip(frames, frames[1:], flow / factor, backward / factor, strict=False):
        rows, columns = np.indices(first.shape[:2], dtype=float)
        at = np.stack([rows + there[1], columns + there[0]])
        drawn = np.stack(
            [map_coordinates(second[..., each], at, order=1, mode="nearest") for each in range(3)], axis=-1
        )
        returned = np.stack([map_coordinates(each, at, order=1, mode="nearest") for each in back])
        gap = ((there + returned) ** 2).sum(axis=0)
        allowed = OCCLUSION_RELATIVE * ((there**2).sum(axis=0) + (returned**2).sum(axis=0)) + OCCLUSION_ABSOLUTE
        last = np.array(first.shape[:2])[:, None, None] - 1
        visible = (gap <= allowed) & (at >= 0).all(axis=0) & (at <= last).all(axis=0)
        errors.append(((first - drawn) ** 2)[visible].mean() if visible.any() else math.nan)
    return np.array(errors, float)


def _length(flow: np.ndarray) -> np.ndarray:
    return np.hypot(flow[:, 0], flow[:, 1], dtype=float)


def _factor(video: Video) -> int:
    return math.ceil(max(video.shape[1:3]) / LONGEST_SIDE)


def _reduced(video: Video) -> np.ndarray:
    """Grey frames in 0..1, no longer than LONGEST_SIDE."""
    return _averaged(rgb2gray(as_float(video)), _factor(video))


def _averaged(frames: np.ndarray, factor: int) -> np.ndarray:
    if factor == 1:
        return frames
    height, width = (size // factor * factor for size in frames.shape[1:3])
    blocks = (1, factor, factor, 1)[: frames.ndim]
    return downscale_local_mean(frames[:, :height, :width], blocks)
