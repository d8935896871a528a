"""The benchmark of pruning on disk runs at a tiny shape, and its limit on memory is a real one. Never timings."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def benchmark(*words, folder):
    script = ROOT / "benchmarks" / "shards.py"
    given = [sys.executable, script, "--preset", "demo", "--blocks", "2", "--folder", str(folder), *words]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(given, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def test_time_peak_and_sizes_are_in_the_table(tmp_path):
    done = benchmark("--in-memory", "--out", "result.json", folder=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads((tmp_path / "result.json").read_text())
    capped, whole = result["rows"]
    assert (capped["way"], whole["way"]) == ("block by block", "in memory") and whole["cap"] is None
    assert 0 < capped["peak_bytes"] < capped["cap"] * 2**30 and capped["seconds"] > 0
    # In memory diffusers keeps a few weights in float32.
    assert capped["parameters"] == whole["parameters"] and capped["written_bytes"] < whole["written_bytes"]
    assert capped["written_bytes"] < result["source_bytes"] == 2 * 1_064_832
    rows = [line for line in done.stdout.splitlines() if line.startswith("|")]
    assert len(rows) == 4 and len({row.count("|") for row in rows}) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["result.json"]


def test_a_process_that_needs_more_than_the_limit_fails(tmp_path):
    done = benchmark("--cap", "0.1", folder=tmp_path)
    assert done.returncode == 1 and "block by block" in done.stderr
    assert not list(tmp_path.iterdir())
