"""Every setting of the demo model's build, in one file.

>>> DATA.height, DATA.frames, TRANSFORMER.num_attention_heads
(48, 17, 10)
"""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class DataSettings:
    """Moving digits: one coloured digit on a still, textured background. Lengths in pixels, speeds in pixels per video frame."""

    height: int = 48
    width: int = 48
    frames: int = 17
    fps: int = 8
    digit_size: int = 24
    slow: float = 0.8
    fast: float = 2.0
    first_direction_frames: int = 6
    still_share: float = 0.2
    held_out_scans: int = 297
    seed: int = 20260


@dataclass(frozen=True)
class TextSettings:
    """A word-level tokenizer and a frozen one-layer UMT5 encoder with seeded weights."""

    dim: int = 64
    text_tokens: int = 512
    seed: int = 20261


@dataclass(frozen=True)
class VaeSettings:
    """A small `AutoencoderKLWan`: 4x smaller in space, 2x in time, 8 channels; trained on images, short cuts, whole clips."""

    base_dim: int = 24
    z_dim: int = 8
    dim_mult: tuple[int, ...] = (1, 2)
    num_res_blocks: int = 1
    temperal_downsample: tuple[bool, ...] = (True,)
    patch_size: int = 2
    frames: int = 5
    steps: int = 2200
    batch: int = 4
    image_steps: int = 1200
    image_batch: int = 16
    learning_rate: float = 3e-3
    warmup: int = 30
    decay_share: float = 0.35
    kl_weight: float = 1e-7
    first_log_variance: float = -5.0
    whole_steps: int = 700
    whole_batch: int = 2
    whole_learning_rate: float = 1e-3
    ema: float = 0.995
    statistics_clips: int = 256
    seed: int = 20262


@dataclass(frozen=True)
class TransformerSettings:
    """The transformer's shape: at 48 x 48 x 17 it sees 9 latent frames of 36 tokens."""

    num_attention_heads: int = 10
    attention_head_dim: int = 16
    num_layers: int = 8
    ffn_dim: int = 640
    freq_dim: int = 64
    rope_max_seq_len: int = 32
    query_key_norm: float = 1.7
    text_query_key_norm: float = 1.7


@dataclass(frozen=True)
class FlowSettings:
    """Flow matching on precomputed latents."""

    clips: int = 8192
    held_out_clips: int = 64
    kept_text_tokens: int = 16
    no_text_share: float = 0.1
    shift: float = 3.0
    steps: int = 9000
    batch: int = 16
    learning_rate: float = 1.5e-3
    matrix_rate: float = 1.333
    norm_rate: float = 3.0
    compile: bool = True
    weight_decay: float = 0.01
    warmup: int = 100
    decay_share: float = 0.3
    ema: float = 0.999
    checkpoint_every: int = 100
    validate_every: int = 500
    seed: int = 20263


@dataclass(frozen=True)
class InferenceSettings:
    """What `defaults.json` holds, with the clip's size from `DataSettings`."""

    steps: int = 20
    guidance: float = 3.0
    shift: float = 3.0


@dataclass(frozen=True)
class DemoSettings:
    """All of the build."""

    data: DataSettings = field(default_factory=DataSettings)
    text: TextSettings = field(default_factory=TextSettings)
    vae: VaeSettings = field(default_factory=VaeSettings)
    transformer: TransformerSettings = field(default_factory=TransformerSettings)
    flow: FlowSettings = field(default_factory=FlowSettings)
    inference: InferenceSettings = field(default_factory=InferenceSettings)


DATA = DataSettings()
TRANSFORMER = TransformerSettings()
