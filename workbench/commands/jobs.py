"""`pare jobs`: long commands in the background, the same jobs that the app shows."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from pare.errors import Cancelled
from pare.progress import Progress, silent
from workbench.jobs.api import Job, Jobs, State, open_workspace
from workbench.jobs.spec import COMMANDS, signature
from workbench.jobs.words import parse

WORKSPACE = "./workspace"


def jobs_list(*, workspace: str = WORKSPACE, active: bool = False) -> dict[str, Any]:
    """The jobs of a workspace: those in work, the queues, then the finished ones; `active` leaves those out."""
    return {"jobs": [_record(job) for job in _existing(workspace).list(active=active)]}


def jobs_status(job_id: str, *, workspace: str = WORKSPACE) -> dict[str, Any]:
    """One job: state, progress, seconds left, result and the files it made."""
    jobs = _existing(workspace)
    return _record(jobs.status(job_id)) | {"artefacts": [str(path) for path in jobs.artefacts(job_id)]}


def jobs_submit(
    command: str,
    arguments: Sequence[str] = (),
    *,
    workspace: str = WORKSPACE,
    device: str | None = None,
    wait: bool = False,
    commands: str = COMMANDS,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Queues `pare COMMAND ARGUMENTS…` as a job, starts the device's worker, and returns at once (or `wait`s).

    `device` defaults to the arguments' own `--device`, else to this machine's fastest. Outputs with a relative name
    land in the job's folder. A job that was waited for and cancelled raises `Cancelled`.
    """
    expected = signature(command, commands)
    given = parse(command, arguments, expected)
    lane = device or given.get("device") or "auto"
    jobs = open_workspace(workspace, commands=commands)
    job_id = jobs.submit(command, given, str(lane))
    if wait:
        job = jobs.wait(job_id, watch=lambda job: progress(job.done, job.total, job.message or job.state))
        if job.state is State.CANCELLED:
            raise Cancelled
        return jobs_status(job.id, workspace=workspace) | {"waited": True}
    return _record(jobs.status(job_id))


def jobs_cancel(job_id: str, *, workspace: str = WORKSPACE) -> dict[str, Any]:
    """Cancels a queued job at once, a running one at its next step."""
    return _record(_existing(workspace).cancel(job_id))


def jobs_resume(job_id: str, *, workspace: str = WORKSPACE, commands: str = COMMANDS) -> dict[str, Any]:
    """Queues a cancelled, failed or lost job again, to go on from what it has."""
    return _record(_existing(workspace, commands).resume(job_id))


def jobs_log(job_id: str, *, workspace: str = WORKSPACE, lines: int = 200) -> dict[str, Any]:
    """The last lines that a job wrote."""
    return {"id": job_id, "log": _existing(workspace).log(job_id, lines)}


def render(result: dict[str, Any]) -> str:
    """The result of any of these functions as text for people.

    >>> render({"id": "a-1", "log": "step 1"})
    'step 1'
    """
    if "log" in result:
        return str(result["log"])
    if "jobs" in result:
        return "\n".join(_line(job) for job in result["jobs"]) or "no jobs"
    return "\n".join([_line(result), *result.get("artefacts", ())])


def failed(result: dict[str, Any]) -> bool:
    """Whether a job that was waited for did not come to its end; looking at one is no failure.

    >>> failed({"waited": True, "state": "failed"}), failed({"state": "failed"})
    (True, False)
    """
    return bool(result.get("waited")) and result["state"] in ("failed", "lost")


def _existing(workspace: str, commands: str = COMMANDS) -> Jobs:
    return open_workspace(workspace, create=False, commands=commands)


def _record(job: Job) -> dict[str, Any]:
    worker = None if job.worker is None else job.worker.pid
    return dataclasses.asdict(job) | {"worker": worker, "seconds": job.seconds(), "eta": job.eta()}


def _line(job: dict[str, Any]) -> str:
    parts = [job["id"], job["state"]]
    if job["position"]:
        parts.append(f"number {job['position']} on {job['device']}")
    if job["total"]:
        parts.append(f"{job['done']}/{job['total']}")
    if job["eta"] is not None:
        parts.append(f"{job['eta']:.0f} s left")
    if job["message"]:
        parts.append(job["message"])
    return "  ".join(parts)
