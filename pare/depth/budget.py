"""How many blocks run at a denoising step: K(t), and schedules that meet a target."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from pare.depth.costs import CostTable
from pare.errors import InputError

Number: TypeAlias = int | float
Numbers: TypeAlias = Sequence[int | float] | np.ndarray

# The span of timesteps, T.
TIMESTEPS = 1000.0
# PARE routes Wan2.1-14B, 40 blocks, between these.
PAPER_BLOCKS, PAPER_K_MIN, PAPER_K_MAX = 40, 20, 35
# Timesteps come as float32, so a K(t) that should be whole may lie a little below.
ROUNDING = 1e-4


@dataclass(frozen=True)
class BudgetSchedule:
    """K(t): how many of N blocks run at timestep t of 0..1000; the first and the last block always do, inside K.

    Linear in t from `k_min` to `k_max` (Eq. 8), or `counts` one by one: by step index, or, where `timesteps` are given
    beside them, of the nearest timestep. Fractions are rounded down. Made by the class methods.

    >>> paper = BudgetSchedule.paper(40)
    >>> [paper.count(t, step, 40) for step, t in enumerate((1000, 900, 750, 500))]
    [35, 33, 31, 27]
    """

    k_min: Number
    k_max: Number
    counts: tuple[Number, ...] = ()
    timesteps: tuple[Number, ...] = ()

    def __post_init__(self) -> None:
        values = (self.k_min, self.k_max, *self.counts, *self.timesteps)
        if not all(math.isfinite(value) for value in values):
            raise InputError(
                "budget", got="a number that is not finite", expected="numbers of blocks", fix="--k-min 20"
            )
        if self.k_min > self.k_max:
            raise InputError(
                "--k-min",
                got=f"{self.k_min:g}, above --k-max {self.k_max:g}",
                expected="k_min <= k_max",
                fix="swap them",
            )
        if self.timesteps and len(self.timesteps) != len(self.counts):
            raise InputError(
                "budget",
                got=f"{len(self.counts)} counts for {len(self.timesteps)} timesteps",
                expected="one count per timestep",
                fix="give as many",
            )

    @classmethod
    def linear(cls, k_min: Number, k_max: Number) -> "BudgetSchedule":
        """K(t) = K_min + (K_max − K_min)·t/T, rounded down (PARE, Eq. 8)."""
        return cls(float(k_min), float(k_max))

    @classmethod
    def constant(cls, count: Number) -> "BudgetSchedule":
        """The same number of blocks at every timestep."""
        return cls.linear(count, count)

    @classmethod
    def paper(cls, blocks: int) -> "BudgetSchedule":
        """PARE's 20 to 35 of 40 blocks, in proportion for a model of `blocks`.

        >>> BudgetSchedule.paper(8)
        BudgetSchedule(k_min=4.0, k_max=7.0, counts=(), timesteps=())
        """
        least = float(fewest(blocks))
        scaled = (count * blocks / PAPER_BLOCKS for count in (PAPER_K_MIN, PAPER_K_MAX))
        return cls.linear(*(max(least, each) for each in scaled))

    @classmethod
    def by_step(cls, counts: Numbers) -> "BudgetSchedule":
        """One count per step of the denoising loop, noisiest first; a longer loop is refused.

        >>> BudgetSchedule.by_step([8, 6, 4]).count(500.0, 1, 8)
        6
        """
        if not len(counts):
            raise InputError("budget", got="no counts", expected="one per step", fix="give a count for every step")
        return cls(min(counts), max(counts), tuple(float(count) for count in counts))

    @classmethod
    def by_timestep(cls, timesteps: Numbers, counts: Numbers) -> "BudgetSchedule":
        """One count per timestep; a timestep between them takes the nearest one's.

        >>> BudgetSchedule.by_timestep([900.0, 300.0], [7, 5]).count(450.0, 0, 8)
        5
        """
        if not len(counts):
            raise InputError("budget", got="no counts", expected="one per timestep", fix="give a count for every one")
        return cls(min(counts), max(counts), tuple(map(float, counts)), tuple(map(float, timesteps)))

    @classmethod
    def from_share(cls, share: Number, timesteps: Numbers, blocks: int) -> "BudgetSchedule":
        """A schedule by step that runs `share` of all block FLOPs of a video, rounded down to whole blocks.

        The whole blocks of all steps together are floor(share·N·steps). They are dealt out in the proportions of Eq. 8
        with the paper's K_min : K_max, no step below the first and last block or above N. Raises InputError for a share
        that the always-on blocks alone exceed.

        >>> schedule = BudgetSchedule.from_share(0.6, [1000, 750, 500, 250], 8)
        >>> schedule.counts, schedule.mean_count([1000, 750, 500, 250], 8) / 8
        ((6.0, 5.0, 4.0, 4.0), 0.59375)
        """
        steps, least = len(timesteps), fewest(blocks)
        if not (least / blocks <= share <= 1):
            raise InputError(
                "--share",
                got=share,
                expected=f"{least / blocks:.3g} to 1, since the first and the last block always run",
                fix="--share 0.6",
            )
        # The decimal that was typed: 0.6·10·5 is 29.999… in floats of some orders.
        total = min(blocks * steps, max(least * steps, math.floor(share * blocks * steps + 1e-9)))
        shape = [PAPER_K_MIN + (PAPER_K_MAX - PAPER_K_MIN) * t / TIMESTEPS for t in timesteps]
        return cls.by_step(_deal(total, shape, least, blocks))

    @classmethod
    def from_seconds(
        cls, seconds: Number, costs: CostTable, timesteps: Numbers, *, guidance: bool = True
    ) -> "BudgetSchedule":
        """The largest schedule by step whose video takes at most `seconds` by a cost table measured on this machine.

        Raises InputError where even the smallest budget takes longer, naming how long.
        """
        blocks, steps = costs.blocks, len(timesteps)
        forwards = 2 if guidance else 1
        least = costs.seconds(blocks_run=fewest(blocks) * steps, steps=steps, forwards=forwards)
        if not seconds >= least:
            raise InputError(
                "--seconds",
                got=f"{seconds:g}",
                expected=f"at least {least:.3g}, what the always-on blocks take",
                fix=f"--seconds {math.ceil(least * 100) / 100:g}, or fewer --steps",
            )
        available = (seconds - costs.seconds(blocks_run=0, steps=steps, forwards=forwards)) / forwards
        total = min(blocks * steps, max(fewest(blocks) * steps, math.floor(available / costs.block + 1e-9)))
        shape = [PAPER_K_MIN + (PAPER_K_MAX - PAPER_K_MIN) * t / TIMESTEPS for t in timesteps]
        return cls.by_step(_deal(total, shape, fewest(blocks), blocks))

    def asked(self, timestep: Number, step: int = 0) -> float:
        """K before rounding down."""
        if self.timesteps:
            nearest = min(range(len(self.timesteps)), key=lambda index: abs(self.timesteps[index] - timestep))
            return float(self.counts[nearest])
        if self.counts:
            if not 0 <= step < len(self.counts):
                raise InputError(
                    "budget",
                    got=f"step {step}, with {len(self.counts)} counts",
                    expected="a count for every step",
                    fix=f"--steps {len(self.counts)}, or a schedule for more steps",
                )
            return float(self.counts[step])
        return float(self.k_min) + (self.k_max - self.k_min) * timestep / TIMESTEPS

    def count(self, timestep: Number, step: int, blocks: int) -> int:
        """K: how many of `blocks` run at this timestep. Raises InputError where the model cannot do that."""
        if not 0 <= timestep <= TIMESTEPS:
            raise InputError("timestep", got=timestep, expected="a number from 0 to 1000", fix="give t, not sigma")
        found = math.floor(self.asked(timestep, step) + ROUNDING)
        if not fewest(blocks) <= found <= blocks:
            self.check(blocks)
            raise InputError("budget", got=found, expected=f"{fewest(blocks)} to {blocks} blocks", fix="another budget")
        return found

    def check(self, blocks: int) -> None:
        """Raise InputError unless every K lies between the always-on blocks and `blocks`."""
        least = fewest(blocks)
        for flag, value in (("--k-min", self.k_min), ("--k-max", self.k_max)):
            if not least <= math.floor(value + ROUNDING) <= blocks:
                raise InputError(
                    flag,
                    got=f"{value:g}",
                    expected=f"{least} to {blocks} blocks, the first and the last included",
                    fix=f"{flag} {min(max(round(value), least), blocks)}",
                )

    def mean_count(self, timesteps: Numbers, blocks: int) -> float:
        """The mean K over the steps of a sampler.

        >>> round(BudgetSchedule.paper(40).mean_count(shifted_timesteps(50, 3.0), 40), 1)
        29.8
        """
        return sum(self.count(t, step, blocks) for step, t in enumerate(timesteps)) / len(timesteps)

    def to_dict(self) -> dict[str, Any]:
        """As JSON values; `from_dict` reads them back."""
        found: dict[str, Any] = {"k_min": self.k_min, "k_max": self.k_max}
        for name in ("counts", "timesteps"):
            if values := getattr(self, name):
                found[name] = list(values)
        return found

    @classmethod
    def from_dict(cls, values: Any) -> "BudgetSchedule":
        """The schedule that `to_dict` wrote; keys that it does not know are left alone."""
        try:
            return cls(
                float(values["k_min"]),
                float(values["k_max"]),
                tuple(float(each) for each in values.get("counts", ())),
                tuple(float(each) for each in values.get("timesteps", ())),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError("budget", got=values, expected="k_min and k_max", fix="give both") from error


def fewest(blocks: int) -> int:
    """The always-on blocks: the first and the last.

    >>> fewest(40), fewest(1)
    (2, 1)
    """
    return min(2, blocks)


def shifted_timesteps(steps: int, shift: Number) -> tuple[float, ...]:
    """The timesteps of a flow-matching sampler: σ = s·u/(1 + (s − 1)·u) at u = 1, 1 − 1/n, …, 1/n; t = 1000·σ.

    diffusers' UniPC starts from u = 0.999 and drops the fraction, which moves t by less than 4; a run has its own.

    >>> [round(t) for t in shifted_timesteps(4, 3.0)]
    [1000, 900, 750, 500]
    """
    if steps < 1 or not shift > 0:
        raise InputError(
            "steps and shift", got=f"{steps}, {shift}", expected="both above 0", fix="--steps 50 --shift 3"
        )
    grid = [1 - index / steps for index in range(steps)]
    return tuple(TIMESTEPS * shift * u / (1 + (shift - 1) * u) for u in grid)


def _deal(total: int, shape: Numbers, least: int, most: int) -> list[int]:
    """Whole numbers from `least` to `most`, in the proportions of `shape` as far as that goes, that sum to `total`."""
    low, high = 0.0, most / min(shape)
    for _ in range(60):
        scale = (low + high) / 2
        low, high = (scale, high) if sum(min(most, max(least, scale * s)) for s in shape) < total else (low, scale)
    wanted = [min(float(most), max(float(least), high * s)) for s in shape]
    counts = [math.floor(each + 1e-9) for each in wanted]
    # What rounding down left goes to the largest remainders, a tie to the noisier step.
    by_remainder = sorted(range(len(shape)), key=lambda index: (counts[index] - wanted[index], -shape[index]))
    for index in [each for each in by_remainder if counts[each] < most][: total - sum(counts)]:
        counts[index] += 1
    return counts
