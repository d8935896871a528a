"""Shapes of a Wan video diffusion transformer: presets, latent frames, tokens; from JSON alone, without weights."""

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pare.errors import InputError

DEMO = Path(__file__).resolve().parents[1] / "data" / "demo"

# diffusers' Wan pipelines refuse other multiples, whatever the VAE.
PIPELINE_MULTIPLE = 16


@dataclass(frozen=True)
class Geometry:
    """Sizes of a transformer and of the VAE and encoders that surround it.

    `ffn` is the number of neurons; `patch` is (frames, height, width) in latent cells; `image_tokens` and `image_dim`
    describe the image encoder of an image-to-video model; `vae_spatial` and `vae_temporal` are the VAE's reductions.

    >>> wan = PRESETS["wan2.1-t2v-14b"].geometry
    >>> wan.dim, wan.blocks, wan.image_to_video
    (5120, 40, False)
    """

    blocks: int
    heads: int
    head_dim: int
    ffn: int
    in_channels: int
    out_channels: int
    text_dim: int
    freq_dim: int = 256
    patch: tuple[int, int, int] = (1, 2, 2)
    image_dim: int | None = None
    added_kv_proj_dim: int | None = None
    text_tokens: int = 512
    image_tokens: int = 257
    vae_spatial: int = 8
    vae_temporal: int = 4
    latent_channels: int = 16
    cross_attn_norm: bool = True
    pos_embed_tokens: int | None = None
    max_positions: int = 1024

    @property
    def dim(self) -> int:
        """Width of the residual stream: heads x head_dim."""
        return self.heads * self.head_dim

    @property
    def image_to_video(self) -> bool:
        """Whether the model is conditioned on an image, so that it takes more channels than it returns."""
        return self.image_dim is not None or self.in_channels != self.out_channels

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON values; `Geometry.from_dict` reads them back."""
        return dataclasses.asdict(self) | {"patch": list(self.patch)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Geometry":
        """The geometry that `to_dict` wrote.

        >>> wan = PRESETS["wan2.1-i2v-14b"].geometry
        >>> Geometry.from_dict(wan.to_dict()) == wan
        True
        """
        names = {each.name for each in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - names):
            raise InputError(
                "geometry", got=f"unknown fields {unknown}", expected=f"fields of {sorted(names)}", fix="remove them"
            )
        return cls(**{**values, "patch": tuple(values.get("patch", (1, 2, 2)))})

    @classmethod
    def from_config(
        cls,
        transformer_config: Mapping[str, Any],
        vae_config: Mapping[str, Any] | None = None,
        image_encoder_config: Mapping[str, Any] | None = None,
    ) -> "Geometry":
        """The geometry in diffusers' `transformer/config.json`, `vae/config.json` and `image_encoder/config.json`.

        Without a VAE config, Wan2.1's reductions of 8 in space and 4 in time hold. Raises `InputError` when a field is
        missing or when frames are patched together, for which latent frames are not defined.

        >>> Geometry.from_config({"num_layers": 2, "num_attention_heads": 4, "attention_head_dim": 12, "ffn_dim": 32,
        ...     "in_channels": 4, "out_channels": 4, "text_dim": 16}).dim
        48
        """
        names = {
            "blocks": "num_layers",
            "heads": "num_attention_heads",
            "head_dim": "attention_head_dim",
            "ffn": "ffn_dim",
            "in_channels": "in_channels",
            "text_dim": "text_dim",
        }
        missing = sorted(name for name in names.values() if not isinstance(transformer_config.get(name), int))
        if missing:
            raise InputError(
                "transformer config",
                got=f"no whole number for {', '.join(missing)}",
                expected="the config.json of a WanTransformer3DModel",
                fix="point to a Wan model saved by diffusers",
            )
        patch = tuple(transformer_config.get("patch_size") or (1, 2, 2))
        if len(patch) != 3 or patch[0] != 1:
            raise InputError(
                "patch_size", got=patch, expected="(1, height, width)", fix="use a model that does not merge frames"
            )
        vae, encoder = vae_config or {}, image_encoder_config or {}
        out_channels = transformer_config.get("out_channels") or transformer_config["in_channels"]
        return cls(
            **{field_name: transformer_config[name] for field_name, name in names.items()},
            out_channels=out_channels,
            freq_dim=transformer_config.get("freq_dim", 256),
            patch=patch,
            image_dim=transformer_config.get("image_dim"),
            added_kv_proj_dim=transformer_config.get("added_kv_proj_dim"),
            image_tokens=_image_tokens(encoder),
            vae_spatial=vae.get("scale_factor_spatial") or 8,
            vae_temporal=vae.get("scale_factor_temporal") or 4,
            latent_channels=vae.get("z_dim", out_channels),
            cross_attn_norm=transformer_config.get("cross_attn_norm", True),
            pos_embed_tokens=transformer_config.get("pos_embed_seq_len"),
            max_positions=transformer_config.get("rope_max_seq_len", 1024),
        )


@dataclass(frozen=True)
class Clip:
    """Size of a video: height and width in pixels, length in video frames."""

    height: int
    width: int
    frames: int


@dataclass(frozen=True)
class Preset:
    """A published model by name: its geometry, its hub id and how it is usually sampled."""

    geometry: Geometry
    repo_id: str
    defaults: Mapping[str, int | float] = field(hash=False)


def latent_frames(geometry: Geometry, frames: int) -> int:
    """Latent frames of a clip of `frames` video frames: (frames - 1) / vae_temporal + 1.

    >>> latent_frames(PRESETS["wan2.1-t2v-14b"].geometry, 81)
    21
    """
    return (frames - 1) // geometry.vae_temporal + 1


def tokens_per_frame(geometry: Geometry, height: int, width: int) -> int:
    """Tokens of one latent frame of a `height` x `width` pixel clip.

    >>> tokens_per_frame(PRESETS["wan2.1-t2v-14b"].geometry, 480, 832)
    1560
    """
    cell_height, cell_width = (geometry.vae_spatial * patch for patch in geometry.patch[1:])
    return (height // cell_height) * (width // cell_width)


def tokens(geometry: Geometry, clip: Clip) -> int:
    """Tokens that the transformer sees for one clip: latent frames x tokens per frame.

    >>> tokens(PRESETS["wan2.1-t2v-14b"].geometry, Clip(720, 1280, 81))
    75600
    """
    return latent_frames(geometry, clip.frames) * tokens_per_frame(geometry, clip.height, clip.width)


def check_clip(geometry: Geometry, clip: Clip) -> None:
    """Raises `InputError` for a clip that the model cannot make, naming the nearest size that works.

    >>> check_clip(PRESETS["wan2.1-t2v-1.3b"].geometry, Clip(480, 832, 80))
    Traceback (most recent call last):
    ...
    pare.errors.InputError: --frames: got 80; expected a number of video frames of the form 4n + 1; fix: --frames 81
    """
    sizes = (("--height", clip.height, geometry.patch[1]), ("--width", clip.width, geometry.patch[2]))
    for flag, pixels, patch in sizes:
        cell = geometry.vae_spatial * patch
        multiple, largest = math.lcm(PIPELINE_MULTIPLE, cell), geometry.max_positions * cell
        nearest = _nearest(pixels, multiple, offset=0, largest=largest)
        if pixels != nearest:
            limit = f" up to {largest}" if pixels > largest else ""
            raise InputError(
                flag, got=pixels, expected=f"a positive multiple of {multiple} pixels{limit}", fix=f"{flag} {nearest}"
            )
    largest = (geometry.max_positions - 1) * geometry.vae_temporal + 1
    nearest = _nearest(clip.frames, geometry.vae_temporal, offset=1, largest=largest)
    if clip.frames != nearest:
        limit = f" up to {largest}" if clip.frames > largest else ""
        raise InputError(
            "--frames",
            got=clip.frames,
            expected=f"a number of video frames of the form {geometry.vae_temporal}n + 1{limit}",
            fix=f"--frames {nearest}",
        )


def flow_shift(clip: Clip) -> float:
    """The timestep shift that Wan2.1 is sampled with: 5.0 from 720p on, 3.0 below.

    >>> flow_shift(Clip(480, 832, 81)), flow_shift(Clip(720, 1280, 81))
    (3.0, 5.0)
    """
    return 5.0 if clip.height * clip.width >= 720 * 1280 else 3.0


def read_geometry(folder: str | Path) -> Geometry:
    """The geometry of a diffusers pipeline folder, from its JSON files alone.

    Raises `InputError` when the folder or its `transformer/config.json` is missing or unreadable.
    """
    folder = Path(folder)
    transformer = read_json(folder / "transformer" / "config.json")
    parts = {}
    for name in ("vae", "image_encoder"):
        path = folder / name / "config.json"
        parts[name] = read_json(path) if path.is_file() else None
    return Geometry.from_config(transformer, parts["vae"], parts["image_encoder"])


def read_json(path: Path) -> dict[str, Any]:
    """One JSON object from a file; raises `InputError` when there is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else type(error).__name__
        raise InputError(
            str(path), got=reason, expected="a readable JSON file", fix="point to a complete diffusers folder"
        ) from error
    if not isinstance(value, dict):
        raise InputError(str(path), got=type(value).__name__, expected="one JSON object", fix="repair the file")
    return value


def _image_tokens(encoder: Mapping[str, Any]) -> int:
    if "image_size" not in encoder or "patch_size" not in encoder:
        return 257
    # One token per patch and the class token.
    return (encoder["image_size"] // encoder["patch_size"]) ** 2 + 1


def _nearest(value: int, multiple: int, offset: int, largest: int) -> int:
    """The value of the form multiple x n + offset, n >= (1 if offset == 0 else 0), that is nearest to `value`."""
    lowest = 0 if offset else 1
    highest = (largest - offset) // multiple
    steps = math.floor((value - offset) / multiple + 0.5)
    return min(max(steps, lowest), highest) * multiple + offset


def _preset(repo_id: str, steps: int, guidance: float, **sizes: Any) -> Preset:
    common: dict[str, Any] = {"head_dim": 128, "out_channels": 16, "text_dim": 4096}
    defaults = {
        "height": 480, "width": 832, "frames": 81, "fps": 16, "steps": steps, "guidance": guidance, "shift": 3.0,
    }  # fmt: skip
    return Preset(Geometry(**common, **sizes), repo_id, MappingProxyType(defaults))


PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "wan2.1-t2v-14b": _preset(
            "Wan-AI/Wan2.1-T2V-14B-Diffusers", 50, 5.0, blocks=40, heads=40, ffn=13824, in_channels=16
        ),
        "wan2.1-t2v-1.3b": _preset(
            "Wan-AI/Wan2.1-T2V-1.3B-Diffusers", 50, 6.0, blocks=30, heads=12, ffn=8960, in_channels=16
        ),
        "wan2.1-i2v-14b": _preset(
            "Wan-AI/Wan2.1-I2V-14B-480P-Diffusers",
            40,
            5.0,
            blocks=40,
            heads=40,
            ffn=13824,
            in_channels=36,
            image_dim=1280,
            added_kv_proj_dim=5120,
        ),
    }
)
