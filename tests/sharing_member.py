"""One of several processes that write a run of made-up samples; started as a program it needs no torch, so it starts soon.

Arguments: folder, rank, count, seconds a sample takes, patience.
"""

import sys
import time

import numpy as np

from analysis.sharing import share_run
from pare.processes import Process
from tests.runs_fixture import make_manifest, random_sample

MANIFEST = make_manifest(blocks=2, heads=3, steps=2, samples=5)


def take_part(
    folder, process, seconds=0.0, patience=300.0, progress=lambda *call: None, resume=False, manifest=MANIFEST
):
    settings = {"units": 2, "resume": resume, "patience": patience, "start_patience": 300.0}
    total = 2 * len(manifest.samples)
    with share_run(folder, manifest, dict, process, **settings) as share:
        for index in share.samples():
            for _ in range(2):
                time.sleep(seconds / 2)
                progress(share.advance(), total, f"sample {index}")
            values = random_sample(manifest, np.random.default_rng(index), np.full((2, 3), 0.5))
            share.writer.write_sample(index, values)
        return share.finish(progress)


if __name__ == "__main__":
    folder, (rank, count), (seconds, patience) = sys.argv[1], map(int, sys.argv[2:4]), map(float, sys.argv[4:])
    take_part(folder, Process(rank, count, rank), seconds, patience)
