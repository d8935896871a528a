"""The demo model as a plain diffusers `WanPipeline` folder with `defaults.json` beside `model_index.json`."""

import copy
import json
import os
import shutil
from pathlib import Path

from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel
from transformers import PreTrainedTokenizerBase, UMT5EncoderModel

from pare.files import write_bytes
from workbench.demo.settings import DemoSettings


def defaults(settings: DemoSettings) -> dict[str, float | int]:
    """What `defaults.json` holds: clip size and sampling, so that no command needs flags for the demo model.

    >>> defaults(DemoSettings())["height"]
    48
    """
    data, inference = settings.data, settings.inference
    return {
        "height": data.height,
        "width": data.width,
        "frames": data.frames,
        "fps": data.fps,
        "steps": inference.steps,
        "guidance": inference.guidance,
        "shift": inference.shift,
    }


def in_half_precision(module: AutoencoderKLWan | WanTransformer3DModel) -> AutoencoderKLWan | WanTransformer3DModel:
    """A copy with float16 weights, but for the modules that diffusers keeps in float32 whatever is asked."""
    half = copy.deepcopy(module)
    kept = getattr(module, "_keep_in_fp32_modules", None) or []
    for name, parameter in half.named_parameters():
        if not any(part in name.split(".") for part in kept):
            parameter.data = parameter.data.half()
    return half


def export_pipeline(
    settings: DemoSettings,
    tokenizer: PreTrainedTokenizerBase,
    text_encoder: UMT5EncoderModel,
    vae: AutoencoderKLWan,
    transformer: WanTransformer3DModel,
    folder: Path,
) -> None:
    """Writes the pipeline folder and puts it in place of `folder` when it is whole; transformer and VAE in half precision."""
    scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=settings.inference.shift
    )
    fresh = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(fresh, ignore_errors=True)
    pipeline = WanPipeline(
        tokenizer=tokenizer, text_encoder=text_encoder, vae=vae, scheduler=scheduler, transformer=transformer
    )
    pipeline.save_pretrained(fresh)
    for part, module in (("vae", vae), ("transformer", transformer)):
        in_half_precision(module).save_pretrained(fresh / part)
        config = json.loads((fresh / part / "config.json").read_text())
        # Where a part was kept on the machine that built it is nobody's business.
        config.pop("_name_or_path", None)
        write_bytes(fresh / part / "config.json", (json.dumps(config, indent=2, sort_keys=True) + "\n").encode())
    write_bytes(fresh / "defaults.json", (json.dumps(defaults(settings), indent=1) + "\n").encode())
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.replace(folder, old)
    os.replace(fresh, folder)
    shutil.rmtree(old, ignore_errors=True)
