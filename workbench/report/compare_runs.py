"""A report of two runs: B − A of every head and of every block, and how the runs were made."""

from typing import Any
from urllib.parse import urlencode

import pandas as pd

from analysis.block_values import LENSES
from analysis.figures.differences import difference_grid, difference_per_block
from analysis.run_difference import run_difference
from analysis.runs import Run
from workbench import compare_recipes, recipes
from workbench.compare_words import runs_sentence, samples_words
from workbench.pages.text import command_line, short_path
from workbench.report.origin import beside_facts, model_facts, setting_facts, version_facts
from workbench.report.part import Part, Report
from workbench.report.parts import chosen
from workbench.state import Selection

RATIO = "self/ratio"
PARTS = ("sample", "branch", "steps", "tau_s", "tau_t")
"""The flags of `pare report` that choose the part of both runs."""


def runs_report(a: Run, b: Run, selection: Selection, *, command: str | None = None, link: str | None = None) -> Report:
    """What run B does otherwise than run A in the selection's part of both. Raises InputError where they do not fit."""
    where = chosen(selection)
    found = run_difference(a, b, RATIO, **where)
    table, changes = found.table(), found.role_changes(selection.tau_s, selection.tau_t)
    own = compare_recipes.run_command(a, b, RATIO, selection)
    parts = [
        Part(
            "B − A of the intra-slice ratio of every head",
            f"{samples_words(found)}. A sign marks an interval over prompts that leaves 0 out.",
            figure=difference_grid(found),
            alt="B − A of the intra-slice ratio of every head, by block and head.",
            table=table,
            python=compare_recipes.head_differences(a, b, RATIO, selection),
            command=own,
        ),
        Part(
            "Heads of another role",
            f"{_heads(len(changes))} role at τs = {selection.tau_s:g}, τt = {selection.tau_t:g}.",
            table=changes if len(changes) else None,
            command=own,
        ),
    ]
    both = set(a.statistics) & set(b.statistics)
    for lens, about in LENSES.items():
        if not set(about.needs) <= both:
            continue
        of_blocks = run_difference(a, b, lens, **where)
        parts.append(
            Part(
                f"B − A in the blocks: {about.title.lower()}",
                f"{samples_words(of_blocks)}, with 95 % intervals over prompts.",
                figure=difference_per_block(of_blocks, name=f"B − A of {about.symbol}"),
                alt=f"B − A of {about.title.lower()}, {about.symbol}, in every block, with 95 % intervals around 0.",
                table=of_blocks.table(),
                python=compare_recipes.block_differences(a, b, lens, selection, f"B − A of {about.symbol}"),
                command=compare_recipes.run_command(a, b, lens, selection),
            )
        )
    flags = {name: value for name, value in recipes.report_arguments(selection).items() if name in PARTS}
    return Report(
        title=f"{a.folder.resolve().name} and {b.folder.resolve().name}",
        finding=runs_sentence(found, selection.tau_s, selection.tau_t),
        command=command
        or command_line("report", short_path(a.folder), short_path(b.folder), out="compare.html", **flags),
        link=link,
        query=urlencode(selection.changed(run=None, compared=None).to_query()),
        about={
            "A": _facts(a),
            "B": _facts(b),
            "Differs": beside_facts(found.match.differs) or [("Settings", "the same in both")],
            "Versions": version_facts(_versions(a, b), "captured with"),
        },
        parts=parts,
        samples=pd.concat([_samples(a, "A"), _samples(b, "B")]),
    )


def _heads(count: int) -> str:
    return "1 head changes its" if count == 1 else f"{count} heads change their"


def _facts(run: Run) -> list[tuple[str, str]]:
    return [
        ("Run", str(short_path(run.folder))),
        ("Hash", run.hash),
        ("Samples", f"{len(run.finished)} of {len(run.manifest.samples)} finished"),
        *model_facts(run.manifest.model),
        *setting_facts(run.manifest.settings),
    ]


def _versions(a: Run, b: Run) -> dict[str, Any]:
    told = a.manifest.versions, b.manifest.versions
    return {
        name: " and ".join(dict.fromkeys(str(each[name]) for each in told if name in each))
        for name in {**told[0], **told[1]}
    }


def _samples(run: Run, side: str) -> pd.DataFrame:
    rows = [
        {
            "side": side,
            "sample": index,
            "seed": run.manifest.samples[index].seed,
            "prompt": run.manifest.samples[index].prompt,
        }
        for index in run.finished
    ]
    return pd.DataFrame(rows, columns=["side", "sample", "seed", "prompt"])
