"""Videos and captions encoded once: latents, text and image embeddings, as the transformer sees them in the pipeline."""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from analysis.film import read_clip
from analysis.generation import encode
from pare.errors import InputError
from pare.geometry import Geometry
from pare.processes import Process
from pare.progress import Progress
from pare.training.data import write_samples

TEXTS = 64
"""How many embeddings are held, 4 MB each for Wan2.1."""


class Encoder:
    """Encodes samples of a pipeline, which needs no transformer; `last_frame`: its transformer was trained for two images.

    A text that came up lately is not encoded again; all of a large data set would not fit into memory.
    """

    def __init__(self, pipe: Any, settings: Mapping[str, Any], *, last_frame: bool = False):
        self.pipe, self.settings, self.last_frame = pipe, settings, last_frame
        self.device = pipe._execution_device
        self.text = lru_cache(maxsize=TEXTS)(self._text)

    @torch.no_grad()
    def _text(self, caption: str) -> torch.Tensor:
        """The embedding [tokens, dim] of a text, padded as the pipeline pads it."""
        found, _ = self.pipe.encode_prompt(
            caption, do_classifier_free_guidance=False, max_sequence_length=512, device=self.device
        )
        return found[0].cpu()

    @torch.no_grad()
    def sample(self, frames: np.ndarray, caption: str) -> dict[str, torch.Tensor]:
        """Tensors of a clip of uint8 [frames, height, width, 3] and its caption; an image-to-video model is conditioned
        on the clip's own first frame, and on its last one where it was trained for two."""
        parts = {"latents": encode(self.pipe, frames)[0], "text": self.text(caption)}
        if getattr(self.pipe, "image_encoder", None) is None:
            return parts
        last = self.last_frame
        images = [Image.fromarray(frames[0]), *([Image.fromarray(frames[-1])] if last else [])]
        height, width, _ = frames.shape[1:]
        pixels = [
            self.pipe.video_processor.preprocess(image, height=height, width=width).to(self.device, torch.float32)
            for image in images
        ]
        _, condition = self.pipe.prepare_latents(
            pixels[0],
            1,
            self.pipe.vae.config.z_dim,
            height,
            width,
            len(frames),
            torch.float32,
            self.device,
            latents=parts["latents"][None],
            last_image=pixels[1] if last else None,
        )
        embedded = self.pipe.encode_image(images if last else images[0], self.device)
        return parts | {"image": embedded, "condition": condition[0]}


def encode_data(
    pipe: Any,
    out: str | Path,
    clips: Callable[[int], np.ndarray],
    captions: Sequence[str],
    *,
    settings: Mapping[str, Any],
    identity: Mapping[str, Any],
    source: Mapping[str, Any],
    geometry: Geometry,
    process: Process,
    progress: Progress,
) -> None:
    """Write the samples of `clips` (index -> uint8 frames) and their captions into `out`; a second call goes on."""
    encoder = Encoder(pipe, settings, last_frame=geometry.pos_embed_tokens is not None)
    empty_text = settings.get("negative_prompt") or ""
    about = {
        "model": dict(identity),
        "clip": {name: settings[name] for name in ("height", "width", "frames", "fps")},
        "source": dict(source),
        "text_tokens": geometry.text_tokens,
        "empty_text": empty_text,
    }
    write_samples(
        out,
        captions,
        lambda index: encoder.sample(clips(index), captions[index]),
        about,
        empty=lambda: encoder.text(empty_text),
        process=process,
        progress=progress,
    )


def video_clips(videos: Sequence[Path], settings: Mapping[str, Any]) -> Callable[[int], np.ndarray]:
    """index -> the frames of that video, at the size, length and rate of the settings."""
    size = {name: settings[name] for name in ("height", "width", "frames", "fps")}
    return lambda index: read_clip(videos[index], **size)


def demo_clips(samples: int, settings: Mapping[str, Any]) -> tuple[Callable[[int], np.ndarray], list[str]]:
    """The moving digits that the demo model was trained on: index -> frames, and all captions."""
    from workbench.demo.moving_digits import draw_clip
    from workbench.demo.settings import DATA

    own = {"height": DATA.height, "width": DATA.width, "frames": DATA.frames}
    if any(settings[name] != value for name, value in own.items()):
        raise InputError(
            "--height --width --frames",
            got=", ".join(str(settings[name]) for name in own),
            expected=f"{DATA.height}, {DATA.width}, {DATA.frames}, the size of the moving digits",
            fix="leave them out, or give --videos",
        )
    captions = [draw_clip(DATA, seed, False).factors.caption for seed in range(samples)]
    return lambda index: draw_clip(DATA, index, False).video, captions
