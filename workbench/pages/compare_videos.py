"""Compare two sets of videos: every metric's paired difference, largest effect first, and the pairs, worst first, in step."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from analysis.figures.differences import metric_effects
from analysis.score_comparison import pairs_by_change
from pare.errors import InputError
from workbench import compare_recipes
from workbench.compare_words import differing, interval, signed, videos_sentence
from workbench.components.copy_button.component import copy_button
from workbench.pages.chart import show_chart
from workbench.pages.compare_choice import (
    Frame,
    choose_two,
    either,
    evaluation_names,
    found_names,
    nothing_to_compare,
    table,
)
from workbench.pages.compare_data import compared_sets, video_set
from workbench.pages.compare_job import BOTH, JobTables, job_of, measured_pairs, show_measuring, tables_of
from workbench.pages.data import LOOK_SECONDS, open_run
from workbench.pages.kept import kept
from workbench.pages.report_button import view_link
from workbench.pages.shell import Shell, bind, guard
from workbench.pages.text import command_line, plain, short_path
from workbench.pages.videos import show_player
from workbench.places import Places
from workbench.report.compare_videos import videos_report
from workbench.video_sets import BETTER, VideoSet

BY_ORDER = "order"


def show_videos(shell: Shell, frame: Frame) -> None:
    """Draw set A against set B."""
    names = found_names(set_names, shell.places, shell.selection.left, shell.selection.right)
    if len(names) < 2:
        out = short_path(shell.places.workspace / "evaluations" / "b")
        nothing_to_compare(frame, "sets of videos", names, [command_line("evaluate", "demo", samples=20, out=out)])
        return
    chosen = choose_two(shell, frame, names)
    folders = tuple(shell.places.find(name) for name in chosen)
    a, b = (video_set(folder) for folder in folders)
    found = compared_sets(a, b)
    if found.pairs.empty:
        frame.title("These two have no video of the same prompt and seed")
        st.markdown(
            f"A has {len(a.table)} and B {len(b.table)} videos. Made with the same prompts and seed they are paired:"
        )
        st.code(
            command_line("evaluate", b.model_id, prompts="PROMPTS.txt", seed=a.settings.get("seed"), out="OUT"),
            language=None,
            wrap_lines=True,
        )
        return
    job = job_of(shell.places, folders)
    tables = tables_of(job)
    # Stored scores are of the same files, and may have more (the oracle's).
    stored = not found.table.empty
    effects = found.table if stored or tables is None else tables.each
    frame.title(videos_sentence(effects, len(found.pairs)))
    link, measured = view_link(st.context.url, shell.selection), None if stored or tables is None else tables.each
    frame.report(
        lambda: videos_report(a, b, first=shell.selection.pair, measured=measured, link=link),
        f"{a.folder.name}-{b.folder.name}",
    )
    left, right = st.columns([5, 4], gap="medium")
    with left, guard("metrics"):
        recipe = compare_recipes.metric_effects if stored else compare_recipes.measured_effects
        _show_effects(effects, tables, folders, recipe(folders[0], folders[1]))
    with right:
        with guard("pairs"):
            _show_pair(shell, found.pairs, effects, tables, chosen)
        with guard("measuring"):
            show_measuring(shell.places, folders, len(found.pairs), scored=stored)
        with guard("how they were made"):
            _show_making(a, b, found.pairs)
        words = [short_path(folder) for folder in folders]
        copy_button("Copy as command line", command_line("compare", *words), key="copy_compare_command")


@kept(st.cache_data, ttl=LOOK_SECONDS, max_entries=4)
def set_names(places: Places) -> list[str]:
    """Names of the evaluations in the places, of the runs with videos, and of other videos, such as jobs generate."""
    runs = []
    for name in places.runs():
        try:
            if open_run(places.find(name)).videos:
                runs.append(name)
        except InputError:
            continue
    return [*evaluation_names(places), *runs, *places.videos()]


def _show_effects(effects: pd.DataFrame, tables: JobTables | None, folders: tuple[Path, ...], python: str) -> None:
    if effects.empty:
        st.markdown("Neither the sets' own scores nor a measuring of them is there for both.")
        return
    sized = bool(effects["effect"].notna().any())
    if sized:
        show_chart(
            metric_effects(effects),
            key="metric_effects",
            alt="B − A of every metric over its spread between prompts, largest first, with 95 % intervals around 0.",
            table=effects,
            python=python,
            command=command_line("compare", *(short_path(folder) for folder in folders)),
            name="metric-effects",
        )
    rows = [
        (plain(row.title), plain(row.unit), f"{row.mean_a:.3g}", f"{row.mean_b:.3g}",
         signed(row.difference) + (" \\*" if row.clear else ""), interval(row.low, row.high), row.n)
        for row in effects.itertuples()
    ]  # fmt: skip
    table(rows, ("metric", "unit", "A", "B", "B − A", "95 %", "n"), key="metrics", left=2)
    st.caption(
        "Largest effect first: B − A over the spread between prompts. \\* the interval over prompts leaves 0 out; of "
        "many metrics some do by chance."
        if sized
        else "One pair has no spread between prompts, so no effect has a size here, and no interval."
    )
    if tables is not None and not tables.both.empty:
        between = [
            (plain(row.title), plain(row.unit), "–" if row.mean != row.mean else f"{row.mean:.3g}",
             interval(row.low, row.high).replace("+", ""), row.n)
            for row in tables.both.itertuples()
        ]  # fmt: skip
        table(between, ("between A and B", "unit", "mean", "95 %", "n"), key="between", left=2)


def _show_pair(
    shell: Shell, pairs: pd.DataFrame, effects: pd.DataFrame, tables: JobTables | None, chosen: tuple[str, str]
) -> None:
    """The pairs sorted by one metric, worst first, and the chosen one in the player."""
    selection = shell.selection
    pairs = pairs.assign(number=range(len(pairs)))
    if tables is not None:
        pairs = measured_pairs(pairs, tables)
    titles = {row["metric"]: row["title"] for _, row in effects.iterrows()}
    between = [name for name in BOTH if name in pairs.columns and pairs[name].notna().any()]
    by, which = st.columns([2, 3])
    with by:
        metric = st.selectbox(
            "Worst first by",
            [*titles, *between, BY_ORDER],
            format_func=lambda one: {**titles, **BOTH, BY_ORDER: "the order of A"}[one],
            key="compare_worst_by",
        )
    ordered = worst_first(pairs, metric)
    numbers = ordered["number"].tolist()
    known = selection.pair if selection.pair in numbers else numbers[0]
    label = {row.number: pair_words(row.prompt, row.seed, row.change) for row in ordered.itertuples()}
    with which:
        st.selectbox(
            "Pair",
            numbers,
            format_func=lambda one: label[one],
            **bind("compare_pair", known, lambda now: {"pair": int(now), "video_frame": 0}),
        )
    row = ordered[ordered["number"] == known].iloc[0]
    missing = [side for side, path in (("A", row["path_a"]), ("B", row["path_b"])) if not _there(path)]
    if missing:
        st.markdown(f"The video of {' and of '.join(missing)} is not on disk.")
        return
    st.caption(plain(f"{row['prompt']} · seed {row['seed']}"))
    videos = {
        f"{side} · {Path(name).stem}": Path(row[f"path_{side.lower()}"])
        for side, name in zip("AB", chosen, strict=True)
    }
    show_player(shell.places, videos, selection, tallest=240, key="compare_player")


def worst_first(pairs: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The pairs with `change` in a metric, worst first; in their own order without one.

    >>> pairs = pd.DataFrame({"prompt": ["x", "y"], "psnr": [30.0, 20.0]})
    >>> worst_first(pairs, "psnr")["change"].tolist(), worst_first(pairs, "order")["prompt"].tolist()
    ([20.0, 30.0], ['x', 'y'])
    """
    if metric == BY_ORDER:
        return pairs.assign(change=float("nan"))
    if metric in BOTH:
        return pairs.assign(change=pairs[metric]).sort_values(
            "change", ascending=metric != "flow_error", kind="stable", na_position="last"
        )
    return pairs_by_change(pairs, metric, BETTER.get(metric))


def pair_words(prompt: str, seed: int, change: float) -> str:
    """One pair in the list.

    >>> pair_words("a red 3", 7, 0.5), pair_words("a red 3", 7, float("nan"))
    ('+0.5 · a red 3 · seed 7', 'a red 3 · seed 7')
    """
    return ("" if change != change else f"{signed(change)} · ") + f"{prompt} · seed {seed}"


def _there(path: object) -> bool:
    return isinstance(path, str) and Path(path).is_file()


def _show_making(a: VideoSet, b: VideoSet, pairs: pd.DataFrame) -> None:
    st.header("How they were made", anchor=False)
    about: list[Mapping[str, Any]] = [
        {"model": each.model_id, "weights": str(each.model.get("weight_hash"))[:12], **each.settings, **each.how}
        for each in (a, b)
    ]
    differs = differing(about[0], about[1], skipped=("seed", "device", "offload"))
    rows = [(plain(name), *either(*values)) for name, values in differs.items()]
    if rows:
        table(rows, ("differs", "A", "B"), key="videos_making", left=3)
    else:
        st.markdown("With the same model and settings.")
    left = [
        f"{len(each.table) - len(pairs)} of {side}"
        for side, each in (("A", a), ("B", b))
        if len(each.table) > len(pairs)
    ]
    if left:
        st.caption(f"{' and '.join(left)} have no partner of the same prompt and seed and are left out.")
