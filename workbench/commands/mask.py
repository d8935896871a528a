"""`pare mask`: choose which heads stay, and look at masks."""

from pathlib import Path
from typing import Any

import numpy as np

from analysis.importance import ALPHA, protected, run_importance, run_roles
from analysis.roles import TAU_S, TAU_T, check_thresholds
from analysis.runs import Run
from pare import cost, reference
from pare import mask as masks
from pare.errors import InputError
from pare.files import check_output
from pare.geometry import Clip
from pare.mask import Mask
from pare.versions import versions
from pare.width.heads import kept_count, select_heads
from workbench.plan import tera

SCORERS = ("pare",)


def mask(
    run: str | Path,
    *,
    out: str | Path,
    ratio: float = 0.3,
    tau_s: float = TAU_S,
    tau_t: float = TAU_T,
    alpha: float = ALPHA,
    k_min: int | None = None,
    scorer: str = "pare",
    branch: str | None = None,
) -> dict[str, Any]:
    """Keep the most important heads of every block of the run's model and write the mask file `out`.

    Self-attention heads are ranked by Eq. 3, temporal ones times `alpha` (Eq. 5), cross-attention heads by Eq. 3 alone;
    K = max(k_min, ceil(H·(1 − ratio))) of each stay in every block, and all neurons. Raises `InputError` for an
    unreadable run, a ratio outside (0, 1), thresholds out of order and a `k_min` outside 1..H; nothing is written then.
    """
    check_thresholds(tau_s, tau_t)
    if scorer not in SCORERS:
        raise InputError("--scorer", got=scorer, expected=f"one of {', '.join(SCORERS)}", fix=f"--scorer {SCORERS[0]}")
    check_output(out)
    opened = Run.open(run)
    settings = {
        "ratio": ratio,
        "tau_s": tau_s,
        "tau_t": tau_t,
        "alpha": alpha,
        "k_min": k_min,
        "scorer": scorer,
        "seed": None,  # nothing in this scorer is drawn
        "branch": branch,
    }
    made = make(opened, settings)
    masks.save(made, out)
    return {"mask": str(out), **masks.to_json(made)}


def make(run: Run, settings: dict[str, Any]) -> Mask:
    """The mask of a run at these settings (the arguments of `mask`), with everything that made it as metadata."""
    geometry, manifest = run.geometry, run.manifest
    count = kept_count(geometry.heads, settings["ratio"], settings["k_min"])
    importance = run_importance(run, settings["branch"])
    roles = run_roles(run, settings["tau_s"], settings["tau_t"], settings["branch"])
    self_heads = select_heads(protected(importance["self"], roles, settings["alpha"]), count)
    clip = Clip(manifest.clip["height"], manifest.clip["width"], manifest.clip["frames"])
    counts = {"self_heads": count, "cross_heads": count}
    parameters, flops = cost.parameters(geometry, **counts), cost.flops(geometry, clip, **counts)
    return Mask(
        self_heads=self_heads,
        cross_heads=select_heads(importance["cross"], count),
        neurons=np.ones((geometry.blocks, geometry.ffn), bool),
        metadata={
            "model": manifest.model,
            "settings": settings,
            "run": {
                "name": run.folder.resolve().name,
                "hash": run.hash,
                "mode": manifest.mode,
                "samples": len(run.finished),
            },
            "predicted": {
                "parameters": parameters.total,
                "dense_parameters": cost.parameters(geometry).total,
                "flops": flops.total,
                "dense_flops": cost.flops(geometry, clip).total,
                "clip": {"height": clip.height, "width": clip.width, "frames": clip.frames},
            },
            "versions": versions(),
        },
    )


def show(file: str | Path) -> dict[str, Any]:
    """What a mask keeps and where it comes from."""
    return {"mask": str(file), **masks.to_json(masks.load(file))}


def diff(a: str | Path, b: str | Path) -> dict[str, Any]:
    """Which heads and neurons two masks of one model disagree on."""
    return {"a": str(a), "b": str(b), "diff": masks.diff(masks.load(a), masks.load(b))}


def check(file: str | Path, model: str) -> dict[str, Any]:
    """Raise `InputError` unless the mask fits the model (its shapes, and its configuration where the mask names one)."""
    known = reference.resolve(model)
    loaded = masks.load(file)
    identity = {"model_id": known.name} if known.kind == "preset" else reference.model_identity(known)
    masks.check(loaded, reference.model_geometry(known), identity)
    return {"mask": str(file), "model": identity, "fits": True, "counts": loaded.counts()}


def render(result: dict[str, Any]) -> str:
    """The result for people."""
    if "diff" in result:
        return "\n".join(
            f"{part:11s}  both keep {each['both']}, only {result['a']} {each['only_a']}, only {result['b']} "
            f"{each['only_b']}, overlap {each['overlap']:.1%}"
            for part, each in result["diff"].items()
        )
    if result.get("fits"):
        return f"{result['mask']} fits {result['model'].get('model_id')}"
    counts, shapes = result["counts"], result["shapes"]
    lines = [f"{result['mask']}: mask of {result.get('model', {}).get('model_id', 'an unnamed model')}"]
    for part, kept in counts.items():
        few, many = min(kept), max(kept)
        lines.append(
            f"{part:11s}  {few if few == many else f'{few} to {many}'} of {shapes[part][1]} kept in every block"
        )
    if "settings" in result:
        lines.append("settings     " + _listed(result["settings"]))
    if "run" in result:
        lines.append("run          " + _listed(result["run"]))
    if "predicted" in result:
        guess = result["predicted"]
        lines.append(
            f"predicted    {guess['parameters']:,} of {guess['dense_parameters']:,} parameters, {tera(guess['flops'])} of "
            f"{tera(guess['dense_flops'])} per forward"
        )
    return "\n".join(lines)


def _listed(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items() if value is not None)
