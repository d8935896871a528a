"""What MODEL means: the bundled demo, a diffusers folder, a hub id or a preset; its files' identity and defaults."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pare.errors import InputError
from pare.geometry import DEMO, PRESETS, Clip, Geometry, flow_shift, read_geometry, read_json

Kind: TypeAlias = Literal["demo", "folder", "hub", "preset"]

PIPELINES = ("WanPipeline", "WanImageToVideoPipeline")
# Everything that describes a model without its weights.
DESCRIPTION = ["model_index.json", "defaults.json", "*/*config.json"]
HUB_SECONDS = 10
# Trainings of one shape differ in no header and no size, so a few bytes of the weights themselves count too.
SAMPLED_WINDOWS, WINDOW_BYTES = 16, 4096


@dataclass(frozen=True)
class ModelRef:
    """A model that is named but not loaded: where it is, or, for a preset, what shape it has."""

    name: str
    kind: Kind
    path: Path | None = None
    repo_id: str | None = None
    geometry: Geometry | None = None


def resolve(model: str) -> ModelRef:
    """What the name `model` stands for: `demo`, a preset, an existing folder, or a hub id, in this order.

    Nothing is downloaded. Raises `InputError` for a name that is none of them.

    >>> resolve("wan2.1-t2v-14b").kind
    'preset'
    >>> resolve("Wan-AI/Wan2.1-T2V-14B-Diffusers").kind
    'hub'
    """
    if model == "demo":
        return ModelRef(model, "demo", path=_pipeline_folder(DEMO, "make demo builds it"))
    if model in PRESETS:
        return ModelRef(model, "preset", repo_id=PRESETS[model].repo_id, geometry=PRESETS[model].geometry)
    path = Path(model).expanduser()
    if model and path.is_dir():
        return ModelRef(_folder_name(path), "folder", path=_pipeline_folder(path, "name a folder saved by diffusers"))
    if re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", model) and not path.exists():
        return ModelRef(model, "hub", repo_id=model)
    raise InputError(
        "MODEL",
        got=model or "an empty name",
        expected=f"demo, a diffusers folder, a hub id (owner/name) or one of {', '.join(PRESETS)}",
        fix="check the spelling, or give the path of an existing folder",
    )


def description_folder(model: str | ModelRef, *, local_files_only: bool = False) -> Path:
    """A folder with the model's JSON files; those of a hub id come from the local cache or are downloaded.

    Raises `InputError` for a preset, which has no files, and for a hub id that cannot be reached.
    """
    reference = resolve(model) if isinstance(model, str) else model
    if reference.path is not None:
        return reference.path
    if reference.kind == "preset":
        raise InputError(
            "MODEL",
            got=f"{reference.name}, a preset, which has shapes but no weights",
            expected="demo, a diffusers folder or a hub id",
            fix=f"use {reference.repo_id}",
        )
    assert reference.repo_id is not None
    return _hub_description(reference.repo_id, local_files_only)


def weights_folder(model: str | ModelRef) -> Path:
    """The folder on this machine that holds all of the transformer's safetensors; nothing is downloaded.

    Raises `InputError` for a preset, a hub id that is not in the local cache, and a folder where files are missing.
    """
    reference = resolve(model) if isinstance(model, str) else model
    folder = description_folder(reference, local_files_only=True) / "transformer"
    index = folder / "diffusion_pytorch_model.safetensors.index.json"
    shards = {folder / name for name in read_json(index)["weight_map"].values()} if index.is_file() else set()
    missing = sorted(path.name for path in shards if not path.is_file())
    if missing or not any(folder.glob("*.safetensors")):
        fetch = f"hf download {reference.repo_id}" if reference.kind == "hub" else "save or fetch the model again"
        raise InputError(
            "MODEL",
            got=f"{reference.name} without {missing[0] if missing else 'safetensors weights'} on this machine",
            expected="a complete transformer folder",
            fix=fetch,
        )
    return folder


def model_geometry(model: str | ModelRef) -> Geometry:
    """The geometry of any model, from its JSON files or its preset.

    >>> model_geometry("wan2.1-t2v-1.3b").blocks
    30
    """
    reference = resolve(model) if isinstance(model, str) else model
    if reference.geometry is not None:
        return reference.geometry
    folder = description_folder(reference)
    check_pipeline(read_json(folder / "model_index.json"))
    return read_geometry(folder)


def cost_arguments(model: str | ModelRef) -> dict[str, Any]:
    """What `pare.cost` is to be told of a model beside its geometry: the widths of a pruned one, nothing for others.

    >>> cost_arguments("wan2.1-t2v-1.3b")
    {}
    """
    reference = resolve(model) if isinstance(model, str) else model
    if reference.kind == "preset":
        return {}
    # With it comes numpy, which the command line does not need to start.
    from pare import student

    return student.cost_arguments(read_json(description_folder(reference) / "transformer" / "config.json"))


def check_pipeline(index: Mapping[str, Any]) -> str:
    """The pipeline class that a `model_index.json` names; raises `InputError` unless it is a Wan2.1 pipeline."""
    name = index.get("_class_name")
    if name not in PIPELINES:
        raise InputError(
            "model_index.json", got=name, expected=f"one of {', '.join(PIPELINES)}", fix="use a Wan2.1 model"
        )
    two_stages = index.get("boundary_ratio") is not None or any(index.get("transformer_2") or [])
    if two_stages or index.get("expand_timesteps"):
        raise InputError(
            "model_index.json",
            got="a second transformer" if two_stages else "per-token timesteps",
            expected="one transformer and one timestep per step, as in Wan2.1",
            fix="use a Wan2.1 model",
        )
    return str(name)


def defaults(model: str | ModelRef, *, height: int | None = None, width: int | None = None) -> dict[str, Any]:
    """How the model is usually sampled: `defaults.json` beside `model_index.json`, else the preset of its geometry.

    The size, where given, decides the shift that a preset suggests. A model with neither gets an empty dict.

    >>> defaults("wan2.1-t2v-14b")["shift"], defaults("wan2.1-t2v-14b", height=720, width=1280)["shift"]
    (3.0, 5.0)
    """
    reference = resolve(model) if isinstance(model, str) else model
    if reference.kind != "preset":
        path = description_folder(reference) / "defaults.json"
        if path.is_file():
            return read_json(path)
    geometry = model_geometry(reference)
    for preset in PRESETS.values():
        if preset.geometry == geometry:
            clip = Clip(height or int(preset.defaults["height"]), width or int(preset.defaults["width"]), 1)
            return dict(preset.defaults) | {"shift": flow_shift(clip)}
    return {}


def model_identity(model: str | ModelRef) -> dict[str, str | None]:
    """Which model this is, for every file that is made from it: model_id, revision, config_hash, weight_hash.

    `config_hash` covers the transformer's configuration; `weight_hash` the sizes, the safetensors headers and a few
    sampled windows of the transformer's files, or the hub's commit, which pins them; None where unknown.
    """
    reference = resolve(model) if isinstance(model, str) else model
    folder = description_folder(reference)
    config = read_json(folder / "transformer" / "config.json")
    # Keys with an underscore tell where and by what version a file was saved, not what it holds.
    public = {name: value for name, value in config.items() if not name.startswith("_")}
    revision = folder.name if reference.kind == "hub" else None
    return {
        "model_id": reference.repo_id or reference.name,
        "revision": revision,
        "config_hash": hashlib.sha256(json.dumps(public, sort_keys=True).encode()).hexdigest(),
        "weight_hash": _hash(revision) if revision else _weight_hash(folder / "transformer"),
    }


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _weight_hash(folder: Path) -> str | None:
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        return None
    digest = hashlib.sha256()
    for path in files:
        size = path.stat().st_size
        digest.update(f"{path.name} {size}\n".encode())
        with path.open("rb") as file:
            # The first eight bytes of a safetensors file are the length of its JSON header.
            header = int.from_bytes(file.read(8), "little")
            if header > size - 8:
                raise InputError(str(path), got="a damaged header", expected="a safetensors file", fix="fetch it again")
            digest.update(file.read(header))
            start, stop = 8 + header, max(8 + header, size - WINDOW_BYTES)
            for window in range(SAMPLED_WINDOWS):
                file.seek(start + (stop - start) * window // (SAMPLED_WINDOWS - 1))
                digest.update(file.read(WINDOW_BYTES))
    return digest.hexdigest()


def _pipeline_folder(path: Path, fix: str) -> Path:
    if not (path / "model_index.json").is_file():
        raise InputError(
            "MODEL", got=f"{path}, which has no model_index.json", expected="a diffusers pipeline folder", fix=fix
        )
    return path


def _folder_name(path: Path) -> str:
    return path.resolve().name


def _hub_description(repo_id: str, local_files_only: bool) -> Path:
    import httpx2
    import huggingface_hub
    from huggingface_hub import errors

    try:
        folder = Path(huggingface_hub.snapshot_download(repo_id, local_files_only=True, allow_patterns=DESCRIPTION))
        if all((folder / name).is_file() for name in ("model_index.json", "transformer/config.json")):
            return folder
    except errors.HFValidationError as error:
        raise _hub_error(repo_id, "not a valid hub id", "owner/name", "check the spelling") from error
    except (errors.LocalEntryNotFoundError, errors.IncompleteSnapshotError):
        pass
    offline = "a model in the local hub cache, or a connection to the hub"
    fix = "connect once, or copy the model here and give its folder (demo needs no download)"
    if local_files_only or huggingface_hub.constants.HF_HUB_OFFLINE:
        raise _hub_error(repo_id, "not in the local hub cache, and no download is allowed", offline, fix)
    try:
        # One quick question first: the downloads that follow would retry for half a minute without a connection.
        revision = huggingface_hub.HfApi().model_info(repo_id, timeout=HUB_SECONDS).sha
        return Path(huggingface_hub.snapshot_download(repo_id, revision=revision, allow_patterns=DESCRIPTION))
    except errors.GatedRepoError as error:
        raise _hub_error(repo_id, "a gated model", "access to it", "accept its terms and run hf auth login") from error
    except errors.RepositoryNotFoundError as error:
        raise _hub_error(
            repo_id, "neither an existing folder nor a model on the hub", "an existing model", "check the spelling"
        ) from error
    except (httpx2.HTTPError, errors.HfHubHTTPError, errors.LocalEntryNotFoundError, OSError) as error:
        raise _hub_error(
            repo_id, f"not in the local hub cache, and no hub ({type(error).__name__})", offline, fix
        ) from error


def _hub_error(repo_id: str, got: str, expected: str, fix: str) -> InputError:
    return InputError("MODEL", got=f"{repo_id}: {got}", expected=expected, fix=fix)
