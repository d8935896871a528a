"""Tiny Wan pipelines with random weights: every code path of the real ones in well under a second on a CPU."""

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLWan,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
    WanImageToVideoPipeline,
    WanPipeline,
    WanTransformer3DModel,
)
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    CLIPVisionModel,
    PreTrainedTokenizerFast,
    UMT5Config,
    UMT5EncoderModel,
)

HEADS, HEAD_DIM, BLOCKS, FFN = 4, 12, 2, 32
LATENT_CHANNELS, TEXT_DIM, IMAGE_DIM = 4, 16, 24
VAE_SPATIAL, VAE_TEMPORAL = 4, 2
# 32 x 32 pixels and 9 video frames: 5 latent frames of 4 x 4 tokens, 80 tokens.
DEFAULTS = {"height": 32, "width": 32, "frames": 9, "fps": 8, "steps": 3, "guidance": 2.0, "shift": 3.0}
PROMPT = "a red 7 moving up and left, fast"
DIRECTIONS, COLOURS = ["up", "down", "left", "right"], ["red", "green", "blue"]
WORDS = ["a", "and", ",", "moving", "standing", "still", "fast", "slow", *DIRECTIONS, *COLOURS, *"0123456789"]


def tiny_transformer(seed: int = 0, **config: Any) -> WanTransformer3DModel:
    """A random-weight transformer: 2 blocks x 4 heads x head_dim 12 unless `config` says otherwise; eval mode."""
    torch.manual_seed(seed)
    settings = {
        "num_layers": BLOCKS,
        "num_attention_heads": HEADS,
        "attention_head_dim": HEAD_DIM,
        "ffn_dim": FFN,
        "in_channels": LATENT_CHANNELS,
        "out_channels": LATENT_CHANNELS,
        "text_dim": TEXT_DIM,
        "freq_dim": 32,
        "cross_attn_norm": True,
        "rope_max_seq_len": 64,
    }
    return WanTransformer3DModel(**(settings | config)).eval()


def tiny_vae(seed: int = 0) -> AutoencoderKLWan:
    """A random-weight VAE: 4 times smaller in space, 2 times in time, 4 latent channels; eval mode."""
    torch.manual_seed(seed)
    return AutoencoderKLWan(
        base_dim=4,
        z_dim=LATENT_CHANNELS,
        dim_mult=[1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True],
        latents_mean=[0.0] * LATENT_CHANNELS,
        latents_std=[1.0] * LATENT_CHANNELS,
        scale_factor_temporal=VAE_TEMPORAL,
        scale_factor_spatial=VAE_SPATIAL,
    ).eval()


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer over the words of the moving-digits prompts; pad = 0, end = 1, unknown = 2."""
    vocabulary = {word: index for index, word in enumerate(["<pad>", "</s>", "<unk>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=512
    )


def tiny_text_encoder(seed: int = 0) -> UMT5EncoderModel:
    """A random-weight one-layer UMT5 encoder; eval mode."""
    torch.manual_seed(seed)
    config = UMT5Config(
        vocab_size=len(WORDS) + 3, d_model=TEXT_DIM, d_kv=8, d_ff=32, num_layers=1, num_heads=2, dropout_rate=0.0
    )
    return UMT5EncoderModel(config).eval()


def tiny_image_encoder(seed: int = 0) -> CLIPVisionModel:
    """A random-weight CLIP vision model: 32 x 32 pixels in patches of 8, so 17 image tokens; eval mode."""
    torch.manual_seed(seed)
    config = CLIPVisionConfig(
        hidden_size=IMAGE_DIM, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=32,
        patch_size=8, projection_dim=16,
    )  # fmt: skip
    return CLIPVisionModel(config).eval()


def tiny_pipeline(seed: int = 0, scheduler: str = "unipc", **config: Any) -> WanPipeline:
    """A text-to-video pipeline; `scheduler` is "unipc" or "euler", `config` goes to the transformer."""
    pipe = WanPipeline(
        tokenizer=tiny_tokenizer(),
        text_encoder=tiny_text_encoder(seed),
        vae=tiny_vae(seed),
        scheduler=_scheduler(scheduler),
        transformer=tiny_transformer(seed, **config),
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def tiny_image_pipeline(seed: int = 0, scheduler: str = "unipc", **config: Any) -> WanImageToVideoPipeline:
    """An image-to-video pipeline with an image encoder and added key/value projections."""
    channels = {
        "in_channels": 2 * LATENT_CHANNELS + VAE_TEMPORAL,
        "image_dim": IMAGE_DIM,
        "added_kv_proj_dim": HEADS * HEAD_DIM,
    }
    pipe = WanImageToVideoPipeline(
        tokenizer=tiny_tokenizer(),
        text_encoder=tiny_text_encoder(seed),
        vae=tiny_vae(seed),
        scheduler=_scheduler(scheduler),
        image_processor=CLIPImageProcessor(
            size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}, do_center_crop=True
        ),
        image_encoder=tiny_image_encoder(seed),
        transformer=tiny_transformer(seed, **(channels | config)),
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def save(pipe: WanPipeline | WanImageToVideoPipeline, folder: str | Path, **defaults: Any) -> Path:
    """Saves a pipeline as a diffusers folder with a `defaults.json` beside `model_index.json`."""
    folder = Path(folder)
    pipe.save_pretrained(folder, safe_serialization=True)
    (folder / "defaults.json").write_text(json.dumps(DEFAULTS | defaults, indent=2) + "\n")
    return folder


def _scheduler(name: str) -> FlowMatchEulerDiscreteScheduler | UniPCMultistepScheduler:
    if name == "euler":
        return FlowMatchEulerDiscreteScheduler(shift=DEFAULTS["shift"])
    return UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, num_train_timesteps=1000, flow_shift=DEFAULTS["shift"]
    )
