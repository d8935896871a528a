"""The width benchmark runs, at a tiny shape: its rows, and what they hold that does not depend on time."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TINY = ("--preset", "demo", "--blocks", "1", "--clip", "32", "32", "9", "--repeats", "2", "--threads", "1")


def benchmark(*words, folder):
    script = ROOT / "benchmarks" / "width.py"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, script, *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=500
    )


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmark")
    words = (*TINY, "--ratio", "0.3", "--ratio", "0.7", "--qk-norm", "exact", "--out", "result.json")
    done = benchmark(*words, folder=folder)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines(), json.loads((folder / "result.json").read_text())


def test_the_table_has_one_row_per_model_and_the_hardware_above(measured):
    (hardware, _, header, rule, *rows), _ = measured
    assert "1 torch thread," in hardware
    columns = [each.strip() for each in header.strip("|").split("|")]
    assert columns[7:11] == [
        "operations over dense", "time over dense", "processor time over dense", "time over operations",
    ]  # fmt: skip
    assert rule.count("---") == len(columns) == 12
    cells = [[each.strip() for each in row.strip("|").split("|")] for row in rows]
    assert [row[3] for row in cells] == ["dense", "p = 0.3", "p = 0.7"] and {len(row) for row in cells} == {12}


def test_rows_hold_the_operations_and_the_time_beside_them(measured):
    _, result = measured
    dense, *pruned = result["rows"]
    assert dense["counts"] is None and dense["operations_over_dense"] == dense["memory"] == 1
    assert [row["counts"]["self_heads"] for row in pruned] == [7, 3]
    # Exact keeps queries and keys whole, so that less is saved than the ratio says.
    shares = [row["operations_over_dense"] for row in result["rows"]]
    assert 1 > shares[1] > 0.7 and shares[1] > shares[2] > 0.3
    for row in result["rows"]:
        assert all(math.isfinite(value) and value > 0 for name in ("seconds", "time", "processor_time")
                   for value in row[name].values())  # fmt: skip
        assert row["n"] == 2 and row["peak_bytes"] > 0 and row["operations"] > 0
        assert row["time_over_operations"] == pytest.approx(row["time"]["median"] / row["operations_over_dense"])
    assert [row["parameters"] for row in result["rows"]] == sorted(
        (row["parameters"] for row in result["rows"]), reverse=True
    )


def test_a_plan_says_the_published_ratio_and_bad_input_is_one_line(tmp_path):
    planned = benchmark(
        "--preset", "wan2.1-t2v-14b", "--device", "cuda", "--ratio", "0.3", "--dry-run", folder=tmp_path
    )
    assert planned.returncode == 0
    assert "28 self_heads, 28 cross_heads, 9600 neurons" in planned.stdout and "0.699 of dense" in planned.stdout
    for words in (("--ratio", "1.5"), ("--qk-norm", "all"), ("--preset", "nothing")):
        refused = benchmark(*words, folder=tmp_path)
        assert refused.returncode == 2 and len(refused.stderr.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
