"""What may become a job: commands, arguments, paths; all without importing the command."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pare.errors import InputError
from workbench.jobs.device import check_device, fastest_device
from workbench.jobs.job import JOB_ID, check_id
from workbench.jobs.spec import new_id, prepare, signature
from workbench.jobs.words import parse

COMMANDS = "tests.workbench.job_commands"


def settled(root: Path, command: str = "count", device: str = "cpu", here: Path | None = None, **arguments: Any) -> Any:
    return prepare(
        command, arguments, device, package=COMMANDS, root=root, artefacts=root / "jobs" / "a" / "artefacts", here=here
    )


def test_the_signature_is_read_from_the_source_without_running_it() -> None:
    code = (
        "import sys; from workbench.jobs.spec import signature;"
        f"print(list(signature('count', '{COMMANDS}').parameters)); print([m for m in sys.modules if 'job_commands.' in m])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names, imported = done.stdout.splitlines()
    assert names == "['label', 'out', 'steps', 'seconds', 'fail_at', 'resume', 'progress']"
    assert imported == "[]"


def test_submitting_imports_neither_torch_nor_streamlit() -> None:
    code = (
        "import sys, workbench.jobs.api, workbench.jobs.worker, workbench.commands.jobs;"
        "print({'torch', 'diffusers', 'streamlit', 'pandas'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("command", ["nothing", "glance", "app", "os.path", "../count", "__init__", "Count", ""])
def test_what_is_no_command_for_a_job_is_refused(command: str) -> None:
    with pytest.raises(InputError, match="job command"):
        signature(command, COMMANDS if command != "app" else "workbench.commands")


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"out": "x", "colour": "red"},
        {"out": "x", "progress": 1},
        {"out": "x", "steps": object()},
        {"out": "x", "seconds": float("nan")},
    ],
)
def test_arguments_that_do_not_fit_are_refused(tmp_path: Path, arguments: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="count"):
        settled(tmp_path, **arguments)


def test_outputs_land_in_the_job_s_folder_or_in_the_workspace(tmp_path: Path) -> None:
    assert settled(tmp_path, out=Path("runs/x"))["out"] == str(tmp_path / "jobs/a/artefacts/runs/x")
    assert settled(tmp_path, out=str(tmp_path / "runs/x"))["out"] == str(tmp_path / "runs/x")


@pytest.mark.parametrize("out", ["../x", "a/../../x", "/etc/x", "."])
def test_no_output_leaves_its_place(tmp_path: Path, out: str) -> None:
    with pytest.raises(InputError, match="inside"):
        settled(tmp_path, out=out)


def test_no_output_leaves_through_a_symbolic_link(tmp_path: Path) -> None:
    artefacts = tmp_path / "w" / "jobs" / "a" / "artefacts"
    artefacts.mkdir(parents=True)
    (artefacts / "way").symlink_to(tmp_path)
    with pytest.raises(InputError, match="inside"):
        settled(tmp_path / "w", out="way/x")


def test_inputs_become_absolute_when_they_are_there_and_text_stays_text(tmp_path: Path) -> None:
    (tmp_path / "models" / "mine").mkdir(parents=True)
    (tmp_path / "first.png").touch()
    (tmp_path / "red").mkdir()
    given = settled(tmp_path, "recall", here=tmp_path, model="models/mine", prompt="red", image="first.png", note="a/b")
    assert given["model"] == str(tmp_path / "models/mine")
    assert (given["prompt"], given["note"], given["image"]) == ("red", "a/b", str(tmp_path / "first.png"))
    assert settled(tmp_path, "recall", here=tmp_path, model="org/name")["model"] == "org/name"


def test_a_command_that_runs_a_model_gets_the_job_s_device(tmp_path: Path) -> None:
    assert settled(tmp_path, "recall", device="cuda:1", model="demo")["device"] == "cuda:1"
    assert settled(tmp_path, "recall", device="cuda:1", model="demo", steps=2)["steps"] == 2
    assert "device" not in settled(tmp_path, out="x")
    with pytest.raises(InputError, match="--device"):
        prepare(
            "recall",
            {"model": "demo", "device": "cpu"},
            "cuda:1",
            package=COMMANDS,
            root=tmp_path,
            artefacts=tmp_path / "a",
        )


@pytest.mark.parametrize("name", ["generate", "Évaluer les têtes!", "", "x" * 200, "../../etc"])
def test_ids_are_plain_and_new(name: str) -> None:
    first, second = new_id(name), new_id(name)
    assert JOB_ID.fullmatch(first) and first != second
    assert check_id(first) == first


@pytest.mark.parametrize("job_id", ["", "../x", "A", "a/b", "a" * 65, "a\n", f"a{os.sep}"])
def test_ids_that_could_be_paths_are_refused(job_id: str) -> None:
    with pytest.raises(InputError, match="job id"):
        check_id(job_id)


def test_devices() -> None:
    assert [check_device(name) for name in ("cpu", "cuda", "cuda:1", "mps")] == ["cpu", "cuda:0", "cuda:1", "mps"]
    with pytest.raises(InputError, match="--device"):
        check_device("../cpu")


@pytest.mark.parametrize(
    ("build", "hidden", "gpu", "expected"),
    [
        ("2.13.0", None, True, "cuda:0"),
        ("2.13.0", "", True, ""),
        ("2.13.0+cpu", None, True, ""),
        ("2.13.0", None, False, ""),
    ],
)
def test_auto_is_the_gpu_only_where_torch_can_use_one(
    monkeypatch: pytest.MonkeyPatch, build: str, hidden: str | None, gpu: bool, expected: str
) -> None:
    monkeypatch.setattr("workbench.jobs.device.version", lambda name: build)
    monkeypatch.setattr("workbench.jobs.device.shutil.which", lambda name: "/bin/true" if gpu else None)
    monkeypatch.setattr("workbench.jobs.device.Path.exists", lambda path: gpu)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if hidden is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert fastest_device() == check_device("auto")
    assert (fastest_device() == "cuda:0") == (expected == "cuda:0")


def test_words_read_like_the_command_s_own() -> None:
    words = ["7", "--out", "x", "--steps", "4", "--seconds=0.5", "--resume", "--fail-at", "null"]
    assert parse("count", words, signature("count", COMMANDS)) == {
        "label": "7",
        "out": "x",
        "steps": 4,
        "seconds": 0.5,
        "resume": True,
        "fail_at": "null",
    }
    words = ["demo", "--prompt", "a red 7", "--guidance", "-1.5", "--no-dry-run", "--tag", "a", "--tag", "b"]
    assert parse("recall", words, signature("recall", COMMANDS)) == {
        "model": "demo",
        "prompt": "a red 7",
        "guidance": -1.5,
        "dry_run": False,
        "tag": ["a", "b"],
    }
    with pytest.raises(InputError, match="no further position"):
        parse("recall", ["demo", "red"], signature("recall", COMMANDS))
