"""Run settings: filled from the model, checked against it, and one definition for every command line."""

import doctest
import inspect
import json
import shutil

import pytest

import workbench.plan
import workbench.settings
from pare.errors import InputError
from workbench.plan import encoder_bytes, forwards_per_clip, plan, render_plan
from workbench.settings import NEEDED, RunSettings, with_run_flags


@pytest.mark.parametrize("module", [workbench.settings, workbench.plan])
def test_doctests(module):
    assert doctest.testmod(module).failed == 0


def test_the_models_defaults_fill_what_the_command_leaves_open(tiny_folder):
    settings = RunSettings.of(steps=7, seed=5).filled(str(tiny_folder))
    assert (settings.steps, settings.seed) == (7, 5)
    assert (settings.height, settings.width, settings.frames, settings.fps) == (32, 32, 9, 8)
    assert (settings.guidance, settings.shift) == (2.0, 3.0)


def test_a_preset_fills_too_and_its_shift_follows_the_size():
    assert RunSettings.of().filled("wan2.1-t2v-14b").shift == 3.0
    assert RunSettings.of(height=720, width=1280).filled("wan2.1-t2v-14b").shift == 5.0
    assert RunSettings.of(height=720, width=1280, shift=2).filled("wan2.1-t2v-14b").shift == 2.0


def test_a_model_without_defaults_asks_for_every_missing_flag(tiny_folder, tmp_path):
    folder = shutil.copytree(tiny_folder, tmp_path / "copy")
    (folder / "defaults.json").unlink()
    with pytest.raises(InputError) as caught:
        RunSettings.of(height=32, steps=2).filled(str(folder))
    assert caught.value.what == "--width --frames --fps --guidance --shift"
    sizes = dict.fromkeys(("height", "width"), 32) | {"frames": 9, "fps": 8, "steps": 2, "guidance": 1, "shift": 1}
    assert set(sizes) == set(NEEDED)
    assert RunSettings.of(**sizes).filled(str(folder)).width == 32


@pytest.mark.parametrize(
    ("content", "message"),
    [({"colour": "red"}, "unknown settings colour"), ({"steps": 0}, "--steps"), ({"height": 33}, "--height 32")],
)
def test_wrong_defaults_are_reported(tiny_folder, tmp_path, content, message):
    folder = shutil.copytree(tiny_folder, tmp_path / "copy")
    stored = json.loads((folder / "defaults.json").read_text())
    (folder / "defaults.json").write_text(json.dumps(stored | content))
    with pytest.raises(InputError, match=message):
        RunSettings.of().filled(str(folder))


@pytest.mark.parametrize(
    ("values", "flag"),
    [
        ({"steps": 0}, "--steps"),
        ({"steps": 2.5}, "--steps"),
        ({"steps": "many"}, "--steps"),
        ({"guidance": -1}, "--guidance"),
        ({"guidance": float("nan")}, "--guidance"),
        ({"shift": 0}, "--shift"),
        ({"fps": 0}, "--fps"),
        ({"seed": -1}, "--seed"),
        ({"dtype": "int8"}, "--dtype"),
        ({"offload": "disk"}, "--offload"),
        ({"attention": "sage"}, "--attention"),
        ({"colour": "red"}, "--colour"),
    ],
)
def test_values_out_of_range_name_their_flag(values, flag):
    with pytest.raises(InputError) as caught:
        RunSettings.of(**values)
    assert caught.value.what == flag and "\n" not in str(caught.value)


def test_sizes_are_checked_against_the_model(tiny_folder):
    with pytest.raises(InputError, match="--frames 9"):
        RunSettings.of(frames=8).filled(str(tiny_folder))
    with pytest.raises(InputError, match="--width 48"):
        RunSettings.of(width=40).filled(str(tiny_folder))


def test_images_go_with_the_model(tiny_folder, tiny_image_folder, tmp_path):
    image = tmp_path / "first.png"
    image.write_bytes(b"")
    assert RunSettings.of(image=str(image)).filled(str(tiny_image_folder)).image == str(image)
    for values, folder, flag in (
        ({}, tiny_image_folder, "--image"),
        ({"image": str(tmp_path / "none.png")}, tiny_image_folder, "--image"),
        ({"image": str(image)}, tiny_folder, "--image"),
        ({"image": str(image), "last_image": str(image)}, tiny_image_folder, "--last-image"),
    ):
        with pytest.raises(InputError) as caught:
            RunSettings.of(**values).filled(str(folder))
        assert caught.value.what == flag


def test_every_field_becomes_one_flag():
    @with_run_flags
    def command(model: str, *, out: str, **settings):
        return settings

    parameters = inspect.signature(command).parameters
    assert list(parameters) == ["model", "out", *RunSettings.model_fields]
    flags = [parameters[name].annotation.__metadata__[0].default for name in RunSettings.model_fields]
    assert flags == ["--" + name.replace("_", "-") for name in RunSettings.model_fields]
    assert all(parameters[name].annotation.__metadata__[0].help for name in RunSettings.model_fields)


def test_a_plan_counts_both_branches_and_knows_the_encoders(tiny_folder):
    settings = RunSettings.of(steps=4).filled(str(tiny_folder))
    assert forwards_per_clip(settings) == 8
    assert forwards_per_clip(settings.model_copy(update={"guidance": 1.0})) == 4
    result = plan(str(tiny_folder), settings, device="cpu", forwards=8, clips=3, flops_per_second=1e6)
    assert result["forwards"] == 24 and result["flops"] == 24 * result["flops_per_forward"]
    assert result["seconds"] == result["flops"] / 1e6
    files = [path for path in tiny_folder.glob("*/*.safetensors") if path.parent.name != "transformer"]
    assert (
        result["memory"]["encoders_and_vae"] == encoder_bytes(str(tiny_folder)) == sum(p.stat().st_size for p in files)
    )
    assert "24 forwards" in render_plan(result)


def test_a_plan_for_a_preset_needs_no_files():
    settings = RunSettings.of().filled("wan2.1-t2v-14b")
    result = plan("wan2.1-t2v-14b", settings, device="cuda:0", forwards=forwards_per_clip(settings))
    assert result["forwards"] == 100 and result["dtype"] == "bfloat16"
    assert result["memory"]["transformer"] == 2 * result["parameters"]
    assert "without encoders" in render_plan(result)
