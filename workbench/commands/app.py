"""`pare app`: opens the workbench in a browser, on this machine only."""

import contextlib
import os
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pare.errors import InputError
from workbench.jobs.api import open_workspace
from workbench.places import Places

START_SECONDS = 60


def app(
    paths: Sequence[str] = (), *, workspace: str = "./workspace", port: int = 8501, open_browser: bool = True
) -> dict[str, Any]:
    """Serve the workbench on 127.0.0.1 until it is stopped (Ctrl-C), and open it in the browser.

    Args: `paths` are runs or folders with runs to open beside data/, only read; `workspace` is the one folder written.
    Returns the address and the workspace once the server has stopped. Raises `InputError` for a path that is no folder,
    a workspace that cannot be written and a port that is taken.
    """
    for path in paths:
        if not Path(path).is_dir():
            raise InputError("path", got=path, expected="a run or a folder with runs", fix="name an existing folder")
        if os.pathsep in str(Path(path).resolve()):
            raise InputError("path", got=path, expected=f"no {os.pathsep!r} in its name", fix="rename the folder")
    data = Places.from_environment().data
    places = Places(Path(workspace).resolve(), tuple(Path(path).resolve() for path in paths), data)
    try:
        places.workspace.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            "--workspace", got=workspace, expected="a folder that can be written", fix="name another folder"
        ) from error
    _check_port(port)
    if (places.workspace / "jobs.sqlite3").is_file():
        # After a crash or a reboot the queues go on.
        open_workspace(places.workspace).wake()
    address = f"http://localhost:{port}"
    # Pages run in threads of this process and read their places from the environment, as with `streamlit run app.py`.
    os.environ.update(places.environment())
    from workbench.server import main

    threading.Thread(target=_announce, args=(address, port, open_browser), daemon=True).start()
    # Standard output is the command's own (one JSON object with --json); the server talks on standard error.
    with contextlib.redirect_stdout(sys.stderr), contextlib.suppress(KeyboardInterrupt):
        main(port)
    return {"address": address, "workspace": str(places.workspace)}


def render(result: dict[str, Any]) -> str:
    """The line for people, once the server has stopped."""
    return f"Stopped {result['address']} (workspace {result['workspace']})."


def _announce(address: str, port: int, open_browser: bool) -> None:
    """Once the server answers, say where it is and open the browser; its own messages say why it does not."""
    deadline = time.monotonic() + START_SECONDS
    # Whatever proxy the environment names, this machine is asked directly.
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while time.monotonic() < deadline:
        try:
            with direct.open(f"http://127.0.0.1:{port}/_stcore/health", timeout=1):
                break
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    else:
        return
    print(f"PARE Workbench: {address} (Ctrl-C stops it)", file=sys.stderr, flush=True)
    if open_browser:
        webbrowser.open(address)


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
