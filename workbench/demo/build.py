"""Builds the demo model from nothing: `python -m workbench.demo.build` (or `make demo`).

Stages, each kept in the user's cache folder and skipped when it is finished: VAE, latents, transformer, the pipeline folder, the
bundled run. A build that is killed at any moment continues where its last state was saved and ends with the same weights.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan

from pare.errors import InputError
from pare.files import write_bytes
from pare.progress import Progress, silent
from workbench.demo.export import export_pipeline
from workbench.demo.flow import train_transformer
from workbench.demo.latents import build_pool, caption_embeddings, every_caption, latent_statistics
from workbench.demo.settings import DemoSettings
from workbench.demo.text import build_text_encoder, build_tokenizer
from workbench.demo.vae import train_vae


def cache_folder() -> Path:
    """Where states are kept: the user's cache folder, outside the work tree."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pare-workbench" / "demo"


def finished_vae(settings: DemoSettings, cache: Path, progress: Progress) -> AutoencoderKLWan:
    """The trained VAE with its latent statistics, from the cache when an earlier build with the same settings finished it."""
    record = {"vae": asdict(settings.vae), "data": asdict(settings.data)}
    folder, marker = cache / "vae" / "model", cache / "vae" / "finished.json"
    if marker.exists():
        if json.loads(marker.read_text()) != json.loads(json.dumps(record)):
            raise InputError(
                f"the VAE kept in {cache / 'vae'}",
                got="one made with other settings",
                expected="the settings of workbench/demo/settings.py",
                fix="remove that folder, or name another with --cache",
            )
        return AutoencoderKLWan.from_pretrained(folder).eval()
    vae = train_vae(settings.data, settings.vae, cache / "vae", progress)
    mean, std = latent_statistics(vae, settings.data, settings.vae.statistics_clips)
    vae.register_to_config(latents_mean=mean, latents_std=std)
    vae.save_pretrained(folder)
    write_bytes(marker, json.dumps(record, indent=1).encode())
    return vae


def build(
    out: Path,
    *,
    settings: DemoSettings | None = None,
    cache: Path | None = None,
    progress: Callable[[str], Progress] = lambda stage: silent,
) -> None:
    """Builds the pipeline folder `out`, resuming from `cache`.

    Args: `progress`: stage name -> the progress callback of that stage.
    """
    settings = settings or DemoSettings()
    cache = cache or cache_folder()
    tokenizer, text_encoder = build_tokenizer(settings.text), build_text_encoder(settings.text)
    vae = finished_vae(settings, cache, progress("VAE"))
    pool = build_pool(vae, settings.data, settings.flow.clips, False, cache / "latents", progress("latents"))
    held_out = build_pool(
        vae, settings.data, settings.flow.held_out_clips, True, cache / "latents", progress("held-out latents")
    )
    embeddings = caption_embeddings(tokenizer, text_encoder, every_caption(), settings.flow.kept_text_tokens)
    transformer = train_transformer(
        settings, pool, held_out, embeddings, cache / "transformer", progress("transformer")
    )
    export_pipeline(settings, tokenizer, text_encoder, vae, transformer, out)


def main() -> None:
    """The command line of the build."""
    parser = argparse.ArgumentParser(prog="python -m workbench.demo.build", description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[2] / "data" / "demo")
    parser.add_argument("--cache", type=Path, default=cache_folder(), help="folder of the resumable states")
    parser.add_argument("--steps", type=int, help="training steps of the transformer (default: as in settings.py)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; give it only cores that are free")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    settings = DemoSettings()
    if arguments.steps is not None:
        settings = replace(settings, flow=replace(settings.flow, steps=arguments.steps))

    def report(stage: str) -> Progress:
        from workbench.demo.report import StageReport

        return StageReport(stage, sys.stderr)

    try:
        build(arguments.out, settings=settings, cache=arguments.cache, progress=report)
    except InputError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
