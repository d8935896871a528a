"""`pare doctor MODEL` as a person calls it: what is right passes, a broken hook fails, nothing is loaded in vain."""

import json

import pytest

from analysis.attention import own_frame_share
from analysis.recorder import Recorder
from pare.errors import Cancelled, InputError
from pare.geometry import PRESETS, Clip, check_clip
from workbench.cli import main
from workbench.commands.doctor import affordable_clip, doctor, failed, render

NAMES = ["memory", "identity", "hooks", "ratio", "backend", "overhead"]


@pytest.mark.parametrize("fixture", ["tiny_folder", "tiny_image_folder"])
def test_a_folder_passes_every_check(fixture, request, capsys):
    folder = str(request.getfixturevalue(fixture))
    assert main(["doctor", folder, "--device", "cpu", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [each["name"] for each in result["checks"]] == NAMES and result["failed"] == []
    numbers = {each["name"]: each["numbers"] for each in result["checks"]}
    assert numbers["hooks"]["left"] == 0 and numbers["identity"]["differing"] == 0
    assert 0 <= numbers["ratio"]["largest_error"] < 1e-5 and numbers["overhead"]["n"] >= 3
    assert numbers["backend"]["kernels"] == ["flash_cpu"] and numbers["memory"]["need"] > 0


def test_people_get_one_line_a_check(tiny_folder, capsys):
    assert main(["doctor", str(tiny_folder), "--device", "cpu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    shown = [line.split()[:2] for line in lines if line.split()[0] in NAMES]
    assert shown == [[name, "ok"] for name in NAMES]


def test_a_hook_that_changes_the_model_makes_doctor_fail(tiny_folder, monkeypatch, capsys):
    leave = Recorder.leave_block

    def broken(self, block, before, after):
        leave(self, block, before, after)
        after.mul_(1.0001)

    monkeypatch.setattr(Recorder, "leave_block", broken)
    assert main(["doctor", str(tiny_folder), "--device", "cpu"]) == 1
    out = capsys.readouterr().out
    assert "identity    FAILED" in out and "values differ" in out and "hooks       ok" in out


def test_a_hook_that_raises_or_measures_wrongly_makes_doctor_fail(tiny_folder, monkeypatch, capsys):
    def broken(self, block, before, after):
        raise RuntimeError("first\nsecond")

    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "leave_block", broken)
        assert main(["doctor", str(tiny_folder), "--device", "cpu", "--json"]) == 1
        found = json.loads(capsys.readouterr().out)
        assert "identity" in found["failed"]
        assert {each["name"]: each["text"] for each in found["checks"]}["identity"] == "RuntimeError: first second"
    monkeypatch.setattr("analysis.recorder.own_frame_share", lambda *given: own_frame_share(*given) * 1.01)
    result = doctor(str(tiny_folder), device="cpu")
    assert result["failed"] == ["ratio"] and failed(result) and "ratio       FAILED" in render(result)


def never(*args, **kwargs):
    raise AssertionError("the model was loaded")


def test_what_cannot_or_should_not_be_loaded_is_not(tiny_folder):
    fits = doctor("wan2.1-t2v-1.3b", height=64, width=64, frames=5, device="cpu", load=never)
    assert [each["name"] for each in fits["checks"]] == ["memory"] and "no weights" in render(fits)
    planned = doctor(str(tiny_folder), device="cpu", dry_run=True, load=never)
    assert [each["name"] for each in planned["checks"]] == ["memory"] and not failed(planned)
    huge = doctor("wan2.1-t2v-14b", height=1600, width=1600, frames=4001, device="cpu", load=never)
    assert failed(huge) and "memory      FAILED" in render(huge)
    with pytest.raises(InputError, match="MODEL"):
        doctor("no-such-model", load=never)
    assert not failed(doctor(device="cpu"))


def test_the_exit_code_of_a_preset_that_does_not_fit(capsys):
    given = ["--height", "1600", "--width", "1600", "--frames", "4001", "--device", "cpu"]
    assert main(["doctor", "wan2.1-t2v-14b", *given, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["failed"] == ["memory"]


def test_cancel_passes_through_and_the_pipeline_is_reused(tiny_folder):
    from pare.models import load_pipeline

    pipe = load_pipeline(str(tiny_folder), device="cpu")
    seen = []

    def cancel(done, total, message=""):
        seen.append(message)
        if message == "checking ratio":
            raise Cancelled

    with pytest.raises(Cancelled):
        doctor(str(tiny_folder), device="cpu", load=lambda *_, **__: pipe, progress=cancel)
    assert seen == ["loading the model", "checking identity", "checking hooks", "checking ratio"]


@pytest.mark.parametrize("name", sorted(PRESETS))
@pytest.mark.parametrize("speed", [1e9, 1e11, 1e13, 1e15])
def test_a_clip_is_made_affordable_and_stays_valid(name, speed):
    from pare import cost

    geometry = PRESETS[name].geometry
    clip = affordable_clip(geometry, Clip(720, 1280, 81), speed)
    check_clip(geometry, clip)
    work = cost.flops(geometry, clip).total
    assert work <= 5 * speed or (clip.height, clip.width) == (16, 16)
    if speed == 1e15 and "1.3b" in name:
        assert clip.frames > 17
