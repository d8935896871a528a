"""The benchmark of choosing neurons runs, and its two ways choose the same. Never timings."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def benchmark(*words, folder):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    script = ROOT / "benchmarks" / "neurons.py"
    return subprocess.run(
        [sys.executable, script, *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )


def test_both_ways_choose_the_same_neurons(tmp_path):
    done = benchmark("--preset", "demo", "--threads", "1", "--repeats", "1", "--out", "n.json", folder=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    (row,) = json.loads((tmp_path / "n.json").read_text())["rows"]
    assert row["same"] and row["kept"] == 448 and row["passes"][0]["skipped"] > 0
    assert "| demo | 640 x 320 | 448 |" in done.stdout


def test_a_plan_and_bad_input(tmp_path):
    planned = benchmark("--preset", "wan2.1-t2v-14b", "--device", "cuda", "--dry-run", folder=tmp_path)
    assert planned.returncode == 0 and "9,600 of 13,824 neurons, signatures of 10,240 numbers" in planned.stdout
    refused = benchmark("--preset", "nothing", folder=tmp_path)
    assert refused.returncode == 2 and len(refused.stderr.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
