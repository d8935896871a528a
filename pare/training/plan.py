"""What a training will need, before it starts: memory of every device, operations of a step; from shapes alone, without weights."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

from pare import cost
from pare.errors import InputError
from pare.fit import largest_group
from pare.geometry import Clip, Geometry, tokens

Stage: TypeAlias = Literal["width", "joint", "steps"]
STAGES: tuple[Stage, ...] = ("width", "joint", "steps")

# What autograd keeps of one block, bytes for every token and each unit of residual width, self-attention width,
# cross-attention width and neurons, and for every text token and unit of cross-attention width; counted on small blocks.
SAVED: Mapping[int, tuple[int, int, int, float, int]] = {4: (37, 33, 18, 8.1, 32), 2: (32, 24, 12, 4.1, 24)}
FLOAT32 = 4
GIB = 2**30
SIGMAS = (0.2, 0.5, 0.8)
"""Noise levels at which a validation looks at every held-out sample."""


@dataclass(frozen=True)
class Setup:
    """How a training runs: processes, whether the models lie in shards, precision of the forward, what is recomputed.

    `batch` is that of one process and turn; `feature_blocks` 0 where features are not compared; `guided` teachers run twice;
    without `teacher` its velocities were stored; `regression` is the share of stage III's steps that have stored
    trajectories, where the student runs alone; `clips`: validations make videos, with a teacher's pipeline of their own, and
    these are the bytes of its text encoder and VAE (None: no clips).
    """

    stage: Stage
    processes: int = 1
    sharded: bool = False
    compute_bytes: int = 4
    checkpointing: bool = False
    batch: int = 1
    accumulation: int = 1
    average: bool = True
    feature_blocks: int = 4
    guided: bool = False
    teacher: bool = True
    regression: float = 0.0
    clips: int | None = None


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes on one device: `student` (float32 weights and what autocast or a gathered block adds), `gradients`, `optimiser`
    (AdamW's two moments), `average`, `teacher`, `activations`, `clips` (the pipeline that makes a validation's videos)."""

    student: int
    gradients: int
    optimiser: int
    average: int
    teacher: int
    activations: int
    clips: int

    @property
    def total(self) -> int:
        """All of it."""
        return sum(asdict(self).values())


def training_memory(geometry: Geometry, clip: Clip, kept: Mapping[str, Any], setup: Setup) -> TrainingMemory:
    """Memory of one device in training, an estimate that is rather high; `kept` are the student's counts (`pare.cost`).

    Per parameter of the student 4 bytes each of weights, gradients, average, and 8 of moments; the frozen teacher has the
    precision of the forward. Shards divide all of these by the processes and add what two blocks gather; the pipeline of
    validation clips is whole on every device. Activations:
    with checkpointing the residual stream at every block and one block's inside, without it every block's inside.

    >>> from pare.geometry import PRESETS
    >>> setup = Setup("joint", processes=4, sharded=True, compute_bytes=2, checkpointing=True)
    >>> kept = {"self_heads": 28, "cross_heads": 28, "neurons": 9600}
    >>> need = training_memory(PRESETS["wan2.1-t2v-14b"].geometry, Clip(480, 832, 81), kept, setup)
    >>> need.total < 141 * GIB
    True
    """
    own = cost.parameters(geometry, **kept).total
    dense = cost.parameters(geometry).total
    share = setup.processes if setup.sharded else 1
    weights, teacher = own * FLOAT32 // share, dense * setup.compute_bytes // share
    if setup.sharded:
        # The next block is gathered while one runs.
        weights += 2 * largest_group(geometry, **kept) * setup.compute_bytes
        teacher += 2 * largest_group(geometry) * setup.compute_bytes
    elif setup.compute_bytes < FLOAT32:
        # Autocast keeps a copy of every weight until the backward pass has ended.
        weights += own * setup.compute_bytes
    return TrainingMemory(
        student=weights,
        gradients=own * FLOAT32 // share,
        optimiser=2 * own * FLOAT32 // share,
        average=own * FLOAT32 // share if setup.average else 0,
        teacher=teacher if setup.teacher else 0,
        activations=setup.batch * _activations(geometry, clip, kept, setup),
        clips=0 if setup.clips is None else dense * setup.compute_bytes + setup.clips,
    )


def saved_by_block(
    geometry: Geometry, clip: Clip, compute_bytes: int, *, self_heads: int, cross_heads: int, neurons: int
) -> int:
    """Bytes that autograd keeps of one block's forward of one sample."""
    length, head_dim = tokens(geometry, clip), geometry.head_dim
    context = geometry.text_tokens + (geometry.image_tokens if geometry.added_kv_proj_dim is not None else 0)
    stream, own, cross, hidden, text = SAVED[compute_bytes]
    per_token = stream * geometry.dim + own * self_heads * head_dim + cross * cross_heads * head_dim + hidden * neurons
    return int(length * per_token + text * context * cross_heads * head_dim)


def step_flops(geometry: Geometry, clip: Clip, kept: Mapping[str, Any], setup: Setup) -> float:
    """Operations of one training step of one process, in the mean over a stage: the student forward and twice that backward,
    once more where blocks are recomputed, the teacher forward (twice where guided), and in stage III, but for its steps of
    regression, the student at the next grid point. Every block runs, also of a routed student: it is gated, not skipped."""
    student, teacher = cost.flops(geometry, clip, **kept).total, cost.flops(geometry, clip).total
    trained = (3 + int(setup.checkpointing)) * student
    beside = int(setup.stage == "steps") * student + (2 if setup.guided else int(setup.teacher)) * teacher
    return setup.batch * setup.accumulation * (trained + (1 - setup.regression) * beside)


def grid_of(points: int, steps: int) -> int:
    """The points of the teacher's grid: so many, rounded up to a multiple of the student's steps, so that its own lie on it.

    >>> grid_of(50, 4)
    52
    """
    return -(-points // steps) * steps


def trajectory_flops(geometry: Geometry, clip: Clip, grid: int, *, guided: bool) -> float:
    """Operations of one trajectory of the teacher over a grid of so many points."""
    return grid * (2 if guided else 1) * cost.flops(geometry, clip).total


def check_fits(need: TrainingMemory, available: int, setup: Setup, what: str) -> None:
    """Raise InputError, naming the knob that helps most, where a device cannot hold the training."""
    if need.total <= available:
        return
    knobs = []
    if need.clips > need.total // 10:
        knobs.append("--clips 0")
    if not setup.checkpointing and need.activations > need.total // 4:
        knobs.append("--checkpointing")
    if setup.batch > 1 and need.activations > need.total // 4:
        knobs.append(f"--batch {setup.batch // 2} with --accumulation {setup.accumulation * 2}")
    if not setup.sharded and need.activations < available:
        knobs.append("several GPUs with accelerate launch --config_file pare/training/configs/fsdp.yaml")
    elif setup.sharded:
        knobs.append("more processes")
    if setup.compute_bytes == FLOAT32:
        knobs.append("--dtype bfloat16")
    if need.average and setup.processes == 1:
        knobs.append("--ema 0")
    knobs.append("fewer --frames in the data")
    raise InputError(
        "memory",
        got=f"a need of {need.total / GIB:.1f} GiB with {available / GIB:.1f} GiB on {what}",
        expected="a training that fits",
        fix=", or ".join(knobs[:3]),
    )


def check_without_teacher(feature_weight: int | float, no_text_share: int | float) -> None:
    """Raise InputError where a training wants more of its teacher than stored velocities have.

    >>> check_without_teacher(0.0, 0.0)
    """
    if feature_weight or no_text_share:
        raise InputError(
            "--velocities",
            got="features to compare, or texts to drop",
            expected="neither, since what is stored is the teacher's velocity alone",
            fix="--feature-weight 0 --no-text-share 0",
        )


def _activations(geometry: Geometry, clip: Clip, kept: Mapping[str, Any], setup: Setup) -> int:
    length, value = tokens(geometry, clip), setup.compute_bytes
    stream = length * geometry.dim * value
    columns = [_column(kept.get(name), whole, geometry.blocks) for name, whole in _wholes(geometry)]
    inside = [
        saved_by_block(geometry, clip, value, self_heads=own, cross_heads=cross, neurons=ffn)
        for own, cross, ffn in zip(*columns, strict=True)
    ]
    # A gate keeps the block's output beside its input.
    streams = geometry.blocks * stream * (2 if setup.stage != "width" else 1)
    kept_inside = max(inside) + streams if setup.checkpointing else sum(inside) + streams
    # The largest set inside a block beside what is saved; features are compared in float32.
    transient = cost.memory(geometry, clip, bytes_per_value=value).activations
    features = setup.feature_blocks * length * geometry.dim * (value + 3 * FLOAT32)
    return kept_inside + transient + features


def _wholes(geometry: Geometry) -> tuple[tuple[str, int], ...]:
    return (("self_heads", geometry.heads), ("cross_heads", geometry.heads), ("neurons", geometry.ffn))


def _column(count: Any, whole: int, blocks: int) -> list[int]:
    if count is None or isinstance(count, int):
        return [whole if count is None else count] * blocks
    return list(count)
