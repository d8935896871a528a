"""A report of two models on disk: sizes, operations, settings, and scores where both were evaluated."""

from pathlib import Path

import pandas as pd

from analysis.figures.differences import metric_effects
from workbench import compare_recipes
from workbench.compare_tables import MODEL_COLUMNS, model_settings, model_sizes
from workbench.compare_words import models_sentence
from workbench.model_card import ModelCard, read_card
from workbench.pages.text import command_line, short_path
from workbench.report.origin import beside_facts, model_facts, version_facts
from workbench.report.part import Part, Report


def models_report(
    a: Path,
    b: Path,
    *,
    scores: tuple[Path, Path, pd.DataFrame] | None = None,
    command: str | None = None,
    link: str | None = None,
) -> Report:
    """How much smaller model B is than model A, and with which settings; `scores` are their evaluations and B − A.

    Raises InputError for a folder that is no model of ours.
    """
    cards = read_card(a), read_card(b)
    sizes = pd.DataFrame(model_sizes(*cards), columns=list(MODEL_COLUMNS))
    parts = [
        Part(
            "Size",
            "Active: in the blocks of a mean step, with the model's own router where it has one. FLOPs: one forward at the "
            "size that each model is made for.",
            table=sizes,
        )
    ]
    if scores is not None:
        left, right, table = scores
        parts.append(
            Part(
                "Scores",
                "B − A over the spread between prompts, largest first, with 95 % intervals over prompts.",
                figure=metric_effects(table),
                alt="B − A of every metric over its spread between prompts, largest first, with 95 % intervals around 0.",
                table=table,
                python=compare_recipes.metric_effects(left, right),
                command=command_line("compare", short_path(left), short_path(right)),
            )
        )
    settings = model_settings(*cards)
    words: list[object] = [short_path(a), short_path(b)]
    for folder in () if scores is None else scores[:2]:
        words += ["--scores", short_path(folder)]
    return Report(
        title=f"{cards[0].name} and {cards[1].name}",
        finding=models_sentence(*cards),
        command=command or command_line("report", *words, out="compare.html"),
        link=link,
        query="kind=students",
        about={
            "Settings": beside_facts(settings),
            "A": _facts(a, cards[0]),
            "B": _facts(b, cards[1]),
            "Versions": version_facts({}, ""),
        },
        parts=parts,
    )


def _facts(folder: Path, card: ModelCard) -> list[tuple[str, str]]:
    return [("Folder", str(short_path(folder))), *model_facts(card.identity)]
