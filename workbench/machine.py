"""What a machine has for this project, one finding a line, each with what to do where it is not fine. No torch."""

import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pare.errors import InputError
from workbench.places import Places
from workbench.plan import gibi

Level: TypeAlias = Literal["ok", "warn", "fail"]
GIB = 2**30
LITTLE_MEMORY, NO_MEMORY = 3 * GIB, GIB
"""Free bytes below which the demo's own work is slow, and below which it does not run."""
LITTLE_DISK, NO_DISK = 5 * GIB, GIB // 2
NAMED = 4


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: fine, worth knowing, or broken; `fix` says what to do, and is empty where it is fine."""

    name: str
    level: Level
    text: str
    fix: str = ""


def inspect_machine(places: Places) -> list[Finding]:
    """Every finding that needs no torch; one that breaks off is a failure itself.

    >>> [each.name for each in inspect_machine(Places(Path("workspace")))][:3]
    ['python', 'packages', 'xformers']
    """
    looks: dict[str, Callable[[], Finding]] = {
        "python": look_at_python,
        "packages": look_at_packages,
        "xformers": look_at_xformers,
        "ffmpeg": look_at_ffmpeg,
        "free memory": look_at_memory,
        "disk": lambda: look_at_disk(places.workspace),
        "workspace": lambda: look_at_workspace(places.workspace),
        "jobs": lambda: look_at_jobs(places.workspace),
        "models": lambda: look_at_models(places),
    }
    found = []
    for name, look in looks.items():
        try:
            found.append(look())
        except Exception as error:
            found.append(Finding(name, "fail", f"{type(error).__name__}: {error}", "see the message"))
    return found


def look_at_python() -> Finding:
    """The interpreter and the system."""
    return Finding("python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")


def look_at_packages() -> Finding:
    """Whether everything that the project requires is installed, in a version that it was made for."""
    from packaging.requirements import Requirement

    try:
        wanted = [Requirement(line) for line in requires("pare-workbench") or ()]
    except PackageNotFoundError:
        return Finding(
            "packages", "warn", "the project itself is not installed, so nothing was compared", "pip install -e ."
        )
    missing, other, count = [], [], 0
    for each in wanted:
        if each.marker is not None and not each.marker.evaluate({"extra": ""}):
            continue
        count += 1
        try:
            there = version(each.name)
        except PackageNotFoundError:
            missing.append(each.name)
            continue
        if not each.specifier.contains(there, prereleases=True):
            other.append(f"{each.name} {there} (wanted {each.specifier})")
    if missing:
        return Finding("packages", "fail", f"missing: {', '.join(missing)}", "pip install -r requirements.txt")
    if other:
        return Finding("packages", "warn", f"another version of {', '.join(other)}", "pip install -r requirements.txt")
    return Finding("packages", "ok", f"all {count} that are required, in versions that fit")


def look_at_xformers() -> Finding:
    """Whether the optional attention backend is there; it works on CUDA only."""
    card = shutil.which("nvidia-smi") is not None
    try:
        there = version("xformers")
    except PackageNotFoundError:
        if card:
            return Finding(
                "xformers", "warn", "not installed; --attention native works", "pip install -r requirements.txt"
            )
        return Finding("xformers", "ok", "not installed, and of no use without an NVIDIA GPU")
    return Finding("xformers", "ok", there if card else f"{there}, used on NVIDIA GPUs only")


def look_at_ffmpeg() -> Finding:
    """Whether videos can be written: an ffmpeg that runs and has H.264."""
    import imageio_ffmpeg

    fix = "pip install --force-reinstall imageio-ffmpeg, or set IMAGEIO_FFMPEG_EXE to an ffmpeg of your own"
    try:
        program = imageio_ffmpeg.get_ffmpeg_exe()
        said = subprocess.run(
            [program, "-hide_banner", "-encoders"], capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        return Finding("ffmpeg", "fail", f"does not run: {error}", fix)
    if "libx264" not in said.stdout:
        return Finding("ffmpeg", "fail", "has no H.264 encoder (libx264)", fix)
    return Finding("ffmpeg", "ok", f"{imageio_ffmpeg.get_ffmpeg_version()} with H.264")


def look_at_memory() -> Finding:
    """Main memory that is free now."""
    import psutil

    memory = psutil.virtual_memory()
    return memory_finding(memory.available, memory.total)


def memory_finding(free: int, whole: int) -> Finding:
    """How much main memory is free, and whether that is enough for the demo.

    >>> memory_finding(2 * GIB, 8 * GIB).level
    'warn'
    """
    text, fix = f"{gibi(free)} free of {gibi(whole)}", "close other programs, or cancel jobs that run"
    level: Level = "fail" if free < NO_MEMORY else "warn" if free < LITTLE_MEMORY else "ok"
    return Finding("free memory", level, text, "" if level == "ok" else fix)


def look_at_disk(workspace: Path) -> Finding:
    """Free space where the workspace is or will be."""
    return disk_finding(shutil.disk_usage(_existing(workspace)).free)


def disk_finding(free: int) -> Finding:
    """Whether there is room for runs, students and videos.

    >>> disk_finding(GIB // 4).level, disk_finding(100 * GIB).level
    ('fail', 'ok')
    """
    level: Level = "fail" if free < NO_DISK else "warn" if free < LITTLE_DISK else "ok"
    fix = "remove old jobs on the Jobs page, or name a --workspace on a larger disk"
    return Finding("disk", level, f"{gibi(free)} free for the workspace", "" if level == "ok" else fix)


def look_at_workspace(workspace: Path) -> Finding:
    """Whether the app can write where it writes."""
    there = _existing(workspace)
    if workspace.exists() and not workspace.is_dir():
        return Finding("workspace", "fail", f"{workspace} is a file", "name another --workspace")
    if not os.access(there, os.W_OK | os.X_OK):
        return Finding(
            "workspace", "fail", f"{there} cannot be written", f"chmod u+rwx {there}, or another --workspace"
        )
    table = workspace / "jobs.sqlite3"
    if table.exists() and not os.access(table, os.W_OK):
        return Finding("workspace", "fail", f"{table} cannot be written", f"chmod u+rw {table}")
    return Finding(
        "workspace",
        "ok",
        f"{_typed(workspace)} can be written" + ("" if workspace.exists() else ", and is not there yet"),
    )


def look_at_jobs(workspace: Path) -> Finding:
    """What runs and waits in the workspace, and whether a job was lost."""
    from workbench.jobs.api import State, open_workspace

    if not (workspace / "jobs.sqlite3").is_file():
        return Finding("jobs", "ok", "none so far")
    try:
        jobs = open_workspace(workspace, create=False)
    except InputError as error:
        return Finding("jobs", "fail", error.got, error.fix)
    counted = jobs.store.count(tuple(State))
    waiting = {job.device for job in jobs.store.jobs(states=(State.QUEUED,))}
    served = {worker.device for worker in jobs.workers() if worker.alive}
    if unserved := sorted(waiting - served):
        return Finding("jobs", "warn", f"jobs wait for {', '.join(unserved)} and no worker runs", "restart the app")
    if counted[State.LOST]:
        return Finding("jobs", "warn", f"{counted[State.LOST]} lost", "resume or remove them on the Jobs page")
    words = [f"{number} {state.value}" for state, number in counted.items() if number]
    return Finding("jobs", "ok", ", ".join(words) or "none so far")


def look_at_models(places: Places) -> Finding:
    """Models that commands can run here without a download."""
    from pare.geometry import DEMO

    found = ["demo"] if (DEMO / "model_index.json").is_file() else []
    found += [name for name in places.pipelines() if places.find(name) != DEMO.resolve()]
    found += _cached()
    if not found:
        return Finding(
            "models", "warn", "none on this machine", "make demo builds the bundled one; hf download fetches others"
        )
    more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
    return Finding("models", "ok", ", ".join(found[:NAMED]) + more)


def verdict(findings: Sequence[Finding]) -> str:
    """All findings in one sentence.

    >>> verdict([Finding("a", "ok", ""), Finding("b", "warn", "", "")])
    'This machine works: 1 of 2 checks are fine, 1 to look at'
    """
    bad, odd = (sum(each.level == level for each in findings) for level in ("fail", "warn"))
    fine = f"{len(findings) - bad - odd} of {len(findings)} checks are fine"
    if bad:
        return f"Something is broken here: {fine}, {bad} failed" + (f", {odd} to look at" if odd else "")
    return f"This machine works: {fine}" + (f", {odd} to look at" if odd else "")


def as_text(findings: Sequence[Finding]) -> str:
    """The findings as lines for a terminal or a report of a problem.

    >>> as_text([Finding("disk", "warn", "1.0 GiB free", "make room")])
    'disk        warn    1.0 GiB free; fix: make room'
    """
    return "\n".join(
        f"{each.name:<11} {each.level:<7} {each.text}" + (f"; fix: {each.fix}" if each.fix else "") for each in findings
    )


def from_json(rows: Sequence[Mapping[str, Any]]) -> list[Finding]:
    """Findings that another process wrote.

    >>> from_json([{"name": "disk", "level": "ok", "text": "much", "fix": ""}])
    [Finding(name='disk', level='ok', text='much', fix='')]
    """
    return [Finding(**row) for row in rows]


def to_json(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """Findings as JSON values."""
    return [asdict(each) for each in findings]


def _typed(path: Path) -> Path:
    """A path as it would be typed here, which names no more of the machine than it must."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) and path != here else path


def _existing(path: Path) -> Path:
    return next(each for each in (path, *path.parents) if each.exists())


def _cached() -> list[str]:
    """Wan models in the hub's local cache; nothing is asked over the net."""
    from huggingface_hub.constants import HF_HUB_CACHE

    folders = Path(HF_HUB_CACHE).glob("models--*Wan*")
    return sorted(folder.name.removeprefix("models--").replace("--", "/") for folder in folders if folder.is_dir())
