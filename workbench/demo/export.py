"""The demo model as a plain diffusers `WanPipeline` folder with `defaults.json` beside `model_index.json`."""

import json
import os
import shutil
from pathlib import Path

import torch
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


def export_pipeline(
    settings: DemoSettings,
    tokenizer: PreTrainedTokenizerBase,
    text_encoder: UMT5EncoderModel,
    vae: AutoencoderKLWan,
    transformer: WanTransformer3DModel,
    folder: Path,
) -> None:
    """Writes the pipeline folder (transformer and VAE in float16) and puts it in place of `folder` when it is whole."""
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
        module_half = type(module).from_config(module.config)
        module_half.load_state_dict(module.state_dict())
        module_half.to(torch.float16).save_pretrained(fresh / part)
    write_bytes(fresh / "defaults.json", (json.dumps(defaults(settings), indent=1) + "\n").encode())
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.replace(folder, old)
    os.replace(fresh, folder)
    shutil.rmtree(old, ignore_errors=True)
