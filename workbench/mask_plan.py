"""What a mask would keep and what that saves, fast enough for a slider: no torch, no weights, neurons by their count."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from analysis.alpha_study import ALPHAS, AlphaStudy, alpha_study
from analysis.head_scores import HeadScores, check_scorer, head_scores
from analysis.importance import check_alpha, protected, run_roles
from analysis.roles import check_thresholds
from analysis.runs import Run
from pare.errors import InputError
from pare.geometry import Clip, Geometry, check_clip
from pare.width.budget import BYTES, TARGETS, Counts, Ratios, Target, predict, ratio_for
from pare.width.heads import allocate, check_allocation, normalised
from workbench.mask_settings import MaskSettings

NEURON_SCORERS = ("pare", "activation", "magnitude", "random", "none")


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
    check_settings(settings)
    if run is not None:
        geometry = run.geometry
    if geometry is None:
        raise InputError("RUN", got="none", expected="a run, or a model's shapes", fix="give RUN, or --model MODEL")
    clip = _clip(run, settings, geometry, clip)
    if (wanted := target(settings)) is not None:
        found = ratio_for(geometry, ratios(settings), wanted, clip=clip, dtype=settings.dtype)
        settings = settings.model_copy(update={"ratio": found})
    counts = ratios(settings).counts(geometry)
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


def check_settings(settings: MaskSettings) -> None:
    """Raise InputError for a value that makes no mask, naming its flag."""
    check_thresholds(settings.tau_s, settings.tau_t)
    check_scorer(settings.scorer)
    check_allocation(settings.allocation)
    check_alpha(settings.protection)
    if settings.neurons not in NEURON_SCORERS:
        expected = f"one of {', '.join(NEURON_SCORERS)}"
        raise InputError("--neurons", got=settings.neurons, expected=expected, fix="--neurons pare")
    if settings.seed < 0:
        raise InputError("--seed", got=settings.seed, expected="a whole number of at least 0", fix="--seed 0")
    if not 0 < settings.tau_ffn <= 1:
        raise InputError("--tau-ffn", got=settings.tau_ffn, expected="above 0, up to 1", fix="--tau-ffn 0.9")
    if settings.dtype not in BYTES:
        raise InputError("--dtype", got=settings.dtype, expected=f"one of {', '.join(BYTES)}", fix="--dtype bfloat16")


def ratios(settings: MaskSettings) -> Ratios:
    """The pruning ratios and floors of the settings."""
    return Ratios(
        settings.ratio,
        settings.self_ratio,
        settings.cross_ratio,
        settings.neuron_ratio,
        prune_neurons=settings.neurons != "none",
        min_heads=settings.min_heads,
        neuron_multiple=settings.neuron_multiple,
    )


def target(settings: MaskSettings) -> Target | None:
    """The target, where there is one. Raises InputError for several."""
    given = {name: getattr(settings, f"target_{name}") for name in TARGETS}
    chosen = [Target(name, value) for name, value in given.items() if value is not None]
    if len(chosen) > 1:
        flags = " and ".join(f"--target-{each.kind}" for each in chosen)
        raise InputError(flags, got="several targets", expected="one", fix="leave one of them out")
    return chosen[0] if chosen else None
