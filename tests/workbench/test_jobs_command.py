"""`pare jobs …`: the functions behind the command line, and what they print."""

import json
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pare.errors import InputError
from workbench.commands.jobs import (
    jobs_cancel,
    jobs_list,
    jobs_log,
    jobs_resume,
    jobs_status,
    jobs_submit,
    render,
)
from workbench.jobs.api import open_workspace

COMMANDS = "tests.workbench.job_commands"


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[str]:
    workspace = tmp_path / "workspace"
    yield str(workspace)
    for process in psutil.process_iter(["cmdline"]):
        if str(workspace) in (process.info["cmdline"] or ()):
            process.kill()


def test_submit_list_status_log_cancel_resume(workspace: str) -> None:
    seen: list[int] = []
    words = ["7", "--out", "run", "--steps", "3", "--seconds", "0.3"]
    done = jobs_submit(
        "count",
        words,
        workspace=workspace,
        wait=True,
        commands=COMMANDS,
        progress=lambda n, total, text="": seen.append(n),
    )
    assert done["state"] == "done" and len(done["artefacts"]) == 3 and seen == sorted(seen)
    assert Path(done["artefacts"][0]).read_text() == "70"
    slow = jobs_submit("count", ["--out", "run", "--steps", "500"], workspace=workspace, commands=COMMANDS)
    waiting = jobs_submit("count", ["--out", "run"], workspace=workspace, commands=COMMANDS)
    listed = jobs_list(workspace=workspace, active=True)["jobs"]
    assert {job["id"] for job in listed} == {slow["id"], waiting["id"]}
    assert jobs_cancel(waiting["id"], workspace=workspace)["state"] == "cancelled"
    assert jobs_cancel(slow["id"], workspace=workspace)["state"] in ("cancelling", "cancelled")
    assert jobs_resume(waiting["id"], workspace=workspace, commands=COMMANDS)["state"] in ("queued", "running")
    log = jobs_log(done["id"], workspace=workspace, lines=1)
    assert render(log) == "step 2"
    status = jobs_status(done["id"], workspace=workspace)
    json.dumps([status, log, listed])
    assert render(status).splitlines()[0].startswith(f"{done['id']}  done  3/3")
    assert done["id"] in render(jobs_list(workspace=workspace))


def test_the_arguments_device_is_the_job_s(workspace: str) -> None:
    job = jobs_submit("recall", ["demo", "--device", "cuda:0"], workspace=workspace, commands=COMMANDS)
    assert (job["device"], job["arguments"]["device"]) == ("cuda:0", "cuda:0")


@pytest.mark.parametrize(
    ("command", "words"), [("count", []), ("count", ["--out", "../x"]), ("glance", ["demo"]), ("nothing", [])]
)
def test_bad_input_leaves_nothing_behind(workspace: str, command: str, words: list[str]) -> None:
    with pytest.raises(InputError):
        jobs_submit(command, words, workspace=workspace, commands=COMMANDS)
    assert not list(Path(workspace).glob("jobs/*"))


def test_a_workspace_that_is_not_there_is_not_made_by_looking(workspace: str) -> None:
    with pytest.raises(InputError, match="--workspace"):
        jobs_list(workspace=workspace)
    assert not Path(workspace).exists()
    assert render({"jobs": []}) == "no jobs"


def test_a_file_in_the_workspace_s_place_or_in_its_table_s_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InputError, match="--workspace"):
            open_workspace(path)
    (tmp_path / "jobs.sqlite3").write_text("no database " * 100)
    with pytest.raises(InputError, match="a job table"):
        jobs_list(workspace=str(tmp_path))


def test_unknown_ids_are_refused(workspace: str) -> None:
    open_workspace(workspace)
    for job_id in ("nobody", "../../etc"):
        with pytest.raises(InputError, match="job"):
            jobs_status(job_id, workspace=workspace)
