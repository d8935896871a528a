"""The settings of a mask: one definition of each flag, for Python, the app and the command line."""

from collections.abc import Callable, Mapping
from typing import Any, Self

import pydantic
from pydantic import Field

from pare.errors import InputError
from workbench.settings import input_error, with_flags

UNPROTECTED = ("random", "temporal_attention")
"""Scorers whose α is 1 unless it is given: the control, and what ranks by attention in time itself."""


class MaskSettings(pydantic.BaseModel):
    """Everything that decides a mask; the defaults are what PARE did.

    >>> MaskSettings.of(ratio=0.5).scorer
    'pare'
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, defer_build=True)

    ratio: float = Field(0.3, description="Share p of heads and of neurons to remove, from 0 to below 1.")
    self_ratio: float | None = Field(None, description="Another p for self-attention heads.")
    cross_ratio: float | None = Field(None, description="Another p for cross-attention heads.")
    neuron_ratio: float | None = Field(None, description="Another p for neurons.")
    target_parameters: float | None = Field(None, description="Find the p that leaves at most so many parameters.")
    target_flops: float | None = Field(None, description="Find the p that leaves at most so many FLOPs per forward.")
    target_gib: float | None = Field(None, description="Find the p that fits weights and activations in so many GiB.")
    scorer: str = Field(
        "pare", description="pare, projected_energy, temporal_attention, magnitude, random, FILE or FILE#COLUMN."
    )
    alpha: float | None = Field(
        None, description="Protection of temporal heads; default: 1.5, for random and temporal_attention 1."
    )
    tau_s: float = Field(0.7, description="A head is spatial above this ratio.")
    tau_t: float = Field(0.3, description="A head is temporal below this ratio.")
    min_heads: int | None = Field(None, description="Heads that every block keeps at least; default: 8 of 40.")
    allocation: str = Field("uniform", description="uniform, or over all blocks: global, global-l2.")
    neurons: str = Field("pare", description="pare, activation, magnitude, random, or none to keep all.")
    tau_ffn: float = Field(0.9, description="Neurons more alike than this cosine are passed over at first.")
    neuron_multiple: int | None = Field(None, description="Align neurons to this; default: 128, in small models 8.")
    branch: str | None = Field(None, description="cond or uncond; default: both.")
    seed: int = Field(0, description="Seed of random choices.")
    dtype: str = Field("bfloat16", description="Precision that memory is counted in.")
    height: int | None = Field(None, description="Pixels that cost is counted for; default: the run's or the model's.")
    width: int | None = Field(None, description="Pixels that cost is counted for; default: the run's or the model's.")
    frames: int | None = Field(None, description="Video frames that cost is counted for; default: the same.")

    @classmethod
    def of(cls, preset: str | None = None, **values: Any) -> Self:
        """The settings of a preset, if one is named, changed by what is given; InputError in place of pydantic's."""
        if preset is not None and preset not in PRESETS:
            raise InputError("--preset", got=preset, expected=f"one of {', '.join(PRESETS)}", fix="--preset paper")
        try:
            return cls(**{**(PRESETS[preset] if preset else {}), **values})
        except pydantic.ValidationError as error:
            raise input_error(error, cls) from error

    @property
    def protection(self) -> float:
        """The α that holds: as given, else 1.5, else 1 for the random control and for what ranks by attention in time."""
        if self.alpha is not None:
            return self.alpha
        return 1.0 if self.scorer in UNPROTECTED else 1.5


PRESETS: Mapping[str, Mapping[str, Any]] = {
    "paper": {
        "ratio": 0.3,
        "scorer": "pare",
        "alpha": 1.5,
        "tau_s": 0.7,
        "tau_t": 0.3,
        "allocation": "uniform",
        "neurons": "pare",
        "tau_ffn": 0.9,
    }
}
"""Settings by name; `paper` is what PARE did, its floor of 8 heads in proportion and its alignment by the model's size."""


def with_mask_flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a typer command that takes `**settings` one option for every field of `MaskSettings`."""
    return with_flags(command, MaskSettings)


def changed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The flags that were set to something else than their default, so that a preset's own values hold.

    >>> changed({"ratio": 0.5, "scorer": "pare"})
    {'ratio': 0.5}
    """
    fields = MaskSettings.model_fields
    return {name: value for name, value in settings.items() if value != fields[name].default}
