"""What a model folder says of itself, dense or student, read from its JSON files: widths, sizes, settings, trainings."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pare import cost, reference, student
from pare.depth.budget import BudgetSchedule, shifted_timesteps
from pare.errors import InputError
from pare.geometry import Clip, Geometry, read_json
from pare.mask import PARTS


@dataclass(frozen=True)
class ModelCard:
    """One model: parameters stored, and those active in the blocks of a mean step; FLOPs of a forward at its own size.

    `kept` is (fewest, most) of every part in a block; `blocks` the mean number that run, all where nothing is routed.
    `flops`, for the clip, is of all blocks and `active_flops` of those that run; None where the model names no size.
    """

    name: str
    identity: Mapping[str, str | None]
    base: str | None
    geometry: Geometry
    kept: Mapping[str, tuple[int, int]]
    parameters: int
    active_parameters: int
    blocks: float
    weight_bytes: int
    clip: Clip | None
    flops: float | None
    active_flops: float | None
    settings: Mapping[str, Any]

    @property
    def pruned(self) -> bool:
        """Whether any head or neuron is gone."""
        sizes = {"self_heads": self.geometry.heads, "cross_heads": self.geometry.heads, "neurons": self.geometry.ffn}
        return any(low < sizes[part] for part, (low, _) in self.kept.items())

    @property
    def video_flops(self) -> float | None:
        """Operations of one video as the model is sampled: the blocks that run, all steps, both branches where guided."""
        steps = self.settings.get("steps")
        if self.active_flops is None or steps is None:
            return None
        return self.active_flops * steps * (2 if (self.settings.get("guidance") or 1) > 1 else 1)

    @property
    def stored_bytes(self) -> float:
        """Bytes of a parameter in the files."""
        return self.weight_bytes / self.parameters


def read_card(folder: str | Path) -> ModelCard:
    """The card of a diffusers folder, without its weights. Raises `InputError` for a folder that is no Wan pipeline, and
    for a damaged one."""
    folder = Path(folder)
    geometry = reference.model_geometry(str(folder))
    config, defaults = read_json(folder / "transformer" / "config.json"), reference.defaults(str(folder))
    try:
        kept, widths = student.cost_arguments(config), student.widths(config)
        pruning: Mapping[str, Any] = config.get("pruning") or {}
        blocks = _mean_blocks(config.get("routing"), defaults, geometry.blocks)
        parameters = cost.parameters(geometry, **kept)
        clip = _clip(defaults)
        flops = None if clip is None else cost.flops(geometry, clip, **kept).total
        base = (pruning.get("base") or {}).get("model_id")
        settings = _settings(config, pruning, defaults)
    except (TypeError, AttributeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            str(folder / "transformer" / "config.json"),
            got=f"{type(error).__name__}: {error}",
            expected="the config of a Wan transformer",
            fix="prune the base model again",
        ) from error
    share = blocks / geometry.blocks
    return ModelCard(
        name=folder.name,
        identity=reference.model_identity(str(folder)),
        base=None if base is None else str(base),
        geometry=geometry,
        kept={part: _ends(getattr(each, part) for each in widths) for part in PARTS},
        parameters=parameters.total,
        active_parameters=round(share * parameters.in_blocks),
        blocks=blocks,
        weight_bytes=sum(path.stat().st_size for path in (folder / "transformer").glob("*.safetensors")),
        clip=clip,
        flops=flops,
        active_flops=None if flops is None else share * flops,
        settings=settings,
    )


def _mean_blocks(routing: Mapping[str, Any] | None, defaults: Mapping[str, Any], blocks: int) -> float:
    """Blocks of a mean step of the model's own sampling, by the budget of its router; all without one."""
    if routing is None:
        return float(blocks)
    timesteps = shifted_timesteps(int(defaults.get("steps", 50)), float(defaults.get("shift", 1.0)))
    return BudgetSchedule.from_dict(routing).mean_count(timesteps, blocks)


def _clip(defaults: Mapping[str, Any]) -> Clip | None:
    names = ("height", "width", "frames")
    return Clip(*(int(defaults[name]) for name in names)) if all(name in defaults for name in names) else None


def _settings(config: Mapping[str, Any], pruning: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """What made the model and how it is sampled, under short names."""
    found = {f"mask {name}": value for name, value in ((pruning.get("mask") or {}).get("settings") or {}).items()}
    found |= {"query/key norm": config.get("qk_norm_mode"), "biases compensated": pruning.get("compensated")}
    routing: Mapping[str, Any] = config.get("routing") or {}
    found |= {f"router {name}": value for name, value in routing.items() if isinstance(value, int | float | str)}
    found["training"] = ", ".join(str(stage.get("stage")) for stage in pruning.get("training") or ()) or None
    found |= {name: defaults.get(name) for name in ("steps", "guidance", "shift")}
    return {name: value for name, value in found.items() if value is not None}


def _ends(numbers: Any) -> tuple[int, int]:
    every = list(numbers)
    return min(every), max(every)
