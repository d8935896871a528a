"""Where methods separate: `python -m workbench.demo.sweep --out FOLDER [--dry-run | --write]`.

Width distillation of students whose heads PARE chose, PARE without protection, and chance, at 30, 50 and 70 % cut, looked at after
0, 50, 200 and 1,000 training steps. A killed command goes on where it was. `--write` fills docs/results.md, and keeps
the numbers in data/results, from which the page can be filled again.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TextIO

from pare.errors import InputError
from pare.geometry import DEMO
from pare.progress import Progress
from workbench.demo.results.effort import Effort
from workbench.demo.results.page import PAGE, write_page
from workbench.demo.results.progress import TableReport
from workbench.demo.results.rows import Budget
from workbench.demo.sweep.cells import Plan, cells, plan_lines, seconds
from workbench.demo.sweep.table import sweep_text
from workbench.demo.sweep.values import DENSE, STORE, keep_values, read_values
from workbench.demo.sweep.work import Bench

RUN = DEMO.parent / "runs" / "demo"


def make(bench: Bench, effort: Effort, stream: TextIO) -> None:
    """Do every cell that is not done; one that diverges is left as far as it came."""
    from pare.training.loop import Diverged

    bench.check()
    ahead = [cell for cell in cells(bench.plan) if not bench.done(cell)]
    stream.write(f"{len(cells(bench.plan)) - len(ahead)} of {len(cells(bench.plan))} cells are done\n")
    report = TableReport(
        [f"{cell.method}, {cell.ratio:.0%} cut" for cell in ahead],
        [seconds(cell, bench.plan, effort) for cell in ahead],
        stream,
    )
    now: list[Progress] = []

    def progress(done: int, total: int, message: str = "") -> None:
        for each in now:
            each(done, total, message)

    bench.progress = progress
    if ahead or not (bench.folder / DENSE).is_file():
        bench.prepare()
    for number, cell in enumerate(ahead):
        now[:] = [report.begin(number)]
        try:
            bench.do(cell)
        except Diverged as error:
            # Its last looks stay absent, and the page says so.
            stream.write(f"{cell.method}, {cell.ratio:.0%} cut: {error}\n")
        report.end(number)


def main() -> None:
    """The command line."""
    given = _parser().parse_args()
    try:
        _run(given)
    except InputError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from error
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def _run(given: argparse.Namespace) -> None:
    numbers = {
        name: value
        for name in ("held_out", "videos", "samples", "learning_rate")
        if (value := getattr(given, name)) is not None
    }
    plan = replace(Plan(), **numbers)
    effort = Effort.of(given.model, Budget())
    if given.dry_run:
        print("\n".join(plan_lines(plan, effort)))
        return
    if not given.write:
        import torch

        torch.set_num_threads(given.threads)
        make(Bench(given.out, given.model, given.run, plan, given.data), effort, sys.stderr)
    looks = read_values(given.out, plan)
    text = sweep_text(looks, plan)
    if given.write:
        write_page({"sweep": text}, given.page)
        keep_values(looks, plan, given.store)
    print(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m workbench.demo.sweep", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="the folder of everything; the same one goes on")
    parser.add_argument("--model", default="demo", help="a model of moving digits")
    parser.add_argument("--run", type=Path, default=RUN, help="a run of the model; default: the bundled one")
    parser.add_argument("--data", type=Path, help="samples of pare distill data; default: made in the folder")
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--store", type=Path, default=STORE, help="where --write keeps the numbers")
    for name in ("held_out", "videos", "samples"):
        parser.add_argument("--" + name.replace("_", "-"), type=int, help=f"default: {getattr(Plan(), name)}")
    parser.add_argument("--learning-rate", type=float, help=f"default: {Plan().learning_rate}")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dry-run", action="store_true", help="print trainings, steps and hours")
    parser.add_argument("--write", action="store_true", help="fill the page and the store; nothing is run")
    return parser


if __name__ == "__main__":
    main()
