"""A trained student as a diffusers folder: its transformer, what surrounds it, and its card."""

import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights

from pare.geometry import read_json
from pare.training.parallel import Parallel
from pare.transformer import PareWanTransformer3DModel

LIBRARY, CLASS, CARD = "pare.transformer", "PareWanTransformer3DModel", "README.md"
SHARD = "2GB"
UNTRAINED = "**no recovery training has been done on them.**"


def save_student(
    student: Any,
    out: Path,
    *,
    dtype: torch.dtype,
    base: Path | None,
    about: Mapping[str, Any],
    parallel: Parallel,
    defaults: Mapping[str, Any] | None = None,
) -> int:
    """Write the student into `out`, beside its training; all processes call this, the leading one writes. Bytes of weights.

    Args: `dtype`: precision to store; `base`: the pipeline folder whose other parts are copied, None for the transformer alone;
    `about`: what the card and the config say of the training; `defaults` of sampling that differ from the base's, for a
    student of few steps.
    """
    state = dict(parallel.gathered(sorted(student.state_dict().items())))
    if not parallel.leads:
        return 0
    config = {name: value for name, value in student.config.items() if not name.startswith("_")}
    history = [*(config["pruning"] or {}).get("training", []), dict(about)]
    config["pruning"] = {**(config["pruning"] or {}), "training": history}
    with init_empty_weights(include_buffers=False):
        model = PareWanTransformer3DModel.from_config(config)
    model.load_state_dict(_stored(state, dtype, model), assign=True)
    partial, target = out / ".transformer.partial", out / "transformer"
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(partial, safe_serialization=True, max_shard_size=SHARD)
    shutil.rmtree(target, ignore_errors=True)
    os.replace(partial, target)
    if base is not None:
        _copy_around(base, out)
        _write_index(base, out, defaults)
    card = _card(base, history)
    for place in (target, out):
        (place / CARD).write_text(card, encoding="utf-8")
    return sum(path.stat().st_size for path in target.glob("*.safetensors"))


def _stored(
    state: Mapping[str, torch.Tensor], dtype: torch.dtype, model: PareWanTransformer3DModel
) -> dict[str, torch.Tensor]:
    kept = set(model._keep_in_fp32_modules or ())
    return {
        name: tensor.to(torch.float32 if set(name.split(".")) & kept else dtype).contiguous()
        for name, tensor in state.items()
    }


def _copy_around(base: Path, out: Path) -> None:
    """Everything of the base pipeline but its transformer and what a training left there."""
    for path in sorted(base.iterdir()):
        if path.is_dir() and path.name not in ("transformer", "training") and path.name[0] != ".":
            shutil.copytree(path, out / path.name, dirs_exist_ok=True)
        elif path.suffix == ".json" and path.name != "model_index.json":
            shutil.copyfile(path, out / path.name)


def _write_index(base: Path, out: Path, defaults: Mapping[str, Any] | None) -> None:
    if defaults is not None:
        own = out / "defaults.json"
        there = read_json(own) if own.is_file() else {}
        own.write_text(json.dumps({**there, **defaults}, indent=1) + "\n", encoding="utf-8")
        _use_first_order(out / "scheduler" / "scheduler_config.json", int(defaults["steps"]))
    # Last of all: only now is the folder a pipeline.
    index = read_json(base / "model_index.json") | {"transformer": [LIBRARY, CLASS]}
    (out / "model_index.json").write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _use_first_order(path: Path, steps: int) -> None:
    """A student of few steps is sampled by plain Euler steps, which is what UniPC of order 1 without corrector does; a
    multistep formula over four steps would extrapolate from what the student never learned."""
    config = read_json(path) if path.is_file() else {}
    if config.get("_class_name") == "UniPCMultistepScheduler":
        config |= {"solver_order": 1, "disable_corrector": list(range(steps))}
        path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _card(base: Path | None, history: list[dict[str, Any]]) -> str:
    there = base / CARD if base is not None else None
    text = there.read_text("utf-8") if there is not None and there.is_file() else "# A distilled Wan student\n"
    text = text.replace(UNTRAINED, "they were trained afterwards, as said below.")
    text = re.split(r"^## Training$", text, maxsplit=1, flags=re.MULTILINE)[0].rstrip()
    return "\n".join([text, "", "## Training", "", *(line for stage in history for line in _stage(stage))]) + "\n"


def _stage(about: Mapping[str, Any]) -> list[str]:
    settings = {name: value for name, value in about["settings"].items() if value is not None}
    rows = [
        ("stage", about["stage"]),
        ("teacher", about["model"].get("model_id")),
        ("student it began with", about["student"]),
        ("data", f"{about['data']['samples']} samples, {about['data']['name']}"),
        ("run of the block importance", about.get("run") or "none"),
        ("settings", ", ".join(f"{name} {value}" for name, value in sorted(settings.items()))),
        ("processes", about["processes"]),
        ("made by", ", ".join(f"{name} {number}" for name, number in about["versions"].items())),
    ]
    lines = [f"### {about['stage']}", "", "| | |", "| --- | --- |"]
    return [*lines, *(f"| {name} | {value} |" for name, value in rows), ""]
