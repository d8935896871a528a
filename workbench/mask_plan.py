"""What a mask would keep and what that saves, fast enough for a slider: no torch, no weights, neurons by their count."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import pydantic

from analysis.alpha_study import ALPHAS, AlphaStudy, alpha_study
from analysis.head_scores import HeadScores, check_scorer, head_scores
from analysis.importance import ALPHA, check_alpha, protected, run_roles
from analysis.roles import TAU_S, TAU_T, check_thresholds
from analysis.runs import Run
from pare.errors import InputError
from pare.geometry import Clip, Geometry, check_clip
from pare.width.budget import BYTES, TARGETS, Counts, Ratios, Target, predict, ratio_for
from pare.width.heads import allocate, check_allocation, normalised

NEURON_SCORERS = ("pare", "activation", "magnitude", "random", "none")


class MaskSettings(pydantic.BaseModel):
    """Everything that decides a mask; the defaults are what PARE did.

    p `ratio` for heads and neurons alike, unless `self_ratio`, `cross_ratio` or `neuron_ratio` says otherwise; one of
    `target_parameters`, `target_flops` (per forward) and `target_gib` (weights and activations in `dtype`) finds p.
    `alpha` None is 1.5, but 1 for the random control. `neurons` is how neurons are chosen, `none` keeps them all.
    `height`, `width` and `frames` are the clip that operations and memory are counted for (default: the run's).
    """

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")

    ratio: float = 0.3
    self_ratio: float | None = None
    cross_ratio: float | None = None
    neuron_ratio: float | None = None
    target_parameters: float | None = None
    target_flops: float | None = None
    target_gib: float | None = None
    scorer: str = "pare"
    alpha: float | None = None
    tau_s: float = TAU_S
    tau_t: float = TAU_T
    min_heads: int | None = None
    allocation: str = "uniform"
    neurons: str = "pare"
    tau_ffn: float = 0.9
    neuron_multiple: int | None = None
    branch: str | None = None
    seed: int = 0
    dtype: str = "bfloat16"
    height: int | None = None
    width: int | None = None
    frames: int | None = None

    def check(self) -> None:
        """Raise InputError for a value that makes no mask, naming its flag."""
        check_thresholds(self.tau_s, self.tau_t)
        check_scorer(self.scorer)
        check_allocation(self.allocation)
        if self.alpha is not None:
            check_alpha(self.alpha)
        if self.neurons not in NEURON_SCORERS:
            expected = f"one of {', '.join(NEURON_SCORERS)}"
            raise InputError("--neurons", got=self.neurons, expected=expected, fix="--neurons pare")
        if self.seed < 0:
            raise InputError("--seed", got=self.seed, expected="a whole number of at least 0", fix="--seed 0")
        if not 0 < self.tau_ffn <= 1:
            raise InputError("--tau-ffn", got=self.tau_ffn, expected="above 0, up to 1", fix="--tau-ffn 0.9")
        if self.dtype not in BYTES:
            raise InputError("--dtype", got=self.dtype, expected=f"one of {', '.join(BYTES)}", fix="--dtype bfloat16")
        if len(targets := [name for name in TARGETS if getattr(self, f"target_{name}") is not None]) > 1:
            flags = " and ".join(f"--target-{name}" for name in targets)
            raise InputError(flags, got="several targets", expected="one", fix="leave one of them out")

    @property
    def target(self) -> Target | None:
        """The target, where there is one."""
        chosen = {name: getattr(self, f"target_{name}") for name in TARGETS}
        return next((Target(name, value) for name, value in chosen.items() if value is not None), None)

    @property
    def protection(self) -> float:
        """The α that holds: as given, else 1.5, else, for the random control, 1."""
        if self.alpha is not None:
            return self.alpha
        return 1.0 if self.scorer == "random" else ALPHA

    @property
    def ratios(self) -> Ratios:
        """The pruning ratios and floors."""
        return Ratios(
            self.ratio,
            self.self_ratio,
            self.cross_ratio,
            self.neuron_ratio,
            prune_neurons=self.neurons != "none",
            min_heads=self.min_heads,
            neuron_multiple=self.neuron_multiple,
        )


PRESETS: Mapping[str, MaskSettings] = {"paper": MaskSettings(alpha=ALPHA)}
"""Settings by name. paper: p = 30 % of heads and neurons, α = 1.5, τs = 0.7, τt = 0.3, τ_ffn = 0.90, Eq. 3 to 7."""


@dataclass(frozen=True, eq=False)
class MaskPlan:
    """What a mask would keep: heads [block, head] (None without scores), counts, predicted cost, flips by α.

    `settings` has the p that was found for a target and the α that holds; `roles` and `study` are None where no ratios
    are known, so that nothing is protected; `source` says what the heads were ranked by.
    """

    settings: MaskSettings
    counts: Counts
    predicted: Mapping[str, Any]
    self_heads: np.ndarray | None = None
    cross_heads: np.ndarray | None = None
    roles: np.ndarray | None = None
    study: AlphaStudy | None = None
    source: Mapping[str, Any] = field(default_factory=dict)

    @property
    def flips(self) -> np.ndarray | None:
        """True for self-attention heads [block, head] whose pick is another than without protection."""
        return None if self.study is None else self.self_heads != self.study.kept[0]


def plan(
    run: Run | None,
    settings: MaskSettings,
    *,
    geometry: Geometry | None = None,
    clip: Clip | None = None,
    scores: HeadScores | None = None,
    alphas: Sequence[float] = ALPHAS,
) -> MaskPlan:
    """The heads that stay, how many neurons, what that saves and which picks flip by α, at these settings.

    `scores` are `analysis.head_scores.head_scores(…)`, for a caller that asks again with other settings; computed
    from the run unless given. Without a run give the model's `geometry`, and a `clip` for operations and memory; then,
    without scores, the plan has counts alone. `alphas` are those of `study`, the first of them 1. Raises InputError for
    settings out of range, a run that lacks what they need, and a target that cannot be met.
    """
    settings.check()
    if run is not None:
        geometry = run.geometry
    if geometry is None:
        raise InputError("RUN", got="none", expected="a run, or a model's shapes", fix="give RUN, or --model MODEL")
    clip = _clip(run, settings, geometry, clip)
    if (target := settings.target) is not None:
        found = ratio_for(geometry, settings.ratios, target, clip=clip, dtype=settings.dtype)
        settings = settings.model_copy(update={"ratio": found})
    counts = settings.ratios.counts(geometry)
    predicted = predict(geometry, clip, counts, settings.dtype)
    if scores is None and run is not None:
        scores = head_scores(settings.scorer, geometry, run=run, branch=settings.branch, seed=settings.seed)
    if scores is None:
        return MaskPlan(settings, counts, predicted)
    roles = _roles(run, settings)
    settings = settings.model_copy(update={"alpha": 1.0 if roles is None else settings.protection})
    ranked = {kind: _comparable(scores.values[kind], settings.allocation) for kind in ("self", "cross")}
    # Without an allocation across blocks a plan's counts are one number.
    self_count, cross_count = cast(int, counts.self_heads), cast(int, counts.cross_heads)

    def choose(protected_scores: np.ndarray) -> np.ndarray:
        return allocate(protected_scores, self_count, settings.allocation, settings.min_heads)

    study = None
    if roles is None:
        self_heads = choose(ranked["self"])
    else:
        self_heads = choose(protected(ranked["self"], roles, settings.protection))
        study = alpha_study(ranked["self"], roles, choose, alphas)
    cross_heads = allocate(ranked["cross"], cross_count, settings.allocation, settings.min_heads)
    if settings.allocation != "uniform":
        self_kept, cross_kept = (tuple(part.sum(axis=1).tolist()) for part in (self_heads, cross_heads))
        counts = Counts(self_kept, cross_kept, counts.neurons)
        predicted = predict(geometry, clip, counts, settings.dtype)
    return MaskPlan(settings, counts, predicted, self_heads, cross_heads, roles, study, scores.source)


def _comparable(scores: np.ndarray, allocation: str) -> np.ndarray:
    return normalised(scores) if allocation == "global-l2" else np.asarray(scores, float)


def _roles(run: Run | None, settings: MaskSettings) -> np.ndarray | None:
    """Letters of the run's heads; None where no ratios are known and none are needed."""
    if run is not None and "self/ratio" in run.statistics:
        return run_roles(run, settings.tau_s, settings.tau_t, settings.branch)
    needed = settings.alpha is not None if run is None else settings.protection > 1
    if needed and settings.protection > 1:
        got = f"{settings.protection:g} without {'a run' if run is None else 'self/ratio in the run'}"
        raise InputError("--alpha", got=got, expected="the ratios that tell temporal heads", fix="--alpha 1")
    return None


def _clip(run: Run | None, settings: MaskSettings, geometry: Geometry, clip: Clip | None) -> Clip | None:
    size: dict[str, Any] = {name: getattr(settings, name) for name in ("height", "width", "frames")}
    if run is not None:
        clip = Clip(*(run.manifest.clip[name] for name in size))
    if clip is not None:
        clip = Clip(**{name: getattr(clip, name) if value is None else value for name, value in size.items()})
    elif None not in size.values():
        clip = Clip(**size)
    elif missing := [f"--{name}" for name, value in size.items() if value is None and any(size.values())]:
        raise InputError(" ".join(missing), got="no value", expected="the whole size of a clip", fix="add the flags")
    # The run's own size is what it was captured at, whatever its model allows.
    if clip is not None and any(size.values()):
        check_clip(geometry, clip)
    return clip
