"""`pare mask`: choose which heads and neurons stay, and look at masks."""

from pathlib import Path
from typing import Any

from analysis.runs import Run
from pare import mask as masks
from pare import reference
from pare.errors import InputError
from pare.files import check_output
from pare.progress import Progress, silent
from workbench.mask_build import build, describe, recorded
from workbench.mask_plan import plan
from workbench.mask_settings import MaskSettings
from workbench.plan import gibi, tera


def mask(
    run: str | Path | None = None,
    *,
    out: str | Path | None = None,
    model: str | None = None,
    preset: str | None = None,
    device: str = "auto",
    dry_run: bool = False,
    progress: Progress = silent,
    **settings: Any,
) -> dict[str, Any]:
    """Keep the most important heads and neurons of every block of the run's model and write the mask file `out`.

    `settings` are the fields of `workbench.mask_settings.MaskSettings`, on top of those of `preset`. Heads are ranked by
    Eq. 3 or another scorer, temporal ones of self-attention times α (Eq. 5); neurons are chosen by Eq. 6 and 7 from the
    weights of `model` (default: the run's own, where it is on this machine). Without a run, `model` and a scorer that
    needs none. `dry_run` writes nothing and returns counts and cost; it needs no weights, and with a preset's name as
    `model` no run. Raises `InputError` for settings out of range, a run or model that cannot be read or that do not
    belong together, and weights that are needed and not here; nothing is written then.
    """
    chosen = MaskSettings.of(preset, **settings)
    if out is not None:
        check_output(out)
    elif not dry_run:
        raise InputError(
            "--out", got="no value", expected="a file to write", fix="--out mask.safetensors, or --dry-run"
        )
    opened = None if run is None else Run.open(run)
    if dry_run:
        return _planned(opened, chosen, model)
    assert out is not None
    made = build(opened, chosen, model=model, device=device, progress=progress)
    masks.save(made, out)
    return {"mask": str(out), **masks.to_json(made)}


def alpha(run: str | Path, *, preset: str | None = None, **settings: Any) -> dict[str, Any]:
    """Which picks of self-attention heads flip as the protection α of temporal heads goes from 1 to 3, per block.

    `settings` as for `mask`; their own α is not used, nor are weights. Raises `InputError` for a run without ratios.
    """
    chosen = MaskSettings.of(preset, **settings)
    opened = Run.open(run)
    planned = plan(opened, chosen)
    if planned.study is None:
        raise InputError(str(run), got="no self/ratio", expected="a run with ratios", fix="capture them")
    return {
        "run": str(run),
        "model": opened.model_id,
        "settings": recorded(planned) | {"alpha": None},
        "study": planned.study.to_json(),
    }


def show(file: str | Path) -> dict[str, Any]:
    """What a mask keeps and where it comes from."""
    return {"mask": str(file), **masks.to_json(masks.load(file))}


def diff(a: str | Path, b: str | Path) -> dict[str, Any]:
    """Which heads and neurons two masks of one model disagree on, and which settings made them differ."""
    left, right = masks.load(a), masks.load(b)
    ours, theirs = (each.metadata.get("settings") or {} for each in (left, right))
    names = sorted(set(ours) | set(theirs))
    changed = {name: [ours.get(name), theirs.get(name)] for name in names if ours.get(name) != theirs.get(name)}
    return {"a": str(a), "b": str(b), "settings": changed, "diff": masks.diff(left, right)}


def check(file: str | Path, model: str) -> dict[str, Any]:
    """Raise `InputError` unless the mask fits the model (its shapes, and its configuration where the mask names one)."""
    known = reference.resolve(model)
    loaded = masks.load(file)
    identity = {"model_id": known.name} if known.kind == "preset" else reference.model_identity(known)
    masks.check(loaded, reference.model_geometry(known), identity)
    return {"mask": str(file), "model": identity, "fits": True, "counts": loaded.counts()}


def render(result: dict[str, Any]) -> str:
    """The result for people."""
    if "study" in result:
        return _render_study(result)
    if "diff" in result:
        return _render_diff(result)
    if result.get("fits"):
        return f"{result['mask']} fits {result['model'].get('model_id')}"
    counts, shapes = result["counts"], result["shapes"]
    name = result.get("model", {}).get("model_id", "an unnamed model")
    lines = [f"plan for {name} (nothing was written)" if result.get("plan") else f"{result['mask']}: mask of {name}"]
    for part, kept in counts.items():
        few, many = min(kept), max(kept)
        lines.append(
            f"{part:11s}  {few if few == many else f'{few} to {many}'} of {shapes[part][1]} kept in every block"
        )
    if "neuron_passes" in result:
        lines.append("too alike    " + _passes(result["neuron_passes"]))
    for title in ("settings", "run"):
        if title in result:
            lines.append(f"{title:11s}  {_listed(result[title])}")
    if "predicted" in result:
        lines.append("predicted    " + _cost(result["predicted"]))
    return "\n".join(lines)


def _planned(run: Run | None, settings: MaskSettings, model: str | None) -> dict[str, Any]:
    geometry, clip, identity = describe(run, model)
    planned = plan(run, settings, geometry=geometry, clip=clip)
    counts = planned.counts.per_block(geometry.blocks)
    sizes = {"self_heads": geometry.heads, "cross_heads": geometry.heads, "neurons": geometry.ffn}
    return {
        "plan": True,
        "model": dict(identity),
        "settings": recorded(planned),
        "shapes": {part: [geometry.blocks, size] for part, size in sizes.items()},
        "counts": counts,
        "predicted": dict(planned.predicted),
    }


def _render_study(result: dict[str, Any]) -> str:
    study = result["study"]
    flips = ", ".join(
        f"{count} at {alpha:g}"
        for alpha, count in zip(study["alphas"], study["flips"], strict=True)
        if alpha * 4 % 1 == 0
    )
    lines = [f"{result['model']}: picks that differ from those without protection: {flips}", "block  temporal  flips"]
    for block in study["blocks"]:
        swaps = "  ".join(
            f"{'+' if flip['to'] == 'kept' else '-'}{flip['head']}{flip['role']} at {flip['alpha']:g}"
            for flip in block["flips"]
        )
        lines.append(f"{block['block']:5d}  {block['temporal']:8d}  {swaps or 'none'}")
    return "\n".join([*lines, "+ enters the mask, - leaves it (head and role: S spatial, M mixed, T temporal)"])


def _render_diff(result: dict[str, Any]) -> str:
    lines = [
        f"{part:11s}  both keep {each['both']}, only {result['a']} {each['only_a']}, only {result['b']} "
        f"{each['only_b']}, overlap {each['overlap']:.1%}"
        for part, each in result["diff"].items()
    ]
    changed = [f"{name} {ours} and {theirs}" for name, (ours, theirs) in result["settings"].items()]
    return "\n".join([*lines, *(["settings     " + ", ".join(changed)] if changed else [])])


def _passes(passes: dict[str, Any]) -> str:
    sums = [sum(each[at] for each in passes["skipped"] if at < len(each)) for at in range(len(passes["tau"]))]
    return ", ".join(f"{count} neurons passed over at {tau:g}" for tau, count in zip(passes["tau"], sums, strict=True))


def _cost(guess: dict[str, Any]) -> str:
    """Masks made elsewhere may predict less, so each number is shown where it is there."""
    found = []
    if {"parameters", "dense_parameters"} <= set(guess):
        found.append(f"{guess['parameters']:,} of {guess['dense_parameters']:,} parameters")
    if "block_parameters" in guess:
        found.append(f"{guess['block_parameters']:,} of them in blocks")
    if {"flops", "dense_flops"} <= set(guess):
        share = guess["flops"] / guess["dense_flops"]
        found.append(f"{tera(guess['flops'])} of {tera(guess['dense_flops'])} per forward ({share:.1%})")
    if {"memory_bytes", "dtype"} <= set(guess):
        found.append(f"{gibi(guess['memory_bytes'])} for weights and activations in {guess['dtype']}")
    return ", ".join(found)


def _listed(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items() if value is not None)
