"""The benchmarks run, at a tiny shape: their tables have their columns and what they measure is there. Never timings."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TINY = ("--preset", "demo", "--blocks", "2", "--clip", "32", "32", "9", "--repeats", "2", "--threads", "1")
WAYS = ["plain", "exact ratios", "everything", "softmax written out"]


def benchmark(*words, folder):
    script = ROOT / "benchmarks" / "capture.py"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, script, *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )


def cells(line):
    return [each.strip() for each in line.strip("|").split("|")]


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmark")
    done = benchmark(*TINY, "--out", "result.json", folder=folder)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines(), json.loads((folder / "result.json").read_text())


def test_the_table_has_one_row_per_way_and_the_hardware_above(measured):
    (hardware, _, header, rule, *rows), _ = measured
    assert "1 torch thread," in hardware and "load average" in hardware
    assert cells(header) == [
        "model",
        "clip",
        "tokens",
        "forward",
        "n",
        "seconds",
        "time over plain",
        "processor time over plain",
        "peak memory",
        "memory over plain",
    ]
    assert rule.count("---") == len(cells(header))
    assert [cells(row)[3] for row in rows] == WAYS
    assert {cells(row)[2] for row in rows} == {"80"} and all(len(cells(row)) == 10 for row in rows)


def test_ratios_are_those_of_the_softmax_written_out(measured):
    _, result = measured
    for row in result["rows"][1:]:
        assert row["ratios"]["finite"] and row["ratios"]["heads"] == 20
        assert 0 <= row["ratios"]["smallest"] <= row["ratios"]["largest"] <= 1
        assert row["ratios"]["off_by"] < 1e-5


def test_times_and_memory_are_measured_and_the_written_out_softmax_needs_more(measured):
    _, result = measured
    assert result["command"].startswith("python benchmarks/capture.py --preset demo")
    for row in result["rows"]:
        for name in ("seconds", "time", "processor_time"):
            assert all(math.isfinite(value) and value > 0 for value in row[name].values())
        assert row["n"] == 2 and row["peak_bytes"] > 0
    # Memory is counted, not timed: the same on every machine. Two tensors of heads x tokens x tokens are held at once.
    plain, ratios, _, written = (row["peak_bytes"] for row in result["rows"])
    assert ratios <= 1.05 * plain and written >= 2 * 10 * 80**2 * 4


def test_a_plan_needs_no_device_and_bad_input_is_one_line(tmp_path):
    planned = benchmark("--preset", "wan2.1-t2v-14b", "--device", "cuda", "--dry-run", folder=tmp_path)
    assert planned.returncode == 0 and "32,760 tokens" in planned.stdout
    for words in (("--preset", "nothing"), ("--preset", "demo", "--blocks", "9"), ("--clip", "32", "32", "9")):
        refused = benchmark(*words, folder=tmp_path)
        assert refused.returncode == 2 and len(refused.stderr.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
