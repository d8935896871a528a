"""The mask that the selection gives: p and α with what they keep and cost, its files, and the command that makes the same."""

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st

from analysis.runs import Run
from pare import mask as masks
from pare.errors import InputError
from workbench.commands.mask import mask
from workbench.components.copy_button.component import copy_button
from workbench.components.mask_sliders.component import mask_sliders
from workbench.mask_plan import MaskPlan
from workbench.pages import data
from workbench.pages.prune_plan import live_plan, mask_arguments, planned
from workbench.pages.prune_settings import MASK_LINK
from workbench.pages.shell import choose
from workbench.pages.text import command_line, plain, short_path
from workbench.places import Places
from workbench.state import ALPHA_RANGE, RATIO_RANGE, Selection


def heads_alone(selection: Selection) -> Selection:
    """The selection for a mask of heads: neurons, which need weights, all stay."""
    return selection.changed(neurons="none")


def head_plan(run: Run, selection: Selection) -> MaskPlan:
    """What the selection's mask of heads keeps. Raises `InputError` as `planned` does."""
    return planned(run, heads_alone(selection))


def problem_words(run: Run, problem: InputError | None) -> str:
    """Why a run has no mask, in one line."""
    whole = data.captured_heads(run) in (None, run.geometry.blocks * run.geometry.heads)
    if whole or problem is None or problem.what != "scores":
        return plain(problem)
    return "Some heads of this run's model are cut or never ran, so they have no score. Masks are made on a run of the dense model."


def removed_heads(found: MaskPlan | None) -> np.ndarray | None:
    """True for the self-attention heads [block, head] that a plan removes; None where there is no plan."""
    return None if found is None or found.self_heads is None else ~found.self_heads


def mask_settings(selection: Selection) -> dict[str, Any]:
    """The arguments of the mask command that the selection decides."""
    return mask_arguments(heads_alone(selection))


def export_mask(run: Run, selection: Selection, places: Places) -> tuple[bytes, masks.Mask]:
    """The mask that `pare mask` writes for this run and these settings: the file's bytes, and the mask read back."""
    places.workspace.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=places.workspace, prefix=".mask-") as folder:
        path = Path(folder) / "mask.safetensors"
        mask(str(run.folder), out=str(path), **mask_settings(selection))
        return path.read_bytes(), masks.load(path)


def show_mask_panel(run: Run, found: MaskPlan, selection: Selection, places: Places) -> None:
    """Draw the panel: p and α, the heads that go, what that saves, downloads, the command."""
    st.header("Mask of heads", anchor=False)
    live = live_plan(run, heads_alone(selection))
    if live is None:
        st.markdown("Some heads have no score in this run, so they cannot be ranked.")
        return
    mask_sliders(
        live,
        # The link's p, or the one that the target gives.
        ratio=found.settings.ratio,
        alpha=selection.alpha,
        thresholds=(selection.tau_s, selection.tau_t),
        ratio_range=RATIO_RANGE,
        alpha_range=ALPHA_RANGE,
        choose_ratio=selection.target is None,
        link=MASK_LINK,
        key="mask_sliders",
        on_change=lambda values: choose(**values),
    )
    name = Path(run.folder).name
    with st.container(horizontal=True, vertical_alignment="center"):
        st.download_button(
            "Mask (.safetensors)",
            data=lambda: export_mask(run, selection, places)[0],
            file_name=f"{name}-p{found.settings.ratio:g}.safetensors",
            mime="application/octet-stream",
            on_click="ignore",
            key="mask_safetensors",
        )
        st.download_button(
            "JSON",
            data=lambda: json.dumps(masks.to_json(export_mask(run, selection, places)[1]), indent=1).encode(),
            file_name=f"{name}-p{found.settings.ratio:g}.json",
            mime="application/json",
            on_click="ignore",
            key="mask_json",
        )
        copy_button(
            "Copy as command line",
            command_line("mask", short_path(run.folder), out="mask.safetensors", **mask_settings(selection)),
            key="copy_mask_command",
        )
    st.toggle("Cross the removed heads in the grid", key="show_removed")
    st.page_link(
        "workbench/pages/prune.py", label="With neurons, to a preview and a student", icon=":material/content_cut:"
    )
    if selection.sample is not None or selection.first_step is not None:
        st.caption(plain("The mask uses all samples and steps; these two filters change only what is shown."))
