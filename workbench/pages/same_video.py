"""Which video a `generate` job makes, whichever page asked for it: the one dense video of a prompt serves all of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import streamlit as st

from analysis.runs import Run
from pare import reference
from pare.errors import InputError
from pare.geometry import read_json
from workbench.pages.data import LOOK_SECONDS
from workbench.pages.kept import kept

CLIP = ("height", "width", "frames", "fps", "guidance", "shift", "negative_prompt")
"""Settings of a run that a video made beside it takes over where they are not the model's own."""
OWN = ("out", "device")
"""Arguments that a job settles for itself."""


@dataclass(frozen=True)
class _Model:
    """Where a model lies, how it is usually sampled, and whether it has a router of its own."""

    place: str
    defaults: Mapping[str, Any]
    routed: bool


def clip_settings(run: Run, model: str) -> dict[str, Any]:
    """The clip and guidance of a run, as far as the model would not choose them itself."""
    settings, own = run.manifest.settings, _known(model).defaults
    return {name: settings[name] for name in CLIP if settings.get(name) is not None and settings[name] != own.get(name)}


def decisive(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a `generate` job that decide its video: two jobs with the same ones make the same video.

    A model is where it lies, under any name; what a model does by itself is left out, and so is the router "none" where
    there is no router.
    """
    found = {name: value for name, value in arguments.items() if name not in OWN}
    known = _known(str(found.get("model")))
    found["model"] = known.place
    if found.get("router") == "none" and not known.routed:
        del found["router"]
    return {name: value for name, value in found.items() if not _is_usual(name, value, known.defaults)}


def _is_usual(name: str, value: Any, defaults: Mapping[str, Any]) -> bool:
    return name in (*CLIP, "steps") and defaults.get(name) is not None and value == defaults[name]


@kept(st.cache_data, ttl=LOOK_SECONDS, max_entries=64)
def _known(model: str) -> _Model:
    """What the model's files say; a model that is not on this machine is its name alone."""
    try:
        folder = reference.weights_folder(model)
        config = read_json(folder / "config.json")
        return _Model(str(folder.resolve()), reference.defaults(model), config.get("routing") is not None)
    except (InputError, OSError, ValueError):
        return _Model(model, {}, True)
