"""Compare two masks: what each keeps, where they decide otherwise, their settings and sizes side by side."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import streamlit as st

from analysis.figures.differences import agreement_table, flip_table, flips_per_block, mask_agreement
from analysis.runs import Run
from pare import cost
from pare import mask as masks
from pare.errors import InputError
from pare.geometry import Clip
from pare.mask import Mask
from workbench import compare_recipes
from workbench.pages.chart import show_chart
from workbench.pages.compare_choice import Frame, choose_two, either, mask_names, nothing_to_compare, table
from workbench.pages.prune_plan import PARTS, span
from workbench.pages.shell import Shell, guard
from workbench.pages.text import command_line, plain, short_path
from workbench.plan import tera

HEADS = {"self_heads": "Self-attention heads", "cross_heads": "Cross-attention heads"}


def show_masks(shell: Shell, frame: Frame) -> None:
    """Draw mask A against mask B."""
    names = mask_names(shell.places)
    if len(names) < 2:
        nothing_to_compare(frame, "masks", names, [_command(shell)])
        return
    paths = tuple(shell.places.find(name) for name in choose_two(shell, frame, names))
    a, b = (masks.load(path) for path in paths)
    try:
        found = masks.diff(a, b)
    except InputError:
        frame.title("These two masks are of different models")
        raise
    frame.title(headline(found))
    left, right = st.columns([5, 4], gap="medium")
    with left:
        for part, name in HEADS.items():
            with guard(name):
                _show_heads(a, b, part, name, paths)
    with right:
        with guard("sizes"):
            st.header("Kept by each", anchor=False)
            table(size_rows(a, b, found, shell.run), ("size", "A", "B", "both", "A alone", "B alone"), key="sizes")
            st.caption(
                "Parameters and FLOPs per forward: as each mask predicts them, else for the model and clip of the open run."
            )
        with guard("settings"):
            st.header("Settings", anchor=False)
            table(setting_rows(a, b), ("setting", "A", "B"), key="settings", left=3)
        with guard("flips"):
            st.header("Decided otherwise in every block", anchor=False)
            show_chart(
                flips_per_block(a, b),
                key="mask_flips",
                alt="Number of heads in every block that one of the two masks alone keeps.",
                table=lambda: flip_table(a, b),
                python=compare_recipes.mask_flips(*paths),
                command=_diff_command(paths),
                name="mask-flips",
            )


def headline(found: Mapping[str, Mapping[str, Any]]) -> str:
    """How many heads the masks disagree on.

    >>> each = {"both": 7, "only_a": 1, "only_b": 1, "overlap": 7 / 9}
    >>> headline({"self_heads": each, "cross_heads": {**each, "only_a": 0, "only_b": 0}, "neurons": each})
    'The masks decide otherwise on 2 self-attention heads, 0 cross-attention heads and 2 neurons'
    """
    counts = {part: each["only_a"] + each["only_b"] for part, each in found.items()}
    if not any(counts.values()):
        return "The masks keep the same heads and neurons"
    words = [f"{counts[part]:,} {name}" for part, name in PARTS.items()]
    return f"The masks decide otherwise on {', '.join(words[:-1])} and {words[-1]}"


def size_rows(a: Mask, b: Mask, found: Mapping[str, Mapping[str, Any]], run: Run | None) -> list[tuple[str, ...]]:
    """Units kept per block and overlap of every part, then parameters and FLOPs of each mask."""
    counts, rows = (a.counts(), b.counts()), []
    for part, name in PARTS.items():
        size = getattr(a, part).shape[1]
        kept = [f"{span(each[part])} of {size:,}" for each in counts]
        both = [f"{found[part][key]:,}" for key in ("both", "only_a", "only_b")]
        rows.append((name, *kept, *both))
    for name, key, words in (("parameters", "parameters", lambda n: f"{n:,}"), ("FLOPs per forward", "flops", tera)):
        values = [predicted(each, run).get(key) for each in (a, b)]
        rows.append((name, *("unknown" if value is None else words(value) for value in values), "", "", ""))
    return rows


def predicted(mask: Mask, run: Run | None) -> dict[str, Any]:
    """Parameters and FLOPs that the mask predicts, else those of the open run's model and clip where the mask fits it."""
    told = mask.metadata.get("predicted") or {}
    if "parameters" in told or run is None:
        return dict(told)
    geometry = run.geometry
    fits = mask.self_heads.shape == (geometry.blocks, geometry.heads) and mask.neurons.shape[1] == geometry.ffn
    if not fits:
        return {}
    size = run.manifest.clip
    clip, kept = Clip(size["height"], size["width"], size["frames"]), dict[str, Any](mask.counts())
    return {
        "parameters": cost.parameters(geometry, **kept).total,
        "flops": cost.flops(geometry, clip, **kept).total,
    }


def setting_rows(a: Mask, b: Mask) -> list[tuple[str, str, str]]:
    """What made each mask, strong where it differs."""
    told = [
        {"model": each.metadata.get("model", {}).get("model_id"), **each.metadata.get("settings", {}),
         "run": each.metadata.get("run", {}).get("path")}
        for each in (a, b)
    ]  # fmt: skip
    names = [name for name in dict.fromkeys([*told[0], *told[1]]) if any(each.get(name) is not None for each in told)]
    if not names:
        return [("all", "unknown", "unknown")]
    return [(plain(name), *either(*(each.get(name) for each in told))) for name in names]


def _show_heads(a: Mask, b: Mask, part: str, name: str, paths: tuple[Path, ...]) -> None:
    st.header(name, anchor=False)
    show_chart(
        mask_agreement(a, b, part),
        key=f"agreement_{part}",
        alt=f"{name} by block and head: kept by both masks, by A alone, by B alone, or removed by both.",
        table=lambda: agreement_table(a, b, part),
        python=compare_recipes.mask_agreement(paths[0], paths[1], part),
        command=_diff_command(paths),
        name=f"mask-agreement-{part.replace('_', '-')}",
    )


def _diff_command(paths: tuple[Path, ...]) -> str:
    return command_line("mask", "diff", *(short_path(path) for path in paths))


def _command(shell: Shell) -> str:
    run = "RUN" if shell.run is None else short_path(shell.run.folder)
    return command_line("mask", run, out=short_path(shell.places.workspace / "masks" / "mask.safetensors"))
