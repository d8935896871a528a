"""The model of a run as commands name it: the bundled demo, a model in the local cache, or a pipeline in the places."""

from pathlib import Path

import streamlit as st

from analysis.runs import Run
from pare import reference
from pare.errors import InputError
from workbench.pages.data import LOOK_SECONDS, pipeline_names
from workbench.pages.kept import kept
from workbench.pages.text import short_path
from workbench.places import Places


def model_of(run: Run, places: Places) -> str:
    """MODEL for a command on this run: its own id, or the folder below a place that holds the very same model.

    A run keeps the name of its model's folder and hashes of its config and weights, not where it lay. Where nothing is
    found it is the run's own id, which a command then refuses.
    """
    return _model_of(places, run.model_id, run.manifest.model.get("config_hash"), run.manifest.model.get("weight_hash"))


@kept(st.cache_data, ttl=LOOK_SECONDS, max_entries=16)
def _model_of(places: Places, model_id: str, config_hash: str | None, weight_hash: str | None) -> str:
    if unreadable(model_id) is None:
        return model_id
    for name in pipeline_names(places):
        folder = places.find(name)
        if folder.name != model_id:
            continue
        try:
            found = reference.model_identity(str(folder))
        except InputError:
            continue
        if (found["config_hash"], found["weight_hash"]) == (config_hash, weight_hash):
            return str(folder)
    return model_id


def model_words(run: Run, places: Places) -> str:
    """The same for a person to type: a folder relative to the current one."""
    model = model_of(run, places)
    return short_path(Path(model)) if Path(model).is_absolute() else model


def unreadable(model: str) -> str | None:
    """Why a model cannot run on this machine, in one line; None where it can. Nothing is downloaded."""
    try:
        reference.weights_folder(model)
    except InputError as error:
        return str(error)
    return None
