"""The command line as a process: exit codes, one line on standard error, one JSON object on standard output."""

import importlib
import inspect
import io
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import workbench.cli
from pare import mask as masks
from pare.errors import Cancelled
from pare.geometry import read_geometry
from pare.models import load_pipeline
from pare.video import read_video
from tests.tiny import PROMPT
from workbench.bar import Bar
from workbench.call import plain
from workbench.commands import doctor as doctor_module
from workbench.commands import generate as generate_module
from workbench.commands.doctor import doctor
from workbench.commands.generate import generate
from workbench.mask_settings import MaskSettings
from workbench.settings import RunSettings

ROOT = Path(__file__).parents[2]


def pare(*words: object, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "workbench", *map(str, words)]
    paths = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, cwd=cwd or ROOT, env=os.environ | paths | environment, capture_output=True, text=True, timeout=120
    )


def main(*words: object) -> int:
    """The same in this process, for what needs no process of its own."""
    return workbench.cli.main([str(word) for word in words])


@pytest.fixture(autouse=True)
def _keep_signals():
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def test_help_and_import_are_quick_and_bring_no_torch():
    for modules, heavy in (
        ("workbench, workbench.cli", ("torch", "numpy", "pandas", "huggingface_hub")),
        ("pare.geometry, pare.cost, pare.reference, pare.versions, workbench.plan", ("torch", "numpy", "pandas")),
        ("workbench.commands.info, workbench.commands.generate, workbench.commands.doctor, pare.video", ("torch",)),
    ):
        code = f"import sys, {modules}; print([name for name in {heavy} if name in sys.modules])"
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
        assert done.stdout.strip() == "[]", modules
    # On the processor and against what the command line is made of, so that neither load nor a slow machine fails it; the
    # seconds are told by benchmarks/app.py.
    libraries = [sys.executable, "-c", "import typer.rich_utils, pydantic"]
    own, theirs = [], []
    for _ in range(3):
        own.append(processor_seconds(lambda: pare("--help")))
        theirs.append(processor_seconds(lambda: subprocess.run(libraries, capture_output=True)))
    assert min(own) <= 4 * min(theirs)


def processor_seconds(command: Callable[[], subprocess.CompletedProcess]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert command().returncode == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_every_command_is_listed_and_explains_itself(capsys):
    assert main() == 0
    text = capsys.readouterr().out
    for name in ("info", "doctor", "generate", "capture", "roles", "mask", "jobs", "app"):
        assert name in text
        assert main(name, "--help") == 0
        assert "Usage: pare" in capsys.readouterr().out


@pytest.mark.parametrize("model", ["wan2.1-t2v-14b", "wan2.1-t2v-1.3b", "wan2.1-i2v-14b"])
def test_info_of_presets(model, capsys):
    totals = {
        "wan2.1-t2v-1.3b": (1_418_996_800, 283.0),
        "wan2.1-t2v-14b": (14_288_491_584, 1678.3),
        "wan2.1-i2v-14b": (16_394_878_784, 1686.3),
    }
    assert main("info", model, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    total, teraflops = totals[model]
    assert result["parameters"]["total"] == total
    assert round(result["flops_per_forward"]["total"] / 1e12, 1) == teraflops
    assert (result["tokens"], result["latent_frames"]) == (32_760, 21)
    assert main("info", model, "--height", 720, "--width", 1280) == 0
    text = capsys.readouterr().out
    assert f"{total:,}" in text and "75,600" in text


def test_info_of_a_folder_reads_no_weights(tiny_folder, tmp_path, capsys):
    for path in tiny_folder.rglob("*.json"):
        copy = tmp_path / path.relative_to(tiny_folder)
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(path.read_bytes())
    assert main("info", tmp_path, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["geometry"]["dim"] == 48 and result["tokens"] == 80
    (tmp_path / "defaults.json").unlink()
    assert main("info", tmp_path) == 2
    assert "--height --width --frames" in capsys.readouterr().err


BAD = [
    (["info", "nosuch"], "MODEL"),
    (["info", "./no/such/folder"], "MODEL"),
    (["info", "wan2.1-t2v-14b", "--height", "481"], "--height 480"),
    (["info", "wan2.1-t2v-14b", "--frames", "80"], "--frames 81"),
    (["info"], "MODEL"),
    (["info", "wan2.1-t2v-14b", "--bogus"], "--bogus"),
    (["nocommand"], "nocommand"),
    (["generate", "wan2.1-t2v-14b", "--prompt", "7", "--out", "v.mp4"], "Wan-AI/Wan2.1-T2V-14B-Diffusers"),
    (["generate", "FOLDER", "--out", "v.mp4"], "--prompt"),
    (["generate", "FOLDER", "--prompt", " ", "--out", "v.mp4"], "--prompt"),
    (["generate", "FOLDER", "--prompt", "7", "--out", "v.gif"], ".mp4"),
    (["generate", "FOLDER", "--prompt", "7", "--out", "v.mp4", "--steps", "0"], "--steps"),
    (["generate", "FOLDER", "--prompt", "7", "--out", "v.mp4", "--steps", "two"], "--steps"),
    (["generate", "FOLDER", "--prompt", "7", "--out", "v.mp4", "--width", "40"], "--width 48"),
    (["generate", "FOLDER", "--prompt", "7", "--out", "v.mp4", "--device", "cuda:99"], "--device"),
    (["generate", "FOLDER", "--prompt", "7", "--out", "v.mp4", "--image", "none.png"], "--image"),
    (["generate", "FOLDER", "--prompt", "7", "--out", "/dev/null/v.mp4"], "written"),
    (["capture", "FOLDER", "--out", "run"], "--prompts"),
    (["capture", "FOLDER", "--out", "run", "--prompts", "none.txt"], "--prompts"),
    (["roles", "none"], "RUN"),
    (["mask", "none", "--out", "m.safetensors"], "RUN"),
    (["mask", "show", "none"], "MASK"),
    (["doctor", "nosuch"], "MODEL"),
    (["jobs", "submit", "generate", "FOLDER", "--bogus"], "--bogus"),
]


@pytest.mark.parametrize(("words", "message"), BAD, ids=[" ".join(words) for words, _ in BAD])
@pytest.mark.parametrize("flags", [[], ["--json"]], ids=["text", "json"])
def test_bad_input_is_one_line_and_exit_2(words, message, flags, tiny_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = [str(tiny_folder) if word == "FOLDER" else word for word in words]
    flags = flags if words[0] not in ("nocommand", "jobs") else []
    assert main(*words, *flags) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and message in err
    assert list(tmp_path.iterdir()) == []


def test_bad_input_of_a_process_is_one_line_too(tmp_path):
    done = pare("generate", "nosuch", "--prompt", "7", "--out", "v.mp4", "--json", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert list(tmp_path.iterdir()) == []


def test_generate_from_end_to_end(tiny_folder, tmp_path):
    words = ["generate", tiny_folder, "--prompt", PROMPT, "--steps", 2, "--seed", 3, "--device", "cpu"]
    done = pare(*words, "--out", "new/v.mp4", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert done.stdout.count("\n") == 1 and result["video"] == "new/v.mp4" and result["seconds"] > 0
    assert "2/2" in done.stderr
    frames, fps, metadata = read_video(tmp_path / "new" / "v.mp4")
    assert frames.shape == (9, 32, 32, 3) and fps == 8 and frames.std() > 1
    assert metadata["prompt"] == PROMPT and metadata["model"] == result["model"]
    settings = metadata["settings"]
    assert (settings["steps"], settings["seed"], settings["device"], settings["dtype"]) == (2, 3, "cpu", "float32")
    assert metadata["versions"]["diffusers"]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["v.mp4"]

    again = pare(*words, "--out", "again.mp4", cwd=tmp_path)
    assert again.returncode == 0 and "again.mp4: 9 video frames of 32 x 32, 2 steps" in again.stdout
    assert (tmp_path / "again.mp4").read_bytes() == (tmp_path / "new" / "v.mp4").read_bytes()


def test_generate_under_a_mask(tiny_folder, tmp_path, capsys):
    geometry = read_geometry(tiny_folder)
    shapes = [(geometry.blocks, geometry.heads)] * 2 + [(geometry.blocks, geometry.ffn)]
    whole = masks.Mask(*(np.ones(shape, bool) for shape in shapes))
    half = masks.Mask(*(np.ones(shape, bool) & (np.arange(shape[1]) < shape[1] // 2) for shape in shapes))
    other = masks.Mask(*(np.ones((rows, columns + 1), bool) for rows, columns in shapes))
    words = ["generate", tiny_folder, "--prompt", PROMPT, "--steps", 2, "--device", "cpu"]
    videos = {}
    for name, mask in {"dense": None, "whole": whole, "half": half, "other": other}.items():
        flags = [] if mask is None else ["--mask", masks.save(mask, tmp_path / f"{name}.safetensors")]
        code = main(*words, *flags, "--out", tmp_path / f"{name}.mp4")
        assert code == (2 if name == "other" else 0)
        if code == 0:
            videos[name], _, about = read_video(tmp_path / f"{name}.mp4")
            assert about.get("mask", {}).get("name") == (None if mask is None else f"{name}.safetensors")
    assert "expected [" in capsys.readouterr().err and not (tmp_path / "other.mp4").exists()
    np.testing.assert_array_equal(videos["whole"], videos["dense"])
    assert np.abs(videos["half"].astype(int) - videos["dense"]).mean() > 0.5


def test_generate_from_an_image(tiny_image_folder, tmp_path, capsys):
    image = tmp_path / "first.png"
    Image.fromarray(np.full((40, 50, 3), (200, 30, 30), np.uint8)).save(image)
    words = ["generate", tiny_image_folder, "--prompt", PROMPT, "--steps", 2, "--device", "cpu"]
    assert main(*words, "--image", image, "--out", tmp_path / "v.mp4") == 0
    assert read_video(tmp_path / "v.mp4")[0].shape == (9, 32, 32, 3)
    image.write_text("no image")
    capsys.readouterr()
    assert main(*words, "--image", image, "--out", tmp_path / "w.mp4") == 2
    assert "cannot be read" in capsys.readouterr().err and not (tmp_path / "w.mp4").exists()


def test_settings_decide_the_video(tiny_folder, tmp_path):
    def frames(**settings):
        out = tmp_path / "v.mp4"
        generate(
            str(tiny_folder), prompt=PROMPT, out=out, load=lambda *_, **__: pipe, device="cpu", steps=2, **settings
        )
        return read_video(out)[0]

    pipe = load_pipeline(str(tiny_folder), device="cpu")
    first = frames()
    assert np.array_equal(first, frames())
    for settings in ({"seed": 1}, {"guidance": 8.0}, {"shift": 1.0}, {"negative_prompt": "a blue 3"}):
        assert not np.array_equal(first, frames(**settings)), settings
    # The pipeline, shared with the next command, was left as it was found.
    assert np.array_equal(first, frames())


class Stopper:
    """Progress that cancels once a number of steps is done, and remembers what it was told."""

    def __init__(self, after: int):
        self.after, self.reports = after, []

    def __call__(self, done: int, total: int, message: str = "") -> None:
        self.reports.append((done, total))
        if done == self.after:
            raise Cancelled


@pytest.mark.parametrize("after", [0, 1, 3])
def test_cancelling_stops_within_a_step_and_leaves_nothing(tiny_folder, tmp_path, after):
    pipe = load_pipeline(str(tiny_folder), device="cpu")
    scheduler, forwards, decodes = pipe.scheduler, [], []
    pipe.transformer.register_forward_hook(lambda *_: forwards.append(1))
    pipe.vae.decoder.register_forward_hook(lambda *_: decodes.append(1))
    stop = Stopper(after)
    with pytest.raises(Cancelled):
        generate(
            str(tiny_folder), prompt=PROMPT, out=tmp_path / "v.mp4", steps=5, device="cpu", progress=stop,
            load=lambda *_, **__: pipe,
        )  # fmt: skip
    assert stop.reports[-1] == (after, 5)
    assert len(forwards) == 2 * after and not decodes
    assert list(tmp_path.iterdir()) == [] and pipe.scheduler is scheduler


def test_every_step_is_reported(tiny_folder, tmp_path):
    watch = Stopper(after=-1)
    generate(str(tiny_folder), prompt=PROMPT, out=tmp_path / "v.mp4", steps=4, device="cpu", progress=watch)
    assert [done for done, _ in watch.reports if done] == [1, 2, 3, 4] and {total for _, total in watch.reports} == {4}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_process_exits_with_130_and_leaves_nothing(tiny_folder, tmp_path, number):
    words = ["generate", tiny_folder, "--prompt", PROMPT, "--steps", 1000, "--device", "cpu", "--out", "v.mp4"]
    process = subprocess.Popen(
        [sys.executable, "-m", "workbench", *map(str, words)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that starts the tests in the background has its children ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stderr is not None
    assert "loading" in process.stderr.readline()
    time.sleep(0.5)
    process.send_signal(number)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (130, "") and err.splitlines()[-1] == "cancelled"
    assert list(tmp_path.iterdir()) == []


def test_dry_run_plans_and_runs_nothing(tiny_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["generate", tiny_folder, "--prompt", PROMPT, "--out", "v.mp4", "--dry-run"]
    assert main(*words, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["parameters"] == 68_000 and result["tokens"] == 80 and result["forwards"] == 6
    assert result["seconds"] > 0 and result["memory"]["total"] > 68_000 * 4
    assert main("generate", "wan2.1-t2v-14b", "--prompt", PROMPT, "--out", "v.mp4", "--dry-run") == 0
    assert "14,288,491,584" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_doctor_compares_a_models_need_with_this_machine(tiny_folder, capsys):
    assert main("doctor", tiny_folder, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["fits"] and result["versions"]["torch"] and result["devices"][0]["name"] == "cpu"
    assert "fits" in doctor_module.render(result)
    huge = doctor("wan2.1-t2v-14b", height=1600, width=1600, frames=4001, device="cpu")
    assert not huge["fits"] and "does not fit" in doctor_module.render(huge)


def test_unexpected_errors_are_one_line_and_exit_1(tiny_folder, tmp_path, monkeypatch, capsys):
    def broken(*_, **__):
        raise RuntimeError("first\nsecond")

    monkeypatch.setattr("pare.models.load_pipeline", broken)
    words = ["generate", tiny_folder, "--prompt", "7", "--out", tmp_path / "v.mp4", "--steps", 2]
    assert main(*words) == 1
    assert capsys.readouterr().err.splitlines()[-1] == "RuntimeError: first second (--debug shows where)"
    assert main(*words, "--debug") == 1
    assert "Traceback" in capsys.readouterr().err


def test_what_a_command_prints_does_not_reach_json(tiny_folder, tmp_path, monkeypatch, capsys):
    load = load_pipeline

    def noisy(*positional, **named):
        print("noise")
        return load(*positional, **named)

    monkeypatch.setattr("pare.models.load_pipeline", noisy)
    words = ["generate", tiny_folder, "--prompt", "7", "--out", tmp_path / "v.mp4", "--steps", 1, "--json"]
    assert main(*words) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["video"] and "noise" in err


CALLS = [
    (["info", "M", "--height", "32"], "info", "info", {"model": "M", "height": 32}),
    (["info", "M", "--mask", "F", "--gib", "16"], "info", "info", {"model": "M", "mask": "F", "gib": 16}),
    (["compare", "A", "B", "--oracle", "--csv", "C"], "compare", "compare",
     {"a": "A", "b": "B", "oracle": True, "csv": "C"}),
    (["evaluate", "M", "--out", "O", "--samples", "3", "--steps", "4"], "evaluate", "evaluate",
     {"model": "M", "out": "O", "samples": 3, "steps": 4}),
    (["slice-lora", "L", "--mask", "F", "--out", "O"], "slice_lora", "slice_lora", {"lora": "L", "mask": "F", "out": "O"}),
    (["doctor"], "doctor", "doctor", {}),
    (["generate", "M", "--prompt", "P", "--out", "O", "--seed", "1"], "generate", "generate",
     {"model": "M", "prompt": "P", "out": "O", "seed": 1}),
    (["capture", "M", "--out", "O", "--prompts", "F", "--steps", "4", "--resume"], "capture", "capture",
     {"model": "M", "out": "O", "prompts": "F", "steps": 4, "resume": True}),
    (["roles", "R", "--tau-s", "0.8", "--csv", "C"], "roles", "roles", {"run": "R", "tau_s": 0.8, "csv": "C"}),
    (["report", "R", "--out", "O", "--block", "2", "--steps", "1-3", "--mask", "F"], "report", "report",
     {"sources": ["R"], "out": "O", "block": 2, "steps": "1-3", "mask": "F"}),
    (["report", "A", "B", "--out", "O", "--kind", "videos", "--pair", "3", "--run", "R"], "report", "report",
     {"sources": ["A", "B"], "out": "O", "kind": "videos", "pair": 3, "run": "R"}),
    (["mask", "R", "--out", "O", "--ratio", "0.4"], "mask", "mask", {"run": "R", "out": "O", "ratio": 0.4}),
    (["mask", "--out", "O", "R"], "mask", "mask", {"run": "R", "out": "O"}),
    (["mask", "make", "show", "--out", "O"], "mask", "mask", {"run": "show", "out": "O"}),
    (["mask", "--model", "M", "--preset", "paper", "--dry-run"], "mask", "mask",
     {"run": None, "model": "M", "preset": "paper", "dry_run": True}),
    (["mask", "alpha", "R", "--tau-t", "0.4"], "mask", "alpha", {"run": "R", "tau_t": 0.4}),
    (["mask", "show", "F"], "mask", "show", {"file": "F"}),
    (["mask", "diff", "A", "B"], "mask", "diff", {"a": "A", "b": "B"}),
    (["mask", "check", "F", "M"], "mask", "check", {"file": "F", "model": "M"}),
    (["jobs", "list", "--active"], "jobs", "jobs_list", {"active": True}),
    (["jobs", "status", "I"], "jobs", "jobs_status", {"job_id": "I"}),
    (["jobs", "submit", "--wait", "generate", "M", "--prompt", "P", "--out", "O"], "jobs", "jobs_submit",
     {"command": "generate", "arguments": ["M", "--prompt", "P", "--out", "O"], "wait": True}),
    (["jobs", "cancel", "I", "--workspace", "W"], "jobs", "jobs_cancel", {"job_id": "I", "workspace": "W"}),
    (["jobs", "resume", "I"], "jobs", "jobs_resume", {"job_id": "I"}),
    (["jobs", "log", "I", "--lines", "5"], "jobs", "jobs_log", {"job_id": "I", "lines": 5}),
    (["app", "A", "B", "--port", "8600", "--no-browser"], "app", "app",
     {"paths": ["A", "B"], "port": 8600, "open_browser": False}),
]  # fmt: skip


@pytest.mark.parametrize(("words", "module", "function", "expected"), CALLS, ids=[" ".join(call[0]) for call in CALLS])
def test_every_command_is_one_call_of_a_public_function(words, module, function, expected, monkeypatch):
    calls = []
    monkeypatch.setattr("workbench.call.run", lambda call, **_: calls.append(call) or 0)
    assert main(*words) == 0
    (call,) = calls
    assert (call.module, call.function or call.module) == (module, function)
    assert expected.items() <= call.arguments.items()
    target = getattr(importlib.import_module(f"workbench.commands.{module}"), function)
    parameters = inspect.signature(target).parameters.values()
    own = {each.name for each in parameters if each.kind is not each.VAR_KEYWORD}
    # Every argument has its flag; `commands` is the one that only tests give, and run flags at their default are left out.
    assert own - {"progress", "load", "commands"} - set(RunSettings.model_fields) <= set(call.arguments)
    # Besides its own arguments a command takes run settings at most, or those of a mask.
    inspect.signature(target).bind(**call.arguments)
    settings = MaskSettings if module == "mask" else RunSettings
    assert set(call.arguments) - own <= set(settings.model_fields)
    # What the command line suggests is what Python suggests.
    for each in parameters:
        if each.name in call.arguments and each.name not in expected and each.default is not each.empty:
            assert (call.arguments[each.name] or None) == (each.default or None), each.name


def test_flags_left_alone_do_not_hide_the_models_defaults(tiny_folder, monkeypatch, capsys):
    seen = []
    monkeypatch.setattr(generate_module, "generate", lambda model, **named: seen.append(named) or {"video": "v"})
    monkeypatch.setattr(generate_module, "render", lambda result: result["video"])
    assert main("generate", tiny_folder, "--prompt", "7", "--out", "v.mp4", "--steps", 2, "--dtype", "float32") == 0
    given = {name: value for name, value in seen[0].items() if value is not None}
    assert given == {"prompt": "7", "out": "v.mp4", "steps": 2, "dtype": "float32"}
    # What the model has defaults for is left out, not passed as nothing.
    assert set(RunSettings.model_fields) & set(seen[0]) == {"steps", "dtype"}


def test_progress_in_a_file_is_a_line_now_and_then(capsys):
    with Bar() as bar:
        bar(0, 0, "queued")
        for done in range(101):
            bar(done, 100, "step")
        bar(100, 100, "step")
    assert capsys.readouterr() == ("", "queued\n100/100 step\n")


def test_progress_in_a_terminal_is_a_bar_that_goes_away(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with pytest.raises(Cancelled), Bar() as bar:
        bar(0, 0, "loading")
        bar(3, 8, "step 3 of 8")
        raise Cancelled
    assert "step 3 of 8" in terminal.getvalue() and "3/8" in terminal.getvalue()


def test_a_hub_id_without_a_network_is_bad_input(tmp_path):
    away = {"HF_HOME": str(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:9"}
    for words in (["info"], ["generate", "--prompt", "7", "--out", tmp_path / "v.mp4"]):
        done = pare(words[0], "Wan-AI/Wan2.1-T2V-1.3B-Diffusers", *words[1:], "--json", **away)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
        assert "no hub" in done.stderr


def test_json_holds_only_json():
    value = {"a": np.float32(0.5), "b": np.arange(2), "c": Path("x"), "d": float("inf"), "e": RunSettings}
    assert plain(value) | {"e": None} == {"a": 0.5, "b": [0, 1], "c": "x", "d": None, "e": None}
