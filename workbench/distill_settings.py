"""The settings of a distillation: one definition of each flag, for Python, jobs and the command line."""

from typing import Literal

from pydantic import Field

from workbench.settings import RunSettings

# What PARE trained with, by stage: training steps and the student's learning rate.
PAPER_STEPS = {"width": 7000, "joint": 7000, "steps": 1200}
PAPER_RATES = {"width": 3e-5, "joint": 3e-5, "steps": 2e-6}
# Consistency falls by orders of magnitude, and varies with the point of the grid.
DIVERGENCE = {"width": 20.0, "joint": 20.0, "steps": 1000.0}


class DistillSettings(RunSettings):
    """How a student is trained, beside how its model is run; the defaults are what PARE did, and ours where it is silent."""

    train_steps: int | None = Field(None, gt=0, description="Training steps; default: 7000, for steps 1200.")
    batch: int = Field(1, gt=0, description="Samples of one process and turn.")
    accumulation: int = Field(1, gt=0, description="Turns whose gradients make one step.")
    learning_rate: float | None = Field(None, gt=0, description="Of the student; default: 3e-5, for steps 2e-6.")
    router_rate: float = Field(5e-4, gt=0, description="Learning rate of the router.")
    router_share: float = Field(
        1.0, gt=0, le=1, description="Share of the steps in which the router learns; then it stays."
    )
    warmup: int = Field(100, ge=0, description="Training steps in which the rates rise; then they fall as a cosine.")
    weight_decay: float = Field(0.01, ge=0, description="AdamW's, of the student.")
    clip_norm: float = Field(1.0, gt=0, description="Gradients are cut to this norm.")
    ema: float = Field(0.999, ge=0, lt=1, description="Moving average of the weights that is kept; 0: none.")
    no_text_share: float = Field(0.1, ge=0, le=1, description="Share of samples with the empty text, for guidance.")
    feature_weight: float | None = Field(None, ge=0, description="w_f of L_feat; default: 10. 0 leaves it out.")
    teacher_weight: float | None = Field(None, ge=0, description="w_t of L_TFM; default: 6.")
    data_weight: float | None = Field(None, ge=0, description="w_d of L_DFM; default: 1.")
    temporal_weight: float | None = Field(None, ge=0, description="w_τ of L_temp; default: 8, image-to-video 4.")
    velocities: int = Field(
        0, ge=0, description="Store the teacher's velocity at so many noise levels of every sample, then do without it."
    )
    feature_blocks: int = Field(4, gt=0, description="Random blocks whose features are compared in a step.")
    router: Literal["learned", "timestep", "static"] = Field(
        "learned",
        description="learned from timestep and content, from the timestep alone, or a static ranking (--run).",
    )
    router_hidden: int | None = Field(None, gt=0, description="Width of the router; default: 512, in small models 64.")
    router_gradient: Literal["absolute", "relative"] = Field(
        "absolute",
        description="absolute: Eq. 11 as written, where all scores rise together. relative: of a score over the others' mean.",
    )
    k_min: float | None = Field(None, description="Blocks that run at t = 0; default: 20 of 40 in proportion.")
    k_max: float | None = Field(None, description="Blocks that run at t = 1000; default: 35 of 40 in proportion.")
    few_steps: int = Field(4, gt=0, description="Sampler steps that the student of steps needs.")
    regression_steps: int | None = Field(
        None, ge=0, description="Training steps on teacher trajectories before consistency; default: half of all."
    )
    trajectories: int = Field(64, ge=0, description="Teacher trajectories to store for that.")
    train_router: bool = Field(False, description="Let steps train the router too.")
    checkpointing: bool = Field(False, description="Recompute blocks in the backward pass, which saves memory.")
    checkpoint_every: int = Field(100, gt=0, description="Training steps between saved states.")
    log_every: int = Field(10, gt=0, description="Training steps between lines of the log.")
    validate_every: int = Field(0, ge=0, description="Training steps between validations; 0: none.")
    held_out: int = Field(0, ge=0, description="Last samples of the data that are validated on, not trained on.")
    clips: int = Field(0, ge=0, description="Videos of held-out captions that a validation makes (text-to-video).")
    roles: int = Field(0, ge=0, description="Held-out samples on which a validation measures the heads' roles.")
    divergence: float | None = Field(
        None,
        ge=0,
        description="Stop where the mean loss is so many times its lowest; default: 20, for steps 1000. 0: never.",
    )
