"""Load a Wan pipeline: from safetensors only, on the device and in the precision asked for."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import diffusers
import psutil
import torch
import transformers
from diffusers import WanImageToVideoPipeline, WanPipeline

# diffusers takes a class of ours only from a module that is there already; it imports none that a folder names.
import pare.transformer  # noqa: F401
from pare.errors import InputError
from pare.geometry import read_json
from pare.processes import Process
from pare.reference import check_pipeline, defaults, description_folder, model_geometry, model_identity, resolve
from pare.transformer import PareWanTransformer3DModel

__all__ = [
    "Pipeline",
    "check_device",
    "check_dtype",
    "defaults",
    "load_pipeline",
    "measure_speed",
    "model_geometry",
    "model_identity",
    "resolve",
    "set_flow_shift",
]

if TYPE_CHECKING:
    # diffusers' lazy names look to a type checker like the placeholders it uses when a package is missing.
    Pipeline: TypeAlias = Any
else:
    Pipeline = WanPipeline | WanImageToVideoPipeline

DTYPES: Mapping[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
OFFLOADS = ("none", "model", "group")
ATTENTIONS = ("native", "xformers")
# A component's library is imported by its name, so only these may be named.
LIBRARIES = ("diffusers", "transformers", "pare.transformer")


def load_pipeline(
    model: str,
    *,
    dtype: str = "auto",
    device: str = "auto",
    offload: str = "none",
    attention: str = "native",
    local_files_only: bool = False,
    transformer: bool = True,
) -> Pipeline:
    """The pipeline that `model` names (demo, a diffusers folder or a hub id), ready to call.

    `dtype` auto is bfloat16 on CUDA and float32 elsewhere; VAE and image encoder stay in float32, as Wan2.1 is
    published. `device` auto is cuda, mps or cpu, whichever is there first. Without `transformer` that part is not loaded:
    what encodes samples does not need it. Raises `InputError` for a name that has no
    weights, an incomplete folder, and a device, precision, offload or attention that this machine lacks.
    """
    reference = resolve(model)
    folder = description_folder(reference, local_files_only=local_files_only)
    index = read_json(folder / "model_index.json")
    pipeline_class = WanPipeline if check_pipeline(index) == "WanPipeline" else WanImageToVideoPipeline
    _check_libraries(index)
    target = check_device(device)
    precision = check_dtype(dtype, target)
    _check_placement(offload, attention, target)
    with _quiet():
        try:
            pipe = pipeline_class.from_pretrained(
                reference.path or reference.repo_id,
                revision=folder.name if reference.kind == "hub" else None,
                dtype={"vae": torch.float32, "image_encoder": torch.float32, "default": precision},
                use_safetensors=True,
                local_files_only=local_files_only or reference.kind != "hub",
                **({} if transformer else {"transformer": None}),
            )
        except (OSError, ValueError) as error:
            raise InputError(
                "MODEL",
                got=f"{model}, which cannot be loaded ({str(error).splitlines()[0]})",
                expected="a complete diffusers folder with safetensors weights",
                fix="save or fetch the model again",
            ) from error
        # Before anything is hooked onto it, so that it can be routed wherever it is placed; unrouted, it is the stock one.
        if transformer:
            pipe.transformer = PareWanTransformer3DModel.from_stock(pipe.transformer)
            pipe.transformer.set_attention_backend(attention)
    pipe.set_progress_bar_config(disable=True)
    if offload == "model":
        pipe.enable_model_cpu_offload(device=target)
    elif offload == "group":
        pipe.enable_group_offload(onload_device=target, offload_type="leaf_level", use_stream=False)
    else:
        pipe.to(target)
    return pipe


def set_flow_shift(pipe: Pipeline, shift: int | float) -> None:
    """Give the pipeline a scheduler with this timestep shift s: sigma = s·u / (1 + (s − 1)·u) for uniform u.

    Raises `InputError` when the scheduler knows no shift.
    """
    config = pipe.scheduler.config
    name = next((name for name in ("flow_shift", "shift") if name in config), None)
    if name is None:
        raise InputError(
            "--shift",
            got=type(pipe.scheduler).__name__,
            expected="a flow-matching scheduler with a shift",
            fix="use a model that is saved with UniPCMultistepScheduler or FlowMatchEulerDiscreteScheduler",
        )
    pipe.scheduler = type(pipe.scheduler).from_config(config, **{name: shift})


def check_device(device: str) -> torch.device:
    """The device that `device` names, auto being the fastest one here; raises `InputError` when it is not here.

    >>> check_device("cpu")
    device(type='cpu')
    """
    present = available_devices()
    if device == "auto":
        return torch.device(present[0])
    if device not in present and f"{device}:0" not in present:
        raise InputError("--device", got=device, expected=f"auto or one of {', '.join(present)}", fix="--device auto")
    return torch.device(device)


def device_of(device: str, process: Process) -> torch.device:
    """The device of one of several processes: where any GPU would do, each takes its own. Raises `InputError` as above.

    >>> device_of("cpu", Process(1, 2, 1))
    device(type='cpu')
    """
    found = check_device(device)
    if found.type == "cuda" and device in ("auto", "cuda") and process.count > 1:
        return check_device(f"cuda:{process.local_rank}")
    return found


def available_devices() -> list[str]:
    """Devices of this machine, fastest first: cuda:0, …, mps, cpu."""
    devices = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        devices.append("mps")
    return [*devices, "cpu"]


def check_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """The precision that `dtype` names, auto being bfloat16 on CUDA and float32 elsewhere.

    >>> check_dtype("auto", torch.device("cpu"))
    torch.float32
    """
    if dtype == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    if dtype not in DTYPES:
        raise InputError("--dtype", got=dtype, expected=f"auto or one of {', '.join(DTYPES)}", fix="--dtype auto")
    return DTYPES[dtype]


def memory_of(device: torch.device, *, free: bool) -> int:
    """Bytes of memory of a device, those that are free or all.

    >>> memory_of(torch.device("cpu"), free=True) <= memory_of(torch.device("cpu"), free=False)
    True
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0 if free else 1]
    memory = psutil.virtual_memory()
    return memory.available if free else memory.total


def measure_speed(device: torch.device, dtype: torch.dtype, seconds: float = 0.2) -> float:
    """Floating-point operations per second of a large matrix product here, measured for `seconds`.

    >>> measure_speed(torch.device("cpu"), torch.float32, seconds=0.01) > 1e6
    True
    """
    size = 4096 if device.type == "cuda" else 512
    matrix = torch.ones(size, size, device=device, dtype=dtype)
    _finish(matrix @ matrix)
    done, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        _finish(matrix @ matrix)
        done += 1
    return done * 2 * size**3 / (time.perf_counter() - start)


def _finish(result: torch.Tensor) -> None:
    # Reading one value waits for the device.
    result[0, 0].item()


def _check_placement(offload: str, attention: str, device: torch.device) -> None:
    for flag, value, choices in (("--offload", offload, OFFLOADS), ("--attention", attention, ATTENTIONS)):
        if value not in choices:
            raise InputError(flag, got=value, expected=f"one of {', '.join(choices)}", fix=f"{flag} {choices[0]}")
    if offload != "none" and device.type == "cpu":
        raise InputError(
            "--offload", got=f"{offload} with the device cpu", expected="an accelerator", fix="--offload none"
        )
    if attention == "xformers" and device.type != "cuda":
        raise InputError(
            "--attention", got=f"xformers on {device.type}", expected="a CUDA device", fix="--attention native"
        )


def _check_libraries(index: Mapping[str, Any]) -> None:
    for name, entry in index.items():
        library = entry[0] if isinstance(entry, list) and entry else None
        if library is not None and library not in LIBRARIES:
            raise InputError(
                f"model_index.json, {name}",
                got=library,
                expected=f"a component of {', '.join(LIBRARIES)}",
                fix="use a model without code of its own",
            )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the libraries' own bars and notices off standard error, where progress and one-line errors go."""
    ours, theirs = diffusers.utils.logging, transformers.utils.logging
    levels = ours.get_verbosity(), theirs.get_verbosity()
    bars = ours.is_progress_bar_enabled(), theirs.is_progress_bar_enabled()
    for module in (ours, theirs):
        module.set_verbosity_error()
        module.disable_progress_bar()
    try:
        yield
    finally:
        for module, level, bar in zip((ours, theirs), levels, bars, strict=True):
            module.set_verbosity(level)
            if bar:
                module.enable_progress_bar()
