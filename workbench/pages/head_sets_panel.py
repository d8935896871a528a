"""Sets of heads under names: save the heads of a role, those that a mask removes or those picked by hand; load, ablate, export."""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import streamlit as st

from analysis.roles import LETTERS, ROLES
from analysis.runs import Run
from pare import mask as masks
from pare.errors import InputError
from workbench import head_sets
from workbench.head_sets import HeadSet
from workbench.pages.shell import bind, choose
from workbench.pages.text import plain
from workbench.places import Places
from workbench.state import MOST_PICKED, Selection


def sources(roles: np.ndarray, removed: np.ndarray | None, selection: Selection) -> dict[str, np.ndarray]:
    """The sets of heads that can be named now, by their words; `roles` are letters [block, head]. Empty ones are left out.

    >>> list(sources(np.array([["T", "S"], ["T", "T"]]), None, Selection(picked=((0, 1),))))
    ['spatial heads (1)', 'temporal heads (3)', 'picked heads (1)']
    """
    found = {f"{role} heads": roles == letter for role, letter in zip(ROLES, LETTERS, strict=True)}
    if removed is not None:
        found["heads the mask removes"] = removed
    picked = np.zeros(roles.shape, bool)
    for block, head in selection.picked:
        picked[block, head] = True
    found["picked heads"] = picked
    return {f"{words} ({int(members.sum())})": members for words, members in found.items() if members.any()}


def loaded_set(run: Run, selection: Selection, places: Places) -> HeadSet | None:
    """The saved set that the selection names; None for none. Raises `InputError` for one that is gone or of another model."""
    if selection.head_set is None:
        return None
    found = head_sets.load(places.workspace, selection.head_set)
    head_sets.check(found, run)
    return found


def toggle_pick(cell: tuple[int, int]) -> None:
    """Pick a head, or leave it again: what the card's button does."""
    selection: Selection = st.session_state["shown_selection"]
    left = tuple(each for each in selection.picked if each != cell)
    choose(picked=left if len(left) < len(selection.picked) else tuple(sorted([*left, cell])))


def show_pick(selection: Selection, cell: tuple[int, int]) -> None:
    """The button that picks the pinned head."""
    picked = cell in selection.picked
    st.button(
        "Leave out of the picked heads" if picked else "Pick this head",
        key="pick_head",
        icon=":material/remove:" if picked else ":material/add:",
        help="Picked heads are in the link and can be saved as a set.",
        disabled=not picked and len(selection.picked) >= MOST_PICKED,
        on_click=toggle_pick,
        args=(cell,),
    )


def show_sets(
    run: Run, selection: Selection, places: Places, given: Mapping[str, np.ndarray], loaded: HeadSet | None
) -> None:
    """Draw the panel: save one of the `given` sets under a name, choose a saved one, take its mask out."""
    st.header("Sets of heads", anchor=False)
    if selection.picked:
        with st.container(horizontal=True, vertical_alignment="center"):
            listed = ", ".join(f"{block}.{head}" for block, head in selection.picked)
            st.markdown(plain(f"Picked (block.head): {listed}"))
            st.button("Clear", key="clear_picked", type="tertiary", on_click=choose, kwargs={"picked": ()})
    with st.form("save_set", border=False):
        which, name, button = st.columns([4, 3, 2], vertical_alignment="bottom")
        words = which.selectbox("Heads", list(given), key="set_source")
        typed = name.text_input("Name", key="set_name", max_chars=60, placeholder="temporal-heads")
        wanted = button.form_submit_button("Save", width="stretch", disabled=not given)
    if wanted and words is not None:
        try:
            found = head_sets.of_run(run, typed, given[words], {"what": words, "link": selection.to_query()})
            head_sets.save(places.workspace, found)
        except InputError as error:
            st.error(plain(error), icon=":material/error:")
        else:
            choose(head_set=found.name)
            st.rerun()
    saved = head_sets.names(places.workspace)
    if not saved:
        st.caption("Saved sets are listed here; each becomes a mask without its heads.")
        return
    st.selectbox(
        "Saved set",
        [None, *saved],
        format_func=lambda one: "none" if one is None else one,
        **bind("set_input", selection.head_set if selection.head_set in saved else None, lambda now: {"head_set": now}),
    )
    if loaded is not None:
        _show_loaded(run, places, loaded)


def _show_loaded(run: Run, places: Places, loaded: HeadSet) -> None:
    per_block = loaded.array.sum(axis=1)
    what = str(loaded.made_from.get("what", "heads"))
    st.markdown(
        plain(
            f"{len(loaded.members)} of {loaded.array.size} heads, {per_block.min()} to {per_block.max()} in a block; saved "
            f"from {what} of {loaded.made_from.get('run', 'a run')}. Crossed in the grid."
        )
    )
    with st.container(horizontal=True, vertical_alignment="center"):
        if loaded.array.all(axis=1).any():
            st.caption("A block would keep none of its heads, so there is no mask without this set.")
        else:
            st.download_button(
                "Mask without them (.safetensors)",
                data=lambda: set_mask(run, places, loaded)[0],
                file_name=f"without-{loaded.name}.safetensors",
                mime="application/octet-stream",
                on_click="ignore",
                key="set_safetensors",
            )
            st.download_button(
                "JSON",
                data=lambda: json.dumps(masks.to_json(set_mask(run, places, loaded)[1]), indent=1).encode(),
                file_name=f"without-{loaded.name}.json",
                mime="application/json",
                on_click="ignore",
                key="set_json",
            )
        st.button("Delete the set", key="delete_set", type="tertiary", on_click=_delete, args=(places, loaded.name))


def set_mask(run: Run, places: Places, loaded: HeadSet) -> tuple[bytes, masks.Mask]:
    """The mask file without a set's heads, and the mask read back. Raises `InputError` as `mask_without` does."""
    made = head_sets.mask_without(run, loaded.array, {"removed": loaded.name})
    places.workspace.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=places.workspace, prefix=".mask-") as folder:
        path = masks.save(made, Path(folder) / "mask.safetensors")
        return path.read_bytes(), masks.load(path)


def _delete(places: Places, name: str) -> None:
    head_sets.delete(places.workspace, name)
    choose(head_set=None)


def problem_of(run: Run, selection: Selection, places: Places) -> tuple[HeadSet | None, InputError | None]:
    """The loaded set, or why it cannot be loaded."""
    try:
        return loaded_set(run, selection, places), None
    except InputError as error:
        return None, error
