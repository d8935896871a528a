"""The server's own routes and headers, over HTTP: videos play with ranges, nothing else comes out."""

import json
import signal
import socket
import subprocess
import sys
import time
import tomllib
import urllib.request
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from pare.errors import InputError
from tests.ports import find_free_port
from workbench.commands.app import app as app_command
from workbench.places import PROJECT, Places
from workbench.server import CONFIG, ROUTES_VARIABLE, middleware, plotly_address, routes, video_address

VIDEO = bytes(range(256)) * 4


@pytest.fixture
def places(tmp_path: Path) -> Places:
    for folder in ("workspace/jobs/a b", "data", "secret"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "workspace/jobs/a b/v.mp4").write_bytes(VIDEO)
    (tmp_path / "workspace/notes.txt").write_text("not a video")
    (tmp_path / "secret/v.mp4").write_bytes(b"secret")
    (tmp_path / "workspace/out.mp4").symlink_to(tmp_path / "secret/v.mp4")
    (tmp_path / "workspace/way-out").symlink_to(tmp_path / "secret")
    return Places((tmp_path / "workspace").resolve(), (), (tmp_path / "data").resolve())


@pytest.fixture
def client(places: Places) -> TestClient:
    return TestClient(Starlette(routes=routes(places), middleware=middleware()), base_url="http://localhost")


def test_a_video_plays_whole_and_by_ranges(client):
    whole = client.get("/api/video/workspace/jobs/a%20b/v.mp4")
    assert (whole.status_code, whole.content, whole.headers["content-type"]) == (200, VIDEO, "video/mp4")
    part = client.get("/api/video/workspace/jobs/a%20b/v.mp4", headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, VIDEO[10:20])
    assert part.headers["content-range"] == f"bytes 10-19/{len(VIDEO)}"


def test_plotly_comes_from_this_server_at_an_address_of_its_version(client, monkeypatch):
    monkeypatch.delenv(ROUTES_VARIABLE, raising=False)
    assert plotly_address() is None
    monkeypatch.setenv(ROUTES_VARIABLE, "1")
    answer = client.get(plotly_address())
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/javascript; charset=utf-8")
    assert answer.content == files("plotly").joinpath("package_data", "plotly.min.js").read_bytes()
    assert "max-age" in answer.headers["cache-control"] and version("plotly") in plotly_address()


@pytest.mark.parametrize(
    "path",
    [
        "workspace/../secret/v.mp4",
        "workspace/..%2fsecret%2fv.mp4",
        "workspace/%2e%2e/secret/v.mp4",
        "workspace/way-out/v.mp4",
        "workspace/out.mp4",
        "workspace/notes.txt",
        "workspace/jobs",
        "secret/v.mp4",
        "%2fetc%2fpasswd",
        "workspace/v.mp4%00",
        "",
    ],
)
def test_nothing_else_comes_out(client, path):
    answer = client.get(f"/api/video/{path}")
    assert answer.status_code == 404
    assert b"secret" not in answer.content and b"/" not in answer.content


def test_every_answer_has_the_headers_and_foreign_hosts_get_none(client):
    for path in ("/api/video/workspace/jobs/a%20b/v.mp4", "/api/video/none.mp4"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "SAMEORIGIN"
        assert headers["referrer-policy"] == "same-origin"
    assert client.get("/api/video/workspace/jobs/a%20b/v.mp4", headers={"Host": "evil.example"}).status_code == 400


def test_only_reading(client):
    for method in ("post", "put", "delete"):
        assert getattr(client, method)("/api/video/workspace/jobs/a%20b/v.mp4").status_code == 405


def test_addresses_exist_only_where_the_routes_do(places, monkeypatch):
    video = places.workspace / "jobs/a b/v.mp4"
    monkeypatch.delenv(ROUTES_VARIABLE, raising=False)
    assert video_address(places, video) is None
    monkeypatch.setenv(ROUTES_VARIABLE, "1")
    assert video_address(places, video) == "/api/video/workspace/jobs/a%20b/v.mp4"
    assert video_address(places, Path("/etc/passwd")) is None


def test_a_plain_streamlit_run_gets_the_same_settings():
    file = tomllib.loads((PROJECT / ".streamlit/config.toml").read_text())
    flat = {}
    for section, values in file.items():
        for name, value in values.items():
            nested = value if isinstance(value, dict) else None
            flat |= {f"{section}.{name}.{n}": v for n, v in nested.items()} if nested else {f"{section}.{name}": value}
    assert flat == CONFIG


def test_the_command_refuses_bad_input(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match="--port"):
            app_command(workspace=str(tmp_path), port=port)
    with pytest.raises(InputError, match="path"):
        app_command([str(tmp_path / "missing")], workspace=str(tmp_path))
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="--workspace"):
        app_command(workspace=str(tmp_path / "file"))


def test_the_command_serves_here_only_and_stops_cleanly(tmp_path):
    port = find_free_port()
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "v.mp4").write_bytes(VIDEO)
    command = [sys.executable, "-m", "workbench", "app", "--json", "--no-browser", "--port", str(port)]
    command += ["--workspace", str(tmp_path / "w")]
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        try:
            base, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 120
            while True:
                try:
                    page = urllib.request.urlopen(f"{base}/_stcore/health")
                    break
                except OSError:
                    assert server.poll() is None and time.monotonic() < deadline
                    time.sleep(0.1)
            assert page.headers["x-content-type-options"] == "nosniff"
            ranged = urllib.request.Request(f"{base}/api/video/workspace/v.mp4")
            ranged.add_header("Range", "bytes=0-3")
            with urllib.request.urlopen(ranged) as video:
                assert (video.status, video.read()) == (206, VIDEO[:4])
            listening = Path("/proc/net/tcp")
            if listening.exists():
                lines = [line.split() for line in listening.read_text().splitlines()[1:]]
                mine = [local for _, local, _, state, *_ in lines if local.endswith(f":{port:04X}") and state == "0A"]
                assert mine == [f"0100007F:{port:04X}"]
            server.send_signal(signal.SIGINT)
            out, errors = server.communicate(timeout=120)
        finally:
            server.kill()
    assert server.returncode == 0
    assert json.loads(out)["address"] == f"http://localhost:{port}"
    assert f"http://localhost:{port}" in errors
