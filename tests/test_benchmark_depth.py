"""The depth benchmark runs at a tiny shape: its table and its cost table are there. Never timings."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pare.depth.costs import CostTable

ROOT = Path(__file__).parents[1]
TINY = ("--preset", "demo", "--blocks", "3", "--clip", "32", "32", "9", "--repeats", "1", "--threads", "1")


def benchmark(*words, folder):
    script = ROOT / "benchmarks" / "depth.py"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, script, *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmark")
    done = benchmark(*TINY, "--counts", "2,3", "--out", "result.json", "--costs", "costs.json", folder=folder)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout, json.loads((folder / "result.json").read_text()), CostTable.load(folder / "costs.json")


def test_all_ways_are_measured_in_one_run(measured):
    text, result, _ = measured
    (shape,) = result["shapes"]
    assert [row["way"] for row in shape["rows"]] == [
        "dense", "2 of 3 blocks", "3 of 3 blocks", "router decision", "batch of 2, 2 blocks, one route",
        "batch of 2, 2 blocks, a route each",
    ]  # fmt: skip
    assert all(row["seconds"]["median"] > 0 and row["n"] == 1 for row in shape["rows"])
    assert shape["rows"][1]["share"] == pytest.approx(2 / 3) and shape["rows"][3]["share_of_step"] > 0
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + 6 and len({row.count("|") for row in rows}) == 1
    assert result["hardware"]["threads"] == 1


def test_the_cost_table_can_be_used(measured):
    _, _, costs = measured
    assert costs.blocks == 3 and costs.block > 0 and costs.about["model"] == "demo"
    assert costs.seconds(blocks_run=6, steps=2) > costs.seconds(blocks_run=4, steps=2)


def test_a_dry_run_says_what_would_be_measured(tmp_path):
    done = benchmark("--preset", "wan2.1-t2v-14b", "--blocks", "40", "--device", "cuda", "--dry-run", folder=tmp_path)
    assert done.returncode == 0 and "40 blocks" in done.stdout and "K = 10, 20, 30, 40" in done.stdout
    wrong = benchmark("--preset", "demo", "--counts", "1,9", folder=tmp_path)
    assert wrong.returncode == 2 and wrong.stderr.startswith("--counts")
