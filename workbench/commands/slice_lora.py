"""`pare slice-lora`: cut a LoRA of a dense model to the heads and neurons that a mask, or a pruned model, kept."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pare import mask as masks
from pare import reference, student
from pare.errors import InputError
from pare.files import check_output, write_bytes
from pare.geometry import Geometry, read_json
from pare.mask import Mask
from pare.versions import versions
from workbench.plan import gibi

SCHEMA = "pare-lora/1"
# The key under which this project writes into a file's header.
OWN = "pare"


def slice_lora(
    lora: str | Path, *, mask: str | Path, out: str | Path, model: str | None = None, qk_norm: str = "fold"
) -> dict[str, Any]:
    """Write the LoRA of a dense model, cut for its pruned one, as the .safetensors file `out` under diffusers' names.

    `mask` is the mask that pruned it, or the folder of the pruned model, which knows its indices and its `qk_norm`. For
    a mask file `model` says the dense model's shapes (default: the model that the mask names) and `qk_norm` how it was
    applied. Alphas and the adapter's own settings are kept. Raises `InputError` for files that cannot be read, a mask
    of another model and adapters that cannot be cut (DoRA, LoKr); nothing is written then.
    """
    _check_out(out)
    kept, geometry, treated = _kept(Path(mask), model, qk_norm)

    # Seconds of import, so only once the words are known to be good.
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import save

    from pare.width import lora as width

    if not Path(lora).is_file():
        raise InputError("LORA", got=lora, expected="a .safetensors file", fix="check the path")
    try:
        with safe_open(lora, framework="pt") as file:
            header = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise InputError(str(lora), got=error, expected="a safetensors file", fix="fetch it again") from error
    cut = width.slice_lora(tensors, kept, geometry, qk_norm=treated)
    if not any(".lora_" in name for name in cut):
        raise InputError(str(lora), got="no LoRA tensors", expected="a LoRA for Wan", fix="check the file")
    about = {
        "schema": SCHEMA,
        "lora": Path(lora).name,
        "mask": Path(mask).name,
        "model": dict(kept.metadata.get("model", {})),
        "qk_norm": treated,
        "counts": kept.counts(),
        "versions": versions(),
    }
    ordered = {name: cut[name].contiguous() for name in sorted(cut)}
    write_bytes(out, save(ordered, metadata=header | {OWN: json.dumps(about, sort_keys=True)}))
    sizes = {"before": _bytes(tensors), "after": _bytes(cut)}
    return {"out": str(out), **about, "tensors": len(cut), "changed": _changed(width.to_diffusers(tensors), cut),
            "bytes": sizes}  # fmt: skip


def render(result: dict[str, Any]) -> str:
    """The result for people."""
    size = result["bytes"]
    return (
        f"{result['out']}: {result['changed']} of {result['tensors']} tensors of {result['lora']} cut by "
        f"{result['mask']} (query/key norm {result['qk_norm']}), {gibi(size['before'])} to {gibi(size['after'])}\n"
        f"pipe.load_lora_weights({result['out']!r}) loads it on the pruned model"
    )


def _check_out(out: str | Path) -> None:
    if Path(out).suffix != ".safetensors":
        raise InputError(
            "--out", got=out, expected="a name ending in .safetensors", fix="for example --out lora.safetensors"
        )
    check_output(out)


def _kept(mask: Path, model: str | None, qk_norm: str) -> tuple[Mask, Geometry, student.QueryKeyNorm]:
    """The mask, the shapes of the dense model, and how the norm across heads was treated."""
    if mask.is_dir():
        folder = mask if (mask / "config.json").is_file() else mask / "transformer"
        config = read_json(folder / "config.json")
        rows = student.kept(config)
        treated = config.get("qk_norm_mode", "none")
        base = (config.get("pruning") or {}).get("base") or {}
        return Mask(**rows, metadata={"model": base}), Geometry.from_config(config), treated
    for known in student.QUERY_KEY_NORMS:
        if qk_norm == known:
            chosen = masks.load(mask)
            return chosen, _geometry(chosen, model), known
    names = ", ".join(student.QUERY_KEY_NORMS)
    raise InputError("--qk-norm", got=qk_norm, expected=f"one of {names}", fix="--qk-norm fold")


def _geometry(chosen: Mask, model: str | None) -> Geometry:
    named = model or chosen.metadata.get("model", {}).get("model_id")
    fix = "add --model MODEL, the dense model, or give the pruned model's folder as --mask"
    if named is None:
        raise InputError("--mask", got="a mask that names no model", expected="the dense model's shapes", fix=fix)
    try:
        return reference.model_geometry(str(named))
    except InputError as error:
        if model is not None:
            raise
        raise InputError(
            "--mask", got=f"a mask of {named}, which is not found here", expected="the dense model's shapes", fix=fix
        ) from error


def _changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> int:
    return sum(before[name].shape != value.shape for name, value in after.items())


def _bytes(tensors: Mapping[str, Any]) -> int:
    return sum(value.numel() * value.element_size() for value in tensors.values())
