"""The mask that the selection gives: what it would keep, its files, and the command line that makes the same."""

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st

from analysis.importance import run_roles
from analysis.roles import ROLES, role_counts
from analysis.runs import Run
from pare import mask as masks
from pare.geometry import Clip
from pare.width.budget import Counts, predict
from pare.width.heads import kept_count, select_heads
from workbench.commands.mask import mask
from workbench.components.copy_button.component import copy_button
from workbench.pages.shell import bind
from workbench.pages.text import command_line, plain, short_path
from workbench.places import Places
from workbench.state import ALPHA_RANGE, RATIO_RANGE, Selection


def mask_settings(selection: Selection) -> dict[str, Any]:
    """The arguments of the mask command that the selection decides; neurons, which need weights, all stay."""
    return {
        "ratio": selection.ratio,
        "tau_s": selection.tau_s,
        "tau_t": selection.tau_t,
        "alpha": selection.alpha,
        "branch": selection.branch,
        "neurons": "none",
    }


def removed_heads(scores: np.ndarray, selection: Selection) -> np.ndarray:
    """True for the self-attention heads [block, head] that the mask removes at the selection's p."""
    return ~select_heads(scores, kept_count(scores.shape[1], selection.ratio))


def export_mask(run: Run, selection: Selection, places: Places) -> tuple[bytes, masks.Mask]:
    """The mask that `pare mask` writes for this run and these settings: the file's bytes, and the mask read back."""
    places.workspace.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=places.workspace, prefix=".mask-") as folder:
        path = Path(folder) / "mask.safetensors"
        mask(str(run.folder), out=str(path), **mask_settings(selection))
        return path.read_bytes(), masks.load(path)


def predicted_cost(run: Run, keep: int) -> str:
    """Parameters and operations per forward with `keep` self- and cross-attention heads in every block."""
    geometry, size = run.geometry, run.manifest.clip
    clip = Clip(size["height"], size["width"], size["frames"])
    found = predict(geometry, clip, Counts(keep, keep, geometry.ffn))
    after, dense = found["parameters"], found["dense_parameters"]
    return f"Predicted: {after / 1e6:,.4g} of {dense / 1e6:,.4g} M parameters, {found['flop_ratio']:.0%} of the operations."


def show_mask_panel(run: Run, scores: np.ndarray | None, selection: Selection, places: Places) -> None:
    """Draw the panel: p and α, the heads that go, downloads, the command."""
    st.header("Mask", anchor=False)
    ratio, alpha = st.columns(2)
    with ratio:
        st.number_input(
            "Pruning ratio p",
            *RATIO_RANGE,
            step=0.05,
            format="%.2f",
            help="Share of heads to remove in every block.",
            **bind("ratio_input", selection.ratio, lambda now: {"ratio": now}),
        )
    with alpha:
        st.number_input(
            "Protection α",
            *ALPHA_RANGE,
            step=0.1,
            format="%.2f",
            help="Importance of temporal heads is multiplied by α before heads are ranked (Eq. 5); 1 protects nothing.",
            **bind("alpha_input", selection.alpha, lambda now: {"alpha": now}),
        )
    if scores is None:
        st.markdown("This run has no value norms, so heads cannot be ranked. Capture it again with them.")
        return
    removed = removed_heads(scores, selection)
    roles = role_counts(run_roles(run, selection.tau_s, selection.tau_t, selection.branch)[removed])
    heads, keep = scores.shape[1], int((~removed[0]).sum())
    gone = ", ".join(f"{roles[role]} {role}" for role in ROLES)
    st.markdown(
        f"Keeps **{keep} of {heads}** self-attention and {keep} of {heads} cross-attention heads in each of "
        f"{len(scores)} blocks. Removes {int(removed.sum())} self-attention heads: {gone}.  \n"
        + predicted_cost(run, keep)
    )
    name = Path(run.folder).name
    with st.container(horizontal=True, vertical_alignment="center"):
        st.download_button(
            "Mask (.safetensors)",
            data=lambda: export_mask(run, selection, places)[0],
            file_name=f"{name}-p{selection.ratio:g}.safetensors",
            mime="application/octet-stream",
            on_click="ignore",
            key="mask_safetensors",
        )
        st.download_button(
            "JSON",
            data=lambda: json.dumps(masks.to_json(export_mask(run, selection, places)[1]), indent=1).encode(),
            file_name=f"{name}-p{selection.ratio:g}.json",
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
    if selection.sample is not None or selection.first_step is not None:
        st.caption(plain("The mask uses all samples and steps; these two filters change only what is shown."))
