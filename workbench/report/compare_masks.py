"""A report of two masks: what each keeps, where they decide otherwise, and what made them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.figures.differences import agreement_table, flip_table, flips_per_block, mask_agreement
from analysis.runs import Run
from pare import mask as masks
from workbench import compare_recipes
from workbench.compare_tables import MASK_COLUMNS, mask_settings, mask_sizes
from workbench.compare_words import masks_sentence
from workbench.pages.text import command_line, short_path
from workbench.report.origin import beside_facts, model_facts, version_facts
from workbench.report.part import Part, Report

HEADS = {"self_heads": "Self-attention heads", "cross_heads": "Cross-attention heads"}


def masks_report(
    a: Path, b: Path, *, run: Run | None = None, command: str | None = None, link: str | None = None
) -> Report:
    """What mask B keeps otherwise than mask A; `run` lends its model and clip to masks that predict no cost.

    Raises InputError for masks that cannot be read, and for masks of two models.
    """
    left, right = masks.load(a), masks.load(b)
    found = masks.diff(left, right)
    own = command_line("mask", "diff", short_path(a), short_path(b))
    sizes = pd.DataFrame(mask_sizes(left, right, found, run), columns=MASK_COLUMNS)
    settings = mask_settings(left, right)
    parts = [Part("Kept by each", "Counts, not averages.", table=sizes, command=own)]
    parts += [
        Part(
            name,
            "Kept by both masks, by A alone, by B alone, or removed by both.",
            figure=mask_agreement(left, right, part),
            alt=f"{name} by block and head: kept by both masks, by A alone, by B alone, or removed by both.",
            table=agreement_table(left, right, part),
            python=compare_recipes.mask_agreement(a, b, part),
            command=own,
        )
        for part, name in HEADS.items()
    ]
    parts.append(
        Part(
            "Decided otherwise in every block",
            figure=flips_per_block(left, right),
            alt="Number of heads in every block that one of the two masks alone keeps.",
            table=flip_table(left, right),
            python=compare_recipes.mask_flips(a, b),
            command=own,
        )
    )
    return Report(
        title=f"{a.name} and {b.name}",
        finding=masks_sentence(found),
        command=command
        or command_line(
            "report",
            short_path(a),
            short_path(b),
            run=None if run is None else short_path(run.folder),
            out="compare.html",
        ),
        link=link,
        query="kind=masks",
        about={
            "Settings": beside_facts(settings),
            "A": _facts(a, left.metadata),
            "B": _facts(b, right.metadata),
            "Versions": version_facts({}, ""),
        },
        parts=parts,
    )


def _facts(path: Path, about: Mapping[str, Any]) -> list[tuple[str, str]]:
    run = about.get("run") or {}
    facts = [("File", str(short_path(path))), *model_facts(about.get("model") or {})]
    return facts + [(f"Run {name}", str(value)) for name, value in run.items() if isinstance(value, str)]
