"""`pare app`: opens the workbench in a browser, on this machine only."""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pare.errors import InputError
from pare.progress import Progress, silent
from workbench.places import PROJECT, Places

START_SECONDS = 60


def app(
    paths: Sequence[str] = (),
    *,
    workspace: str = "./workspace",
    port: int = 8501,
    open_browser: bool = True,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Serve the workbench on 127.0.0.1 until it is stopped, and open it in the browser.

    Args: `paths` are runs or folders with runs to open beside data/, only read; `workspace` is the one folder written.
    Returns the address and the server's exit code. Raises `InputError` for a path that is no folder, a workspace that
    cannot be written and a port that is taken.
    """
    for path in paths:
        if not Path(path).is_dir():
            raise InputError("path", got=path, expected="a run or a folder with runs", fix="name an existing folder")
        if os.pathsep in str(Path(path).resolve()):
            raise InputError("path", got=path, expected=f"no {os.pathsep!r} in its name", fix="rename the folder")
    places = Places(Path(workspace).resolve(), tuple(Path(path).resolve() for path in paths))
    try:
        places.workspace.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            "--workspace", got=workspace, expected="a folder that can be written", fix="name another folder"
        ) from error
    _check_port(port)
    address = f"http://localhost:{port}"
    environment = {**os.environ, **places.environment()}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(PROJECT), os.environ.get("PYTHONPATH")]))
    server = subprocess.Popen([sys.executable, "-m", "workbench.server", str(port)], env=environment)
    try:
        _wait(server, f"http://127.0.0.1:{port}/_stcore/health")
        progress(1, 1, f"open at {address} (Ctrl-C stops it)")
        if open_browser:
            webbrowser.open(address)
        code = server.wait()
    except KeyboardInterrupt:
        server.terminate()
        code = server.wait()
    finally:
        if server.poll() is None:
            server.terminate()
    return {"address": address, "workspace": str(places.workspace), "exit_code": code}


def _check_port(port: int) -> None:
    if not 1 <= port <= 65535:
        raise InputError("--port", got=port, expected="a number from 1 to 65535", fix="for example --port 8502")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise InputError(
                "--port", got=f"{port}, which is taken", expected="a free port", fix=f"--port {port % 65535 + 1}"
            ) from error


def _wait(server: subprocess.Popen[bytes], health: str) -> None:
    """Until the server answers; gives up quietly after a while, since the server's own messages say more."""
    deadline = time.monotonic() + START_SECONDS
    while server.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(health, timeout=1):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
