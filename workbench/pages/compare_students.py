"""Compare two models on disk, students or dense: cards side by side, and their scores where they were evaluated."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import streamlit as st

from pare import reference
from pare.errors import InputError
from workbench.compare_tables import MODEL_COLUMNS, model_settings, model_sizes
from workbench.compare_words import interval, models_sentence, signed
from workbench.model_card import ModelCard, read_card
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
from workbench.pages.data import pipeline_names
from workbench.pages.kept import kept
from workbench.pages.report_button import view_link
from workbench.pages.shell import Shell, choose, guard
from workbench.pages.text import command_line, plain, short_path
from workbench.places import Places
from workbench.report.compare_models import models_report
from workbench.video_sets import VideoSet


def show_students(shell: Shell, frame: Frame) -> None:
    """Draw model A against model B: students in the places, and the dense models beside them."""
    names = found_names(pipeline_names, shell.places, shell.selection.left, shell.selection.right)
    if len(names) < 2:
        commands = [
            command_line("mask", "RUN", out="mask.safetensors"),
            command_line(
                "prune", "demo", mask="mask.safetensors", out=short_path(shell.places.workspace / "students" / "b")
            ),
        ]
        nothing_to_compare(frame, "models", names, commands)
        return
    chosen = choose_two(shell, frame, dense_first(shell.places, names))
    folders = [shell.places.find(name) for name in chosen]
    a, b = (card_of(folder) for folder in folders)
    frame.title(models_sentence(a, b))
    link = view_link(st.context.url, shell.selection)
    frame.report(
        lambda: models_report(folders[0], folders[1], scores=_scores(shell.places, (a, b)), link=link),
        f"{a.name}-{b.name}",
    )
    left, right = st.columns(2, gap="medium")
    with left, guard("sizes"):
        st.header("Size", anchor=False)
        table(model_sizes(a, b), MODEL_COLUMNS, key="student_sizes")
        st.caption(
            "Active: in the blocks of a mean step, with the model's own router where it has one. FLOPs: one forward at "
            "the size that each model is made for."
        )
    with right, guard("settings"):
        st.header("Settings", anchor=False)
        rows = [(plain(name), *either(*values)) for name, values in model_settings(a, b).items()]
        table(rows, ("setting", "A", "B"), key="student_settings", left=3)
    with guard("scores"):
        _show_scores(shell, chosen, (a, b))


def dense_first(places: Places, names: Sequence[str]) -> list[str]:
    """The names with those of dense models first, so that by default A is the teacher; unreadable ones come last."""

    def place(name: str) -> int:
        try:
            return int(card_of(places.find(name)).pruned)
        except InputError:
            return 2

    return sorted(names, key=place)


def card_of(folder: Path) -> ModelCard:
    """The card of a folder, read again when its config or index changes."""
    names = ("model_index.json", "defaults.json", "transformer/config.json")
    stamps = tuple(path.stat().st_mtime_ns for name in names if (path := folder / name).is_file())
    return _card(str(folder), stamps)


@kept(st.cache_data, max_entries=32)
def _card(folder: str, when: tuple[int, ...]) -> ModelCard:
    return read_card(folder)


def evaluations_of(places: Places, card: ModelCard) -> dict[str, VideoSet]:
    """The evaluations in the places of this very model, by its hashes; damaged ones are left out."""
    found = {}
    for name in evaluation_names(places):
        try:
            one = video_set(places.find(name))
        except InputError:
            continue
        if all(one.model.get(each) == card.identity.get(each) for each in ("config_hash", "weight_hash")):
            found[name] = one
    return found


def _scores(places: Places, cards: tuple[ModelCard, ModelCard]) -> tuple[Path, Path, pd.DataFrame] | None:
    """The two evaluations with the most common videos and B − A of what both measured; None without two."""
    found = [evaluations_of(places, card) for card in cards]
    best = best_pair(found[0], found[1]) if all(found) else None
    if best is None:
        return None
    left, right = found[0][best[0]], found[1][best[1]]
    return left.folder, right.folder, compared_sets(left, right).table


def _show_scores(shell: Shell, chosen: tuple[str, str], cards: tuple[ModelCard, ModelCard]) -> None:
    st.header("Scores", anchor=False)
    found = [evaluations_of(shell.places, card) for card in cards]
    missing = [name for name, each in zip(chosen, found, strict=True) if not each]
    if missing:
        st.markdown("Not evaluated yet. With the same prompts, seed and settings for both, scores are paired:")
        lines = [
            command_line(
                "evaluate",
                _model_words(shell.places.find(name)),
                samples=20,
                out=short_path(shell.places.workspace / "evaluations" / shell.places.find(name).name),
            )
            for name in missing
        ]
        st.code("\n".join(lines), language=None, wrap_lines=True)
        return
    best = best_pair(*found)
    if best is None:
        st.markdown("Both were evaluated, but on no common prompt and seed.")
        return
    left, right = best
    compared = compared_sets(found[0][left], found[1][right])
    rows = [
        (plain(row.title), plain(row.unit), f"{row.mean_a:.3g}", f"{row.mean_b:.3g}",
         signed(row.difference) + (" \\*" if row.clear else ""), interval(row.low, row.high), row.n)
        for row in compared.table.itertuples()
    ]  # fmt: skip
    table(rows, ("metric", "unit", "A", "B", "B − A", "95 % over prompts", "n"), key="student_scores", left=2)
    st.caption(plain(f"From {left} and {right}. * the interval leaves 0 out."))
    st.button(
        "Look at their videos",
        icon=":material/movie:",
        key="compare_their_videos",
        on_click=lambda: choose(kind="videos", left=left, right=right, pair=None),
    )


def best_pair(a: Mapping[str, VideoSet], b: Mapping[str, VideoSet]) -> tuple[str, str] | None:
    """The two evaluations with the most common videos; None where no two have any."""
    counts = {
        (left, right): len(compared_sets(one, other).pairs)
        for left, one in a.items()
        for right, other in b.items()
        if one.scored and other.scored
    }
    best = max(counts, key=lambda pair: counts[pair], default=None)
    return best if best is not None and counts[best] else None


def _model_words(folder: Path) -> str:
    return "demo" if folder == reference.DEMO else short_path(folder)
