"""The table of results on the demo model: `python -m workbench.demo.results --out FOLDER [--rows KEYS] [--dry-run | --write]`.

Every row is a mask, a student, its stages of training, the videos of 200 prompts and their scores; each of these is a job that a
killed command goes on with. `--write` fills docs/results.md from what the folder holds, and keeps the scores in data/results,
where a new folder takes them from.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

from pare import cost
from pare.errors import InputError
from pare.files import write_bytes
from pare.geometry import DEMO, read_json
from workbench.demo.prompts import HELD_OUT
from workbench.demo.results import tables
from workbench.demo.results.effort import Effort, plan_lines
from workbench.demo.results.measured import Results
from workbench.demo.results.page import PAGE, write_page
from workbench.demo.results.progress import TableReport
from workbench.demo.results.rows import TEACHER, Budget, Row, all_rows, choose, jobs_of, needed
from workbench.demo.results.seconds import ROUNDS, has_seconds, measure_seconds
from workbench.demo.results.store import STORE, keep, take
from workbench.demo.results.work import CARD, RECORD, Bench

COUNTS = ("seeds", "prompts", "samples", "width_steps", "joint_steps", "few_steps_steps", "longer")
NUMBERS = ("ratio", "learning_rate", "joint_rate", "router_rate", "router_share", "few_steps_rate")
FAILED = "failed.json"
RUN = DEMO.parent / "runs" / "demo"


def rows_of(effort: Effort, keys: Sequence[str] | None = None) -> tuple[Row, ...]:
    """The rows of the table for a model, baselines at PARE's active parameters."""
    (pare,) = (row for row in all_rows(effort.budget, 2) if row.key == "pare")
    return choose(all_rows(effort.budget, effort.static_blocks(pare)), keys)


def make(
    bench: Bench,
    rows: Sequence[Row],
    effort: Effort,
    stream: TextIO,
    rounds: int = ROUNDS,
    store: Path | None = None,
) -> None:
    """Do every job that the scores of these rows still need, then time the videos of all rows in turn.

    Scores of the same table in `store` are taken from there. A training that diverges is noted in the folder, and its row is
    left out; the others go on.
    """
    from pare.training.loop import Diverged

    bench.check()
    if store is not None and (taken := take(bench.folder, store)):
        stream.write(f"{taken} evaluations are scored already, in {store.name}\n")
    jobs = jobs_of(rows)
    ahead = needed(jobs, bench.done)
    stream.write(f"{len(jobs) - len(ahead)} of {len(jobs)} jobs are done\n")
    report = TableReport([job.title for job in ahead], [effort.seconds(job) for job in ahead], stream)
    failed = read_failed(bench.folder)
    for number, job in enumerate(ahead):
        progress = report.begin(number)
        if job.source in failed or job.name in failed:
            # What would follow from a student that is not there; the other rows go on.
            failed.setdefault(job.name, failed.get(job.source or job.name, ""))
        elif not bench.done(job):
            try:
                bench.do(job, progress)
            except Diverged as error:
                failed[job.name] = str(error)
                stream.write(f"{job.title}: {error}\n")
                write_bytes(bench.folder / FAILED, json.dumps(failed, indent=1).encode())
        report.end(number)
    timed = [row for row in rows if row.key == TEACHER or (bench.student(row.name(0)) / CARD).is_file()]
    if not has_seconds(bench, timed):
        measure_seconds(bench, timed, rounds=rounds)


def read_failed(folder: Path) -> dict[str, str]:
    """Trainings that diverged, by name, and what they said; to try one again, take it out of the file."""
    path = folder / FAILED
    return dict(read_json(path)) if path.is_file() else {}


def blocks_of(folder: Path, rows: Sequence[Row], effort: Effort) -> dict[str, str]:
    """The blocks of the page, from a folder of results."""
    results = Results.read(folder)
    about = read_json(folder / RECORD)
    failed = read_failed(folder)
    names = {row.evaluation(seed): f"{row.title}, seed {seed}" for row in rows for seed in range(row.seeds)}
    told = [
        title for name, title in names.items() if any(name == each or name.startswith(f"{each}.") for each in failed)
    ]
    diverged = [f"Diverged in training, and left out: {'; '.join(told)}."] if told else []

    def never_run(row: Row) -> int:
        dense = cost.parameters(effort.geometry)
        return round(dense.in_blocks * (1 - effort.share(row))) if row.static else 0

    return {
        "settings": settings_text(about, results, effort),
        "scores": "\n\n".join([tables.scores_table(rows, results), *diverged]),
        "motion": tables.motion_table(rows, results),
        "cost": tables.cost_table(rows, results, effort.cost, never_run),
        "bars": tables.bars_text(rows, results),
        "answers": tables.answers_text(rows, results),
        "losses": tables.losses_text(rows, results),
    }


def settings_text(about: dict[str, Any], results: Results, effort: Effort) -> str:
    """What the results are of, in one paragraph."""
    budget, model = effort.budget, about["model"]
    return (
        f"Made of `{model['model_id']}` (weights {str(model['weight_hash'])[:12]}), run {about['run'][:12]}: {budget.ratio:.0%} "
        f"of heads and neurons cut, {budget.width_steps} and {budget.joint_steps} training steps of {budget.batch} samples in "
        f"stages I and II, {budget.few_steps_steps} of {budget.few_steps_batch} in stage III, {budget.samples} training "
        f"samples; learning rates {budget.learning_rate:g}, stage II {budget.joint_rate:g}, its router {budget.router_rate:g} "
        f"in the first {budget.router_share:.0%} of the steps, stage III {budget.few_steps_rate:g}; "
        f"{len(results.keys)} prompts, {effort.run.steps} sampler steps, guidance {effort.run.guidance:g}, shift "
        f"{effort.run.shift:g}."
    )


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
    numbers = {name: getattr(given, name) for name in (*COUNTS, *NUMBERS)}
    budget = replace(Budget(), **{name: value for name, value in numbers.items() if value is not None})
    effort = Effort.of(given.model, budget)
    rows = rows_of(effort, given.rows.split(",") if given.rows else None)
    if given.dry_run:
        print("\n".join(plan_lines(rows, jobs_of(rows), effort)))
        return
    from workbench.demo.evaluate import read_prompts

    if not given.write:
        import torch

        torch.set_num_threads(given.threads)
        prompts = read_prompts(given.prompt_file)[: budget.prompts]
        bench = Bench(given.out, given.model, given.run, prompts, replace(budget, prompts=len(prompts)), given.data)
        make(bench, rows, effort, sys.stderr, store=given.store)
    blocks = blocks_of(given.out, rows, effort)
    if given.write:
        write_page(blocks, given.page)
        keep(given.out, given.store)
    print("\n\n".join(f"{name}\n{text}" for name, text in blocks.items()))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m workbench.demo.results", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--out", type=Path, required=True, help="the folder of everything; the same one goes on")
    parser.add_argument("--rows", help="keys of rows, with commas; default: all")
    parser.add_argument("--model", default="demo", help="a model of moving digits")
    parser.add_argument("--run", type=Path, default=RUN, help="a run of the model; default: the bundled one")
    parser.add_argument("--data", type=Path, help="samples of pare distill data; default: made in the folder")
    parser.add_argument("--store", type=Path, default=STORE, help="scores to begin with; --write keeps them there")
    parser.add_argument("--prompt-file", type=Path, default=HELD_OUT)
    parser.add_argument("--page", type=Path, default=PAGE)
    for name in (*COUNTS, *NUMBERS):
        kind = int if name in COUNTS else float
        parser.add_argument("--" + name.replace("_", "-"), type=kind, help=f"default: {getattr(Budget(), name)}")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dry-run", action="store_true", help="print rows, steps and hours")
    parser.add_argument("--write", action="store_true", help="fill the page and the store; nothing is run")
    return parser


if __name__ == "__main__":
    main()
