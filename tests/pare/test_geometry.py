"""Shapes: the published ones, the nearest size that works, and what is refused."""

import doctest
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pare.geometry
from pare.errors import InputError
from pare.geometry import (
    PRESETS,
    Clip,
    Geometry,
    check_clip,
    flow_shift,
    latent_frames,
    read_geometry,
    tokens,
    tokens_per_frame,
)

WAN = PRESETS["wan2.1-t2v-14b"].geometry


def test_doctests():
    assert doctest.testmod(pare.geometry).failed == 0


@pytest.mark.parametrize(
    ("name", "blocks", "heads", "dim", "ffn", "in_channels", "image_dim", "added"),
    [
        ("wan2.1-t2v-1.3b", 30, 12, 1536, 8960, 16, None, None),
        ("wan2.1-t2v-14b", 40, 40, 5120, 13824, 16, None, None),
        ("wan2.1-i2v-14b", 40, 40, 5120, 13824, 36, 1280, 5120),
    ],
)
def test_presets_have_the_published_shapes(name, blocks, heads, dim, ffn, in_channels, image_dim, added):
    geometry = PRESETS[name].geometry
    assert (geometry.blocks, geometry.heads, geometry.head_dim, geometry.dim) == (blocks, heads, 128, dim)
    assert (geometry.ffn, geometry.in_channels, geometry.out_channels) == (ffn, in_channels, 16)
    assert (geometry.image_dim, geometry.added_kv_proj_dim) == (image_dim, added)
    assert geometry.image_to_video == (image_dim is not None)


def test_tokens_of_81_video_frames():
    assert latent_frames(WAN, 81) == 21
    assert (tokens_per_frame(WAN, 480, 832), tokens(WAN, Clip(480, 832, 81))) == (1560, 32_760)
    assert (tokens_per_frame(WAN, 720, 1280), tokens(WAN, Clip(720, 1280, 81))) == (3600, 75_600)
    assert round(1 / latent_frames(WAN, 81), 6) == 0.047619


def test_sampling_defaults():
    steps = {name: preset.defaults["steps"] for name, preset in PRESETS.items()}
    assert steps == {"wan2.1-t2v-14b": 50, "wan2.1-t2v-1.3b": 50, "wan2.1-i2v-14b": 40}
    assert PRESETS["wan2.1-t2v-1.3b"].defaults["guidance"] == 6.0
    assert WAN.text_tokens == 512 and PRESETS["wan2.1-i2v-14b"].geometry.image_tokens == 257
    assert (flow_shift(Clip(480, 832, 81)), flow_shift(Clip(720, 1280, 81))) == (3.0, 5.0)


@pytest.mark.parametrize(
    ("clip", "fix"),
    [
        (Clip(481, 832, 81), "--height 480"),
        (Clip(480, 840, 81), "--width 848"),
        (Clip(0, 832, 81), "--height 16"),
        (Clip(480, -5, 81), "--width 16"),
        (Clip(480, 832, 80), "--frames 81"),
        (Clip(480, 832, 0), "--frames 1"),
        (Clip(480, 10**6, 81), "--width 16384"),
        (Clip(480, 832, 10**6), "--frames 4093"),
    ],
)
def test_wrong_sizes_name_the_nearest_that_works(clip, fix):
    with pytest.raises(InputError) as caught:
        check_clip(WAN, clip)
    assert caught.value.fix == fix
    assert "\n" not in str(caught.value)


@given(st.integers(-50, 3000), st.integers(-50, 3000), st.integers(-9, 400), st.sampled_from([(8, 4), (4, 2), (16, 4)]))
def test_the_proposed_size_is_accepted_and_nearest(height, width, frames, reductions):
    geometry = Geometry(2, 4, 12, 32, 4, 4, 16, vae_spatial=reductions[0], vae_temporal=reductions[1])
    values = {"height": height, "width": width, "frames": frames}
    for _ in range(3):
        try:
            check_clip(geometry, Clip(**values))
            break
        except InputError as error:
            flag, value = error.fix.split()
            name = flag.removeprefix("--")
            step = reductions[1] if name == "frames" else math.lcm(16, reductions[0] * 2)
            if values[name] > 0:
                assert abs(int(value) - values[name]) <= max(step / 2, step - values[name])
            values[name] = int(value)
    check_clip(geometry, Clip(**values))


def test_a_folder_is_read_without_weights(tiny_folder, tiny_image_folder):
    geometry = read_geometry(tiny_folder)
    assert (geometry.blocks, geometry.heads, geometry.head_dim, geometry.ffn) == (2, 4, 12, 32)
    assert (geometry.vae_spatial, geometry.vae_temporal, geometry.latent_channels) == (4, 2, 4)
    assert not geometry.image_to_video
    image = read_geometry(tiny_image_folder)
    assert (image.in_channels, image.image_dim, image.added_kv_proj_dim, image.image_tokens) == (10, 24, 48, 17)
    assert image.image_to_video
    assert Geometry.from_dict(json.loads(json.dumps(image.to_dict()))) == image


def test_what_is_not_a_wan_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_geometry(tmp_path)
    (tmp_path / "transformer").mkdir()
    config = tmp_path / "transformer" / "config.json"
    for text, message in (("{", "readable JSON"), ("[]", "one JSON object"), ('{"num_layers": "2"}', "num_layers")):
        config.write_text(text)
        with pytest.raises(InputError, match=message):
            read_geometry(tmp_path)


def test_merged_frames_are_refused():
    config = {"num_layers": 2, "num_attention_heads": 4, "attention_head_dim": 12, "ffn_dim": 32, "in_channels": 4}
    with pytest.raises(InputError, match="merge frames"):
        Geometry.from_config(config | {"text_dim": 16, "patch_size": [2, 2, 2]})
