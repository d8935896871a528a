"""Every command in the README and the documents runs as written.

A fence's word says how: `bash` runs as it stands, in order, in one folder per document; `bash slow` and `bash gpu` run
with `--dry-run` (a hub id of Wan2.1 as the preset of the same shapes, since no test downloads; what `accelerate launch` starts
alone); `bash app` starts the
app and asks for its page; `bash make` only has its targets resolved, since `make test` runs this very test.
"""

import hashlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.command_server import CommandServer

# A document is many commands.
pytestmark = pytest.mark.timeout(1800)
ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
KINDS = {"", "slow", "gpu", "app", "make"}
HUB = {"Wan-AI/Wan2.1-T2V-14B-Diffusers": "wan2.1-t2v-14b", "Wan-AI/Wan2.1-T2V-1.3B-Diffusers": "wan2.1-t2v-1.3b"}
ENVIRONMENT = os.environ | {
    "OMP_NUM_THREADS": "1",
    "BROWSER": "true",
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
}


def fences(document: Path) -> list[tuple[str, list[str]]]:
    """(kind, commands) of every bash fence, continuation lines joined."""
    found = re.findall(r"^```bash ?(\w*)\n(.*?)^```", document.read_text(), re.MULTILINE | re.DOTALL)
    return [(kind, [line for line in body.replace("\\\n", " ").splitlines() if line.strip()]) for kind, body in found]


def examples(document: Path) -> list[str]:
    """Every Python fence."""
    return re.findall(r"^```python\n(.*?)^```", document.read_text(), re.MULTILINE | re.DOTALL)


def words(command: str) -> list[str]:
    """The words of a command line of ours, `pare` or `python` as this environment's own, `benchmarks/` where it is."""
    parts = shlex.split(command, comments=True)
    parts = [str(ROOT / part) if part.startswith("benchmarks/") else part for part in parts]
    if parts[0] == "python":
        parts[0] = sys.executable
    return parts


SECONDS = 500


@pytest.fixture(scope="module")
def server() -> Iterator[CommandServer]:
    """Runs commands without importing torch for each."""
    with CommandServer(ENVIRONMENT, ROOT) as server:
        yield server


@pytest.fixture(scope="module")
def kept(tmp_path_factory) -> Path:
    """Captures by the words that made them."""
    return tmp_path_factory.mktemp("kept")


def run(parts: list[str], folder: Path, server: CommandServer | None = None) -> None:
    """Run a command to its end; with a `server` in a fork of it, else in a process of its own."""
    if server is not None and (Path(parts[0]).name == "pare" or parts[0] == sys.executable):
        code, output = server.run(parts, folder, SECONDS)
    else:
        result = subprocess.run(parts, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=SECONDS)
        code, output = result.returncode, result.stdout[-2000:] + result.stderr
    assert code == 0, f"{shlex.join(parts)}\n{output[-4000:]}"


def run_once(parts: list[str], folder: Path, server: CommandServer | None, kept: Path) -> None:
    """Run a command; a capture that another document has made with the same words is copied from there instead."""
    out = folder / parts[parts.index("--out") + 1] if "--out" in parts else folder
    if parts[:2] != ["pare", "capture"] or "--dry-run" in parts or out.exists():
        return run(parts, folder, server)
    there = kept / hashlib.sha256("\0".join(parts).encode()).hexdigest()
    if not there.exists():
        run(parts, folder, server)
        shutil.copytree(out, there)
    else:
        shutil.copytree(there, out)


def dry(command: str) -> list[str]:
    for hub, preset in HUB.items():
        command = command.replace(hub, preset)
    parts = words(command)
    if parts[:2] == ["accelerate", "launch"]:
        # What a launcher starts in every process; the launch itself needs the GPUs.
        parts = ["pare", *parts[parts.index("workbench") + 1 :]]
    return parts if "--dry-run" in parts else [*parts, "--dry-run"]


def opens(parts: list[str], folder: Path, port: int) -> None:
    """Starts the app as written, on a free port, and asks for its page."""
    process = subprocess.Popen(
        [*parts, "--port", str(port)], cwd=folder, env=ENVIRONMENT, start_new_session=True, stdin=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=2) as answer:
                    assert answer.status == 200
                return
            except OSError:
                assert process.poll() is None, f"{shlex.join(parts)} ended with {process.returncode}"
                assert time.monotonic() < deadline, f"{shlex.join(parts)}: no page after two minutes"
                time.sleep(0.5)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(120)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_of_the_document_runs(document, tmp_path, free_port, server, kept):
    # What a newcomer types first runs as the newcomer's shell runs it.
    own = None if document.name == "README.md" else server
    (tmp_path / "prompts.txt").write_text("a red 7 moving up and left, fast\n")
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "clip.mp4").touch()
    (tmp_path / "videos" / "captions.csv").write_text("file,caption\nclip.mp4,a red 7 standing still\n")
    for kind, commands in fences(document):
        assert kind in KINDS, f"{document.name}: unknown kind of fence {kind!r}"
        for command in commands:
            if kind == "make":
                run(["make", "-n", *words(command)[1:]], ROOT)
            elif kind == "app":
                opens(words(command), tmp_path, free_port())
            elif kind in ("slow", "gpu"):
                run(dry(command), tmp_path, own)
            else:
                run_once(words(command), tmp_path, own, kept)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_python_example_of_the_document_runs(document, tmp_path, server):
    # Examples read bundled files by the paths that they have in a checkout.
    (tmp_path / "data").symlink_to(ROOT / "data")
    for body in examples(document):
        run([sys.executable, "-c", body], tmp_path, server)


def test_a_failing_command_is_told(tmp_path, server):
    for words_, told in (
        (["pare", "info", "no-such-model"], "no-such-model"),
        ([sys.executable, "-c", "raise ValueError('a fault')"], "a fault"),
        ([sys.executable, "-c", "raise SystemExit('a reason')"], "a reason"),
    ):
        with pytest.raises(AssertionError, match=told):
            run(words_, tmp_path, server)
    assert server.run([sys.executable, "-c", "import time; time.sleep(60)"], tmp_path, 0.2)[0] == -signal.SIGKILL


def test_a_run_is_read_in_20_lines_with_numpy_and_pandas_alone(tmp_path):
    (reader,) = (body for body in examples(ROOT / "docs" / "files.md") if "int.from_bytes" in body)
    assert len([line for line in reader.splitlines() if line.strip()]) <= 20
    imported = re.findall(r"^(?:import|from) (\w+)", reader, re.MULTILINE)
    assert sorted(imported) == ["json", "numpy", "pandas", "pathlib"]
    (tmp_path / "data").symlink_to(ROOT / "data")
    check = """
from analysis.runs import Run
heads = Run.open("data/runs/demo").heads()
assert (table[["sample", "step", "block", "head"]].to_numpy() == heads[["sample", "step", "block", "head"]]).all(None)
assert (table["ratio"].to_numpy() == heads["ratio"]).all() and (table["timestep"].to_numpy() == heads["timestep"]).all()
"""
    run([sys.executable, "-c", reader + check], tmp_path)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_and_pictures_of_the_document_exist(document):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", document.read_text()):
        if not re.match(r"[a-z]+:", target):
            assert (document.parent / target).exists(), f"{document.name} points to {target}"


def test_the_readme_shows_a_picture_and_both_commands():
    text = (ROOT / "README.md").read_text()
    assert re.search(r"!\[.+\]\(docs/images/.+\.png\)", text)
    assert "make app\n" in text and "make test\n" in text
