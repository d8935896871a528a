"""From a run, a model's weights and settings to a mask: what `pare mask` writes."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from analysis.head_scores import head_scores
from analysis.runs import Run
from pare import reference
from pare.errors import InputError
from pare.geometry import Clip, Geometry
from pare.mask import Mask
from pare.progress import Progress, silent
from pare.versions import versions
from workbench.mask_plan import MaskPlan, check_settings, plan
from workbench.mask_settings import MaskSettings

# What is counted for, not what decides the mask; `predicted` names it.
_COUNTED_FOR = {"dtype", "height", "width", "frames"}


def build(
    run: Run | None,
    settings: MaskSettings,
    *,
    model: str | None = None,
    device: str = "auto",
    progress: Progress = silent,
) -> Mask:
    """The mask of a run or a model at these settings, with everything that made it as metadata.

    The model's weights, which neurons and the magnitude of heads are chosen by, are those of `model`, or of the run's
    own model where that is on this machine; they are read from safetensors block by block. Raises InputError for
    settings out of range, for a model other than the run's, and for what is needed and not there.
    """
    check_settings(settings)
    geometry, clip, identity = describe(run, model)
    # Both scorers of weights read the same folder; whatever lacks is said before long work.
    reads = settings.neurons not in ("none", "random") or settings.scorer == "magnitude"
    weights = _weights(run, model) if reads else None
    moment = _activation_square(run) if settings.neurons == "activation" else None
    scores = head_scores(
        settings.scorer, geometry, run=run, weights=weights, branch=settings.branch, seed=settings.seed
    )
    planned = plan(run, settings, geometry=geometry, clip=clip, scores=scores)
    assert planned.self_heads is not None and planned.cross_heads is not None
    keep, passes = np.ones((geometry.blocks, geometry.ffn), bool), {}
    count = planned.counts.neurons
    if isinstance(count, int) and count < geometry.ffn:
        # By name, so that the app, which never does this, stays free of torch.
        chosen = importlib.import_module("pare.width.stored_neurons").select_neurons(
            settings.neurons,
            geometry,
            count,
            weights=weights,
            mean_square=moment,
            tau=settings.tau_ffn,
            seed=settings.seed,
            device=device,
            progress=progress,
        )
        keep = chosen.keep
        if chosen.taus:
            passes = {"neuron_passes": {"tau": list(chosen.taus), "skipped": [list(each) for each in chosen.skipped]}}
    return Mask(
        self_heads=planned.self_heads,
        cross_heads=planned.cross_heads,
        neurons=keep,
        metadata={
            "model": identity,
            "settings": recorded(planned),
            **({} if run is None else {"run": _run(run)}),
            "predicted": dict(planned.predicted),
            **passes,
            "versions": versions(),
        },
    )


def describe(run: Run | None, model: str | None) -> tuple[Geometry, Clip | None, Mapping[str, Any]]:
    """Shapes, usual clip and identity of the model that is meant: the run's, or the one that is named.

    Raises InputError where neither is given, and where both are but differ.
    """
    if run is not None:
        if model is not None:
            _check_same(run, model)
        size = run.manifest.clip
        return run.geometry, Clip(size["height"], size["width"], size["frames"]), run.manifest.model
    if model is None:
        raise InputError("RUN", got="none", expected="a run, or a model", fix="give RUN, or --model MODEL")
    known = reference.resolve(model)
    usual = reference.defaults(known)
    sizes = [int(usual[name]) for name in ("height", "width", "frames") if usual.get(name) is not None]
    clip = Clip(*sizes) if len(sizes) == 3 else None
    identity = {"model_id": known.name} if known.kind == "preset" else reference.model_identity(known)
    return reference.model_geometry(known), clip, identity


def recorded(planned: MaskPlan) -> dict[str, Any]:
    """The settings as a mask carries them: no place of a file, a seed only where something was drawn."""
    settings = planned.settings
    found = settings.model_dump(exclude=_COUNTED_FOR) | dict(planned.source)
    if "random" not in (settings.scorer, settings.neurons):
        found["seed"] = None
    return found


def _run(run: Run) -> dict[str, Any]:
    manifest = run.manifest
    name = run.folder.resolve().name
    return {"name": name, "hash": run.hash, "mode": manifest.mode, "samples": len(run.finished)}


def _weights(run: Run | None, model: str | None) -> Path:
    if model is not None or run is None:
        return reference.weights_folder(model or "")
    try:
        folder = reference.weights_folder(run.model_id)
    except InputError as error:
        raise InputError(
            "--model",
            got=f"none, and the weights of the run's model, {run.model_id}, are not found here",
            expected="the model whose weights tell its neurons",
            fix="--model MODEL, or --neurons none",
        ) from error
    _check_same(run, run.model_id)
    return folder


def _check_same(run: Run, model: str) -> None:
    known = reference.resolve(model)
    if known.kind == "preset":
        if reference.model_geometry(known) != run.geometry:
            raise _other_model(run, known.name, "shapes")
        return
    own, named = run.manifest.model, reference.model_identity(known)
    if own.get("config_hash") != named["config_hash"]:
        raise _other_model(run, known.name, "configuration")
    # A hub's commit and a folder's files are hashed differently: only like can be held against like.
    alike = (own.get("revision") is None) == (named["revision"] is None)
    if (
        alike
        and None not in (own.get("weight_hash"), named["weight_hash"])
        and own["weight_hash"] != named["weight_hash"]
    ):
        raise _other_model(run, known.name, "weights")


def _other_model(run: Run, model: str, what: str) -> InputError:
    return InputError(
        "--model",
        got=f"{model}, with other {what} than the run measured",
        expected=f"the run's model, {run.model_id}",
        fix="give the model that was captured, or capture this one",
    )


def _activation_square(run: Run | None) -> np.ndarray:
    if run is None or "ffn/activation_square" not in run.manifest.moments:
        raise InputError(
            "--neurons",
            got="activation without moments",
            expected="a run that has them",
            fix="capture with --statistics all, or --neurons pare",
        )
    return run.moment("ffn/activation_square")["mean"]
