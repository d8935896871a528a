"""The mask that the selection gives: what it would keep, its files, and the command line that makes the same."""

import importlib
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
from pare.width.heads import kept_count, select_heads
from workbench.components.copy_button.component import copy_button
from workbench.pages.shell import bind
from workbench.pages.text import command_line, plain, short_path
from workbench.places import Places
from workbench.state import Selection


def mask_settings(selection: Selection) -> dict[str, Any]:
    """The arguments of the mask command that the selection decides."""
    return {
        "ratio": selection.ratio,
        "tau_s": selection.tau_s,
        "tau_t": selection.tau_t,
        "alpha": selection.alpha,
    }


def removed_heads(scores: np.ndarray, selection: Selection) -> np.ndarray:
    """True for the self-attention heads [block, head] that the mask removes at the selection's p."""
    return ~select_heads(scores, kept_count(scores.shape[1], selection.ratio))


def export_mask(run: Run, selection: Selection, places: Places) -> masks.Mask:
    """The mask file that `pare mask` writes for this run and these settings, read back."""
    make = importlib.import_module("workbench.commands.mask").mask
    places.workspace.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=places.workspace, prefix=".mask-") as folder:
        path = Path(folder) / "mask.safetensors"
        make(str(run.folder), out=str(path), **mask_settings(selection))
        return masks.load(path)


def mask_bytes(mask: masks.Mask, places: Places) -> bytes:
    """The mask as its safetensors file."""
    with tempfile.TemporaryDirectory(dir=places.workspace, prefix=".mask-") as folder:
        return masks.save(mask, Path(folder) / "mask.safetensors").read_bytes()


def show_mask_panel(run: Run, scores: np.ndarray | None, selection: Selection, places: Places) -> None:
    """Draw the panel: p and α, the heads that go, downloads, the command."""
    st.subheader("Mask")
    ratio, alpha = st.columns(2)
    with ratio:
        st.number_input(
            "Pruning ratio p",
            0.01,
            0.99,
            step=0.05,
            format="%.2f",
            help="Share of heads to remove in every block.",
            **bind("ratio_input", selection.ratio, lambda now: {"ratio": now}),
        )
    with alpha:
        st.number_input(
            "Protection α",
            1.0,
            100.0,
            step=0.1,
            format="%.2f",
            help="Importance of temporal heads is multiplied by α before heads are ranked (Eq. 5); 1 protects nothing.",
            **bind("alpha_input", selection.alpha, lambda now: {"alpha": now}),
        )
    if scores is None:
        st.markdown("This run has no value norms, so heads cannot be ranked. Capture it again with them.")
        return
    removed = removed_heads(scores, selection)
    roles = role_counts(run_roles(run, selection.tau_s, selection.tau_t)[removed])
    heads, keep = scores.shape[1], int((~removed[0]).sum())
    gone = ", ".join(f"{roles[role]} {role}" for role in ROLES)
    st.markdown(
        f"Keeps **{keep} of {heads}** self-attention and {keep} of {heads} cross-attention heads in each of "
        f"{len(scores)} blocks. Removes {int(removed.sum())} self-attention heads: {gone}."
    )
    name = Path(run.folder).name
    with st.container(horizontal=True, vertical_alignment="center"):
        st.download_button(
            "Mask (.safetensors)",
            data=lambda: mask_bytes(export_mask(run, selection, places), places),
            file_name=f"{name}-p{selection.ratio:g}.safetensors",
            mime="application/octet-stream",
            on_click="ignore",
            key="mask_safetensors",
        )
        st.download_button(
            "JSON",
            data=lambda: json.dumps(masks.to_json(export_mask(run, selection, places)), indent=1).encode(),
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
    if selection.branch or selection.sample is not None or selection.first_step is not None:
        st.caption(plain("The mask uses the whole run; branch, step and sample filters change only what is shown."))
