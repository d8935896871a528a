"""The benchmark of the app runs at a tiny size: a server, a browser, a drag, pages without one. Never timings."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SIZES = ("--large", "3", "4", "4", "6", "--many", "3", "4", "4", "6", "--run", "large", "--run", "many")
TINY = (*SIZES, "--repeats", "1", "--moves", "8", "--page", "heads", "--page", "prune", "--page", "compare")
# Its browser waits as long as the busiest machine needs.
pytestmark = pytest.mark.timeout(1800)


def benchmark(*words, folder):
    script = ROOT / "benchmarks" / "app.py"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, script, *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=1700
    )


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmark")
    done = benchmark(*TINY, "--out", "result.json", folder=folder)
    assert done.returncode == 0, done.stderr[-2000:]
    # What it writes to measure goes with it.
    assert [path.name for path in folder.iterdir()] == ["result.json"]
    return done.stdout.splitlines(), json.loads((folder / "result.json").read_text())["rows"]


def test_every_target_has_a_row_with_numbers_and_says_met_or_missed(measured):
    (hardware, _, header, *table), rows = measured
    assert "load average" in hardware and "streamlit" in hardware
    assert len({line.count("|") for line in (header, *table)}) == 1 and len(table) == 1 + len(rows)
    for row in rows:
        assert all(math.isfinite(row[name]) and row[name] >= 0 for name in ("median", "largest")) and row["n"] > 0
        assert row["met"] is None if row["target"] is None else row["met"] in (True, False)
    with_target = {(row["run"], row["what"].split(",")[0]) for row in rows if row["target"] is not None}
    handled = ("threshold drag", "pinning a head")
    assert with_target == {("–", "`import workbench`"), ("–", "`--help`"), ("many", "opening")} | {
        *(("large", page) for page in ("Heads", "Prune", "Compare")),
        *((run, what) for run in ("large", "many") for what in handled),
    }


def test_a_drag_is_painted_and_sends_nothing(measured):
    _, rows = measured
    drags = [row for row in rows if row["what"].startswith("threshold drag")]
    painted, between, sent = drags[:3]
    assert 0 < painted["n"] <= 8 and painted["median"] > 0 and painted["p95"] <= painted["largest"]
    assert between["n"] > 1 and sent["largest"] == 0 and sent["met"]


def test_every_widget_of_a_page_is_changed_and_changed_back(measured):
    _, rows = measured
    heads = next(row for row in rows if row["what"].startswith("Heads"))
    assert {each["name"] for each in heads["widgets"]} == {
        "pinned head", "threshold", "p", "α", "steps", "sample", "branch", "view", "order",
    }  # fmt: skip
    assert all(each["new"] and len(each["again"]) == 2 for each in heads["widgets"])


def test_a_plan_is_printed_and_a_wrong_part_is_one_line(tmp_path):
    planned = benchmark("--dry-run", folder=tmp_path)
    assert planned.returncode == 0 and "40 blocks, 40 heads, 50 steps, 100 samples, 2 branches" in planned.stdout
    refused = benchmark("--part", "nothing", folder=tmp_path)
    assert refused.returncode == 2 and len(refused.stderr.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
