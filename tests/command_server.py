"""Commands in forks of one process that has imported the heavy packages once: each as in a process of its own, seconds sooner.

`python -m tests.command_server` reads a JSON line a command ({"argv", "folder", "seconds"}) and answers with one ({"code",
"output"}); the documents' tests keep one such process.
"""

import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

HEAVY = ("torch", "diffusers", "pandas", "plotly.graph_objects", "scipy.stats", "skimage.metrics", "workbench.cli")


class CommandServer:
    """The other end: starts the process, and `run` sends it commands."""

    def __init__(self, environment: Mapping[str, str], root: Path):
        self.process = subprocess.Popen(
            [sys.executable, "-m", __name__], cwd=root, env=dict(environment), stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def run(self, argv: Sequence[str], folder: Path, seconds: float) -> tuple[int, str]:
        """Exit code and output of `argv`, which is `pare …`, or Python with `-m MODULE …`, `-c CODE` or a script."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps({"argv": list(argv), "folder": str(folder), "seconds": seconds}) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        return answer["code"], answer["output"]

    def __enter__(self) -> "CommandServer":
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.process.terminate()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()


def execute(argv: Sequence[str]) -> None:
    """What Python does with these words."""
    if Path(argv[0]).name == "pare":
        argv = [sys.executable, "-m", "workbench", *argv[1:]]
    kind, *rest = argv[1:]
    if kind == "-m":
        sys.argv = list(rest)
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif kind == "-c":
        sys.argv = ["-c", *rest[1:]]
        exec(compile(rest[0], "<example>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv = [kind, *rest]
        sys.path.insert(0, str(Path(kind).parent))
        runpy.run_path(kind, run_name="__main__")


def in_fork(argv: Sequence[str], folder: str, output: Path) -> int:
    """The process id of a child in which `argv` runs in `folder`, writing to `output`."""
    child = os.fork()
    if child:
        return child
    code = 1
    os.setsid()
    try:
        target = os.open(output, os.O_WRONLY | os.O_CREAT)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(target, 1)
        os.dup2(target, 2)
        os.chdir(folder)
        execute(argv)
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def wait(child: int, seconds: float) -> int:
    """The exit code of a child; after so many seconds it is killed, with all that it started."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def serve() -> None:
    """Answer commands until there are none."""
    for name in HEAVY:
        __import__(name)
    with tempfile.TemporaryDirectory() as place:
        for number, line in enumerate(sys.stdin):
            asked = json.loads(line)
            output = Path(place) / str(number)
            code = wait(in_fork(asked["argv"], asked["folder"], output), asked["seconds"])
            print(json.dumps({"code": code, "output": output.read_text(errors="replace")}), flush=True)


if __name__ == "__main__":
    serve()
