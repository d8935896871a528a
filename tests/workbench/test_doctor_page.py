"""What a machine has, finding by finding, and the Doctor page in every state."""

import doctest
import json
from importlib.metadata import PackageNotFoundError

import pytest

from pare.errors import InputError
from tests.workbench.test_prune_page import alive, words, work_off
from workbench import doctor_process, machine
from workbench.cli import main
from workbench.commands import doctor as command
from workbench.jobs.api import open_workspace
from workbench.machine import Finding, from_json, inspect_machine, to_json, verdict
from workbench.places import Places

PAGE = "workbench/pages/doctor.py"
NAMES = ["python", "packages", "xformers", "ffmpeg", "free memory", "disk", "workspace", "jobs", "models"]
FINDINGS = [
    Finding("python", "ok", "3.11.2 on Linux"),
    Finding("disk", "warn", "1.0 GiB free", "make room"),
    Finding("ffmpeg", "fail", "does not run", "pip install it"),
]


@pytest.fixture
def answers(monkeypatch):
    """answers(value) lets the page's doctor say this; None: it is still at work. The list counts how often it was asked."""
    asked = []

    class Answer:
        def __init__(self, value):
            self.value = value

        def answer(self):
            return self.value

    def say(value):
        def ask(workspace):
            asked.append(workspace)
            return Answer(value)

        monkeypatch.setattr("workbench.doctor_process.ask", ask)
        return asked

    return say


@pytest.mark.parametrize("module", [machine, command])
def test_examples(module):
    found = doctest.testmod(module)
    assert found.attempted and not found.failed


def test_a_machine_that_runs_these_tests_is_fine(tmp_path):
    found = {each.name: each for each in inspect_machine(Places(tmp_path))}
    assert list(found) == NAMES
    assert all(found[name].level == "ok" for name in ("python", "xformers", "ffmpeg", "workspace", "jobs"))
    assert found["packages"].level != "fail" and "H.264" in found["ffmpeg"].text
    assert from_json(json.loads(json.dumps(to_json(list(found.values()))))) == list(found.values())


def test_what_is_broken_is_said_with_its_fix(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(tmp_path / "no-such-program"))

    def absent(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(machine, "version", absent)
    found = {each.name: each for each in inspect_machine(Places(tmp_path / "file"))}
    assert (found["ffmpeg"].level, found["workspace"].level) == ("fail", "fail")
    assert all(each.fix for each in found.values() if each.level != "ok")
    assert "torch" in found["packages"].text and found["packages"].fix == "pip install -r requirements.txt"
    assert "3 failed" in verdict(list(found.values())) or "4 failed" in verdict(list(found.values()))


def test_a_look_that_breaks_off_is_a_failure_and_the_others_go_on(tmp_path, monkeypatch):
    def broken(places):
        raise RuntimeError("no such thing")

    monkeypatch.setattr(machine, "look_at_models", broken)
    found = inspect_machine(Places(tmp_path))
    assert found[-1] == Finding("models", "fail", "RuntimeError: no such thing", "see the message")


def test_lost_and_unserved_jobs_are_found(tmp_path):
    jobs = open_workspace(tmp_path)
    job = jobs.submit("generate", {"model": "demo", "prompt": "a", "out": "v.mp4"}, device="cpu", start=False)
    assert machine.look_at_jobs(tmp_path) == Finding(
        "jobs", "warn", "jobs wait for cpu and no worker runs", "restart the app"
    )
    jobs.cancel(job)
    assert machine.look_at_jobs(tmp_path) == Finding("jobs", "ok", "1 cancelled")
    (tmp_path / "jobs.sqlite3").write_bytes(b"no table" * 100)
    for rest in tmp_path.glob("jobs.sqlite3-*"):
        rest.unlink()
    assert machine.look_at_jobs(tmp_path).level == "fail"


def test_the_command_says_what_the_page_shows(tmp_path, capsys):
    assert main(["doctor", "--device", "cpu", "--workspace", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [each["name"] for each in found["machine"]] == [*NAMES, "torch"] and found["failed"] == []
    assert "GFLOP/s" in found["machine"][-1]["text"] or "TFLOP/s" in found["machine"][-1]["text"]
    (tmp_path / "file").write_text("")
    assert main(["doctor", "--device", "cpu", "--workspace", str(tmp_path / "file")]) == 1
    assert "workspace   fail" in capsys.readouterr().out


def test_a_doctor_in_a_process_of_its_own_answers(tmp_path):
    asked = doctor_process.ask(str(tmp_path))
    assert asked.process.wait(120) == 0
    found = asked.answer()
    assert [each["name"] for each in found["machine"]] == [*NAMES, "torch"]
    # Whoever looks next sees the same.
    assert asked.answer() == found and str(tmp_path) in found["machine"][6]["text"]


def test_a_doctor_that_cannot_answer_says_why(tmp_path, monkeypatch):
    monkeypatch.setenv("PARE_DATA", str(tmp_path))
    monkeypatch.setattr("sys.executable", "/bin/false")
    asked = doctor_process.ask(str(tmp_path))
    asked.process.wait(60)
    assert asked.answer() == {"error": "it ended without a word"}


def test_findings_are_shown_worst_first_with_words_and_fixes(open_page, answers, tmp_path):
    asked = answers({"machine": to_json(FINDINGS), "versions": {"torch": "2.13.0"}})
    test = alive(open_page(PAGE, None))
    assert (
        test.title[0].value.replace("\\", "")
        == "Something is broken here: 1 of 3 checks are fine, 1 failed, 1 to look at"
    )
    text = words(test)
    lines = [line for line in text.split("\n") if "-badge[" in line]
    assert [line.split()[-1].rstrip("]") for line in lines] == ["fail", "warn", "ok"]
    assert "**Fix** pip install it" in text and "torch 2.13.0" in text
    assert not (tmp_path / "workspace").exists()
    # Asked once, however often the page is drawn; again at the button.
    alive(test.run())
    assert len(asked) == 1
    alive(test.button(key="doctor_again").click().run())
    assert len(asked) == 2


def test_while_it_is_at_work_the_page_says_so(open_page, answers):
    answers(None)
    test = alive(open_page(PAGE, None))
    assert "Asking this machine" in test.title[0].value


def test_no_answer_names_the_command_to_run(open_page, answers):
    answers({"error": "ImportError: libgomp.so.1"})
    test = open_page(PAGE, None)
    assert not test.exception and "libgomp" in test.error[0].value
    assert "pare doctor --debug" in words(test)


def test_a_model_is_checked_as_a_job(open_page, answers, tmp_path):
    answers({"machine": to_json(FINDINGS[:1]), "versions": {}})
    test = alive(open_page(PAGE, None))
    assert "pare doctor demo" in words(test) and "of memory." in words(test)
    alive(test.button(key="doctor_check").click().run())
    jobs = open_workspace(tmp_path / "workspace")
    (job,) = jobs.list()
    assert (job.command, job.arguments["model"]) == ("doctor", "demo")
    checks = [{"name": "hooks", "ok": True, "text": "none left"}, {"name": "ratio", "ok": False, "text": "0.1 off"}]
    work_off(jobs, lambda *_: {"checks": checks, "left_out": None})
    text = words(alive(test.run()))
    assert "none left" in text and "0.1 off" in text and "fail" in text
    assert "of memory, about 1 s as 1 job like it took" in text


def test_a_foreign_finding_is_bad_input_of_nobody(open_page, answers):
    answers({"machine": [{"name": "x", "level": "odd", "text": "", "fix": ""}], "versions": {}})
    test = open_page(PAGE, None)
    assert not test.exception and test.error
    with pytest.raises(TypeError):
        from_json([{"colour": 1}])
    assert issubclass(InputError, ValueError)
