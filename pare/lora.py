"""The layers of a LoRA for Wan: which of a block's heads or neurons they belong to, and whether a model has them all."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from pare import student
from pare.errors import InputError

Side: TypeAlias = Literal["out", "in"]

# What a layer of a block loses with a head or neuron: its output rows or its input columns.
HEAD_LAYERS: Mapping[str, Side] = {
    "to_q": "out", "to_k": "out", "to_v": "out", "add_k_proj": "out", "add_v_proj": "out", "to_out.0": "in",
}  # fmt: skip
NEURON_LAYERS: Mapping[str, Side] = {"net.0.proj": "out", "net.2": "in"}
# Whole where the norm still sees all heads.
BEFORE_NORM = ("to_q", "to_k", "add_k_proj")
# Where a file of LoRA weights is, in diffusers' words.
PLACE = ("cache_dir", "force_download", "proxies", "local_files_only", "token", "revision", "subfolder", "weight_name",
         "use_safetensors")  # fmt: skip
COMMAND = "pare slice-lora LORA --mask MASK --out FILE"

_KEY = re.compile(r"^(?:transformer\.)?blocks\.(?P<block>\d+)\.(?P<part>attn1|attn2|ffn)\.(?P<rest>.+)$")
_ENDINGS = ("lora_A.weight", "lora_B.weight", "lora_B.bias", "alpha")


@dataclass(frozen=True)
class LoraTensor:
    """One tensor of a LoRA in a block: `part` is attn1, attn2 or ffn, `layer` a projection, `ending` A, B, bias or alpha.

    >>> LoraTensor.read("transformer.blocks.3.ffn.net.2.lora_A.weight")
    LoraTensor(block=3, part='ffn', layer='net.2', ending='lora_A.weight')
    """

    block: int
    part: str
    layer: str
    ending: str

    @classmethod
    def read(cls, name: str) -> "LoraTensor | None":
        """The tensor that a name of diffusers or peft stands for; None for one outside of attention and feed-forward.

        Raises `InputError` for what is no plain LoRA (DoRA, LoKr, fused projections).
        """
        found = _KEY.match(name)
        if found is None:
            return None
        # peft puts the adapter's name before the ending: lora_A.default.weight.
        rest = re.sub(r"(lora_[AB])\.(?!weight$|bias$)[^.]+\.(weight|bias)$", r"\1.\2", found["rest"])
        ending = next((each for each in _ENDINGS if rest.endswith(f".{each}")), None)
        layer = rest.removesuffix(f".{ending}")
        if ending is None or layer not in (NEURON_LAYERS if found["part"] == "ffn" else HEAD_LAYERS):
            raise InputError(
                f"LoRA, {name}",
                got="a tensor that cannot be cut",
                expected="lora_A, lora_B and alpha of the projections of attention and feed-forward",
                fix="use a plain LoRA (no DoRA, no LoKr, no fused projections)",
            )
        return cls(int(found["block"]), found["part"], layer, ending)

    @property
    def axis(self) -> int | None:
        """Along which axis it is cut: B [out, rank] and its bias by rows, A [rank, in] by columns; None for never."""
        side = (NEURON_LAYERS if self.part == "ffn" else HEAD_LAYERS)[self.layer]
        if side == "out":
            return 0 if self.ending.startswith("lora_B") else None
        return 1 if self.ending == "lora_A.weight" else None


class CheckedLoraMixin:
    """For a transformer that may be pruned: a LoRA of other widths is refused before anything is changed."""

    config: Any

    def load_lora_adapter(
        self, pretrained_model_name_or_path_or_dict: Any, prefix: str | None = "transformer", **kwargs: Any
    ) -> None:
        """As the stock model's; raises `InputError` for a LoRA of the dense model, naming the command that cuts it."""
        lora = pretrained_model_name_or_path_or_dict
        if not isinstance(lora, Mapping):
            # Read here, so that it can be checked; names of other programs become diffusers' on the way.
            from diffusers.loaders.lora_pipeline import WanLoraLoaderMixin

            where = {name: kwargs.pop(name) for name in PLACE if name in kwargs}
            lora, kwargs["metadata"] = WanLoraLoaderMixin.lora_state_dict(lora, return_lora_metadata=True, **where)
        start = "" if prefix is None else f"{prefix}."
        own = {name.removeprefix(start): value for name, value in lora.items() if name.startswith(start)}
        check_lora(own, self.config)
        super().load_lora_adapter(dict(lora), prefix=prefix, **kwargs)  # type: ignore[misc]


def check_lora(lora: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Raises `InputError` with the command that helps when a LoRA does not have the widths of this model.

    `lora` maps names (diffusers' or peft's, with or without `transformer.`) to arrays or tensors, `config` is that of a
    stock or pruned transformer.

    >>> import numpy as np
    >>> config = {"num_layers": 1, "num_attention_heads": 4, "attention_head_dim": 12, "ffn_dim": 32, "self_heads": [3]}
    >>> check_lora({"transformer.blocks.0.attn1.to_q.lora_B.weight": np.zeros((48, 2))}, config)
    Traceback (most recent call last):
    ...
    pare.errors.InputError: LoRA, blocks.0.attn1.to_q: got 48 values; expected 36, those that this pruned model kept; \
fix: pare slice-lora LORA --mask MASK --out FILE
    """
    widths, head_dim = student.widths(config), config["attention_head_dim"]
    exact, pruned = config.get("qk_norm_mode") == "exact", student.is_pruned(config)
    for name, value in lora.items():
        found = LoraTensor.read(name)
        if found is None:
            continue
        check_block(name, found, len(widths))
        if found.axis is None:
            continue
        own = widths[found.block]
        heads = own.self_heads if found.part == "attn1" else own.cross_heads
        if exact and found.layer in BEFORE_NORM:
            heads = config["num_attention_heads"]
        width = own.neurons if found.part == "ffn" else heads * head_dim
        if value.shape[found.axis] != width:
            raise InputError(
                f"LoRA, blocks.{found.block}.{found.part}.{found.layer}",
                got=f"{value.shape[found.axis]} values",
                expected=f"{width}, those that this {'pruned model kept' if pruned else 'model has'}",
                fix=COMMAND if pruned else "use a LoRA that was made or cut for this model",
            )


def check_block(name: str, tensor: LoraTensor, blocks: int) -> None:
    """Raises `InputError` when a tensor belongs to a block that a model of so many blocks lacks."""
    if tensor.block >= blocks:
        raise InputError(
            f"LoRA, {name}",
            got=f"block {tensor.block}",
            expected=f"blocks 0 to {blocks - 1}",
            fix="use a LoRA of this model",
        )
