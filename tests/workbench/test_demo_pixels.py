"""The drawn clips are what the frozen weights were trained on: not one bit of them may change."""

import hashlib

from workbench.demo.moving_digits import draw_clip
from workbench.demo.settings import DataSettings


def test_the_pixels_of_drawn_clips_never_change():
    digest = hashlib.sha256()
    for held_out in (False, True):
        for seed in range(6):
            clip = draw_clip(DataSettings(), seed, held_out=held_out)
            for part in (clip.video.tobytes(), clip.corners.tobytes(), clip.factors.caption.encode()):
                digest.update(part)
    assert digest.hexdigest() == "71259d0fd3b4a7621e98b84f7324a5435d1eb97911d024ae4cf7e2c95553d559"
