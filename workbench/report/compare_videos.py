"""A report of two sets of videos: every metric's paired difference, and the pairs, those of the largest change first."""

from pathlib import Path

import pandas as pd

from analysis.figures.differences import metric_effects
from analysis.score_comparison import pair_scores, pairs_by_change, score_table
from pare.errors import InputError
from workbench import compare_recipes
from workbench.compare_words import differing, videos_sentence
from workbench.pages.text import command_line, short_path
from workbench.report.origin import MOST_VIDEO_BYTES, beside_facts, carried, model_facts, setting_facts, version_facts
from workbench.report.part import Part, Report
from workbench.video_sets import BETTER, VideoSet

MOST_PAIRS = 8
"""Pairs whose videos a report shows."""
ELSEWHERE = ("seed", "device", "offload")


def videos_report(
    a: VideoSet,
    b: VideoSet,
    *,
    first: int | None = None,
    measured: pd.DataFrame | None = None,
    command: str | None = None,
    link: str | None = None,
    most_video_bytes: int = MOST_VIDEO_BYTES,
) -> Report:
    """What set B does otherwise than set A: `measured` effects of a job, else those of the stored scores.

    `first` is the pair that stands first, by its number. Raises InputError where no prompt and seed is in both.
    """
    pairs = pair_scores(a.table, b.table)
    if pairs.empty:
        raise InputError(
            f"{a.folder} and {b.folder}",
            got="no video of the same prompt and seed",
            expected="pairs",
            fix="make both with the same prompts and seeds",
        )
    stored = score_table(pairs, a.metrics)
    anew = stored.empty and measured is not None
    effects = measured if anew and measured is not None else stored
    words: list[object] = [short_path(a.folder), short_path(b.folder), *(["--measure"] if anew else [])]
    again = command_line("compare", short_path(a.folder), short_path(b.folder))
    recipe = compare_recipes.metric_effects if not stored.empty else compare_recipes.measured_effects
    parts = []
    if not effects.empty:
        parts.append(
            Part(
                "Metrics, largest effect first",
                "B − A over the spread between prompts. Of many metrics some leave 0 out by chance.",
                figure=metric_effects(effects),
                alt="B − A of every metric over its spread between prompts, largest first, with 95 % intervals around 0.",
                table=effects,
                python=recipe(a.folder, b.folder),
                command=again,
            )
        )
    clips, left_out = carried(_videos(pairs, effects, first), most_video_bytes)
    if len(pairs) > MOST_PAIRS:
        left_out = f"{left_out} Of {len(pairs)} pairs, {MOST_PAIRS} are shown.".strip()
    settings = differing({**a.settings, **a.how}, {**b.settings, **b.how}, ELSEWHERE)
    return Report(
        title=f"{a.folder.name} and {b.folder.name}",
        finding=videos_sentence(effects, len(pairs)),
        command=command or command_line("report", *words, out="compare.html", kind="videos", pair=first),
        link=link,
        query="kind=videos",
        about={
            "Differs": beside_facts(settings) or [("Settings", "the same in both")],
            "A": _facts(a),
            "B": _facts(b),
            "Versions": version_facts({}, ""),
        },
        parts=parts,
        clips=clips,
        left_out=left_out,
        samples=pairs.drop(columns=["path_a", "path_b"]),
    )


def _videos(pairs: pd.DataFrame, effects: pd.DataFrame, first: int | None) -> list[tuple[Path, str]]:
    """Both videos of the chosen pair, then of those that changed most for the worse in the metric that differs most."""
    numbered = pairs.assign(number=range(len(pairs)))
    metric = None if effects.empty else str(effects.iloc[0]["metric"])
    if metric is not None and {f"{metric}_a", f"{metric}_b"} <= set(numbered.columns):
        numbered = pairs_by_change(numbered, metric, BETTER.get(metric))
    chosen = numbered["number"] == first
    ordered = pd.concat([numbered[chosen], numbered[~chosen]]).head(MOST_PAIRS)
    found = []
    for row in ordered.itertuples():
        for side, path in (("A", row.path_a), ("B", row.path_b)):
            if isinstance(path, str) and Path(path).is_file():
                found.append((Path(path), f"{side}, seed {row.seed}: {row.prompt}"))
    return found


def _facts(one: VideoSet) -> list[tuple[str, str]]:
    facts = [("Videos", f"{len(one.table)} in {short_path(one.folder)}"), *model_facts(one.model)]
    return [*facts, *setting_facts({**one.settings, **one.how})]
