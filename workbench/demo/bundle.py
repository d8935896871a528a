"""Makes the runs that come with the project from the demo model: `python -m workbench.demo.bundle`.

`data/runs/demo` is a calibration capture (10 timesteps of latents that the model generated), `data/runs/demo-videos` a few whole
generations with their videos, `data/runs/demo-NAME` the same generations by the shipped student of that name, where it is there.
All are resumed when they were cut off, and end with the same bytes.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from pare.geometry import DEMO
from pare.progress import Progress, silent
from workbench.commands.capture import capture

SHOWN = ("a red 7 moving up and left, fast", "a blue 3 standing still")

# Everything of every sample would be 9 MB; what is large and steady is kept of some, which run.json names.
STATISTICS = "all,rows:10,self/projected_energy:100,cross/projected_energy:10,maps:2"


def bundle(
    runs: Path,
    *,
    model: str = "demo",
    samples: int = 200,
    students: Path = DEMO.parent / "students",
    progress: Callable[[str], Progress] = lambda name: silent,
) -> None:
    """Writes the calibration and the trajectory run of `model` below `runs`, and a trajectory run of each of `students`.

    Args: `samples` of the calibration; `students`: a folder of student folders; `progress`: run name -> the progress callback
    of that run.
    """
    capture(
        model,
        out=runs / "demo",
        mode="calibration",
        prompts=DEMO.parent / "prompts" / "held-out.txt",
        samples=samples,
        statistics=STATISTICS,
        resume=(runs / "demo").exists(),
        progress=progress("demo"),
    )
    capture(
        model,
        out=runs / "demo-videos",
        mode="trajectory",
        prompts=SHOWN,
        statistics="basic,maps:2",
        resume=(runs / "demo-videos").exists(),
        progress=progress("demo-videos"),
    )
    for student in sorted(path.parent for path in students.glob("*/model_index.json")):
        name = f"demo-{student.name}"
        capture(
            str(student),
            out=runs / name,
            mode="trajectory",
            prompts=SHOWN,
            statistics="basic,maps:2",
            resume=(runs / name).exists(),
            progress=progress(name),
        )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m workbench.demo.bundle", description=__doc__.split("\n\n")[0])
    parser.add_argument("--runs", type=Path, default=DEMO.parent / "runs")
    parser.add_argument("--samples", type=int, default=200)
    arguments = parser.parse_args()
    from workbench.demo.report import StageReport

    bundle(arguments.runs, samples=arguments.samples, progress=lambda name: StageReport(name, sys.stderr))


if __name__ == "__main__":
    main()
