"""A newcomer's whole path in one browser, from the command behind `make app` to a report that opens offline."""

import os
import re
import signal
import sys
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

from analysis.importance import mean_ratio
from analysis.roles import classify, role_counts
from analysis.runs import Run
from pare import mask as masks
from pare.geometry import DEMO
from pare.models import load_pipeline
from tests.browser.newcomer import BLOCK, BLOCKS, HALF, HEAD, HEADS, RATIO, walk
from workbench.jobs.api import Jobs, open_workspace
from workbench.jobs.job import State

STEPS = 2
"""Of the videos whose forms ask; what is tested is the way to them."""


@pytest.fixture
def workspace(tmp_path) -> Path:
    return tmp_path / "workspace"


@pytest.fixture
def address(serve, workspace, free_port):
    port = free_port()
    argv = [sys.executable, "-m", "workbench", "app", "--port", str(port), "--workspace", str(workspace)]
    # What `make app` runs; it opens a browser, which is none here.
    url = serve.start(argv, port, {"BROWSER": "true"})
    yield url
    serve.stop(url)
    # The worker outlives its server by design, so the test ends its own.
    for worker in open_workspace(workspace).workers():
        if worker.alive:
            os.kill(worker.identity.pid, signal.SIGTERM)


@pytest.mark.timeout(3600)
def test_from_the_first_look_to_a_report(page, address, workspace, tmp_path):
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    walked = walk(page, address, tmp_path, steps=STEPS)
    jobs = open_workspace(workspace)
    assert {job.state for job in jobs.list()} == {State.DONE}
    run = Run.open(DEMO.parent / "runs" / "demo")
    roles = role_counts(classify(mean_ratio(run), 0.7, walked.tau_t))
    assert [int(one) for one in re.findall(r"\d+(?=\s+(?:spatial|mixed|temporal))", walked.counts)] == list(
        roles.values()
    )

    stays = round(HEADS * (1 - RATIO))
    mask = masks.load(made(jobs, "mask", "mask.safetensors"))
    assert (mask.self_heads.sum(axis=1) == stays).all() and (mask.cross_heads.sum(axis=1) == stays).all()
    settings = mask.metadata["settings"]
    assert (settings["ratio"], settings["tau_t"]) == (RATIO, pytest.approx(walked.tau_t))
    assert f"keeps {BLOCKS * stays} self-attention heads" in walked.mask

    student = made(jobs, "prune", "student")
    transformer = load_pipeline(str(student)).transformer
    assert list(transformer.config.self_heads) == [stays] * BLOCKS
    assert [block.attn1.heads for block in transformer.blocks] == [stays] * BLOCKS
    parameters, dense = (int(one.replace(",", "")) for one in re.findall(r"\d[\d,]+", walked.student)[:2])
    assert parameters == sum(each.numel() for each in transformer.parameters()) < dense
    assert walked.sizes[0] == ["parameters stored", f"{dense:,}", f"{parameters:,}", f"{parameters / dense:.0%}"]

    (routed,) = [job for job in jobs.list(command="generate") if job.arguments.get("router") == "importance"]
    assert routed.result["routing"]["mean_blocks"] == HALF and routed.result["routing"]["blocks"] == BLOCKS
    measured = {row[0]: float(row[2]) for row in walked.measured}
    assert set(measured) == {"PSNR", "SSIM", "flow end-point error"} and np.isfinite(list(measured.values())).all()

    # The report is what the browser shows now, with no network.
    assert set(map(origin, asked)) <= {address, "file", "data", "blob"}
    references = page.evaluate("[...document.querySelectorAll('[src], [href]')].map((one) => one.src || one.href)")
    assert {origin(one) for one in references if isinstance(one, str)} <= {address, "file", "data", "blob"}
    assert page.evaluate("[...document.querySelectorAll('.figure')].every((one) => one.querySelector('.main-svg'))")
    assert page.evaluate("document.querySelectorAll('.figure').length") >= 8
    # What the page plays: the teacher's video and those of its students.
    assert page.evaluate("document.querySelectorAll('video').length") >= 2
    words = page.evaluate("document.body.textContent")
    assert f"τs = 0.7, τt = {walked.tau_t:g}" in words and f"--ratio {RATIO:g} " in words
    assert f"block {BLOCK}, head {HEAD}" in words.lower()


def origin(url: str) -> str:
    """The server of an address, or its kind where it has none."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}" if parts.scheme.startswith("http") else parts.scheme


def made(jobs: Jobs, command: str, name: str) -> Path:
    """What the one job of this command wrote."""
    (job,) = jobs.list(command=command)
    (path,) = [path for path in (jobs.folder(job.id) / "artefacts").iterdir() if path.name == name]
    return path
