"""Importance of attention heads (PARE, Eq. 3) and the protection of temporal heads (Eq. 5), from captured norms."""

import numpy as np

from analysis.aggregate import average
from analysis.roles import classify
from analysis.runs import Run
from pare.errors import InputError

ALPHA = 1.5


def timestep_weight(timestep: np.ndarray, train_timesteps: float = 1000.0) -> np.ndarray:
    """w(t) = log(1 + t/T) (PARE, Eq. 3): 0 at t = 0, ln 2 at t = T.

    >>> timestep_weight(np.array([0.0, 1000.0])).round(4).tolist()
    [0.0, 0.6931]
    """
    return np.log1p(np.asarray(timestep, float) / train_timesteps)


def head_importance(value_norm: np.ndarray, timesteps: np.ndarray, output_weight_norm: np.ndarray) -> np.ndarray:
    """s[i, j] = mean over samples of Σ_t w(t)·‖ṽ_ij‖_F·‖W_O^{i,j}‖_F (PARE, Eq. 3): [block, head].

    `value_norm` is [sample, step, branch, block, head], `timesteps` [step] in 0..1000, `output_weight_norm`
    [block, head]. Branches are averaged like samples; missing cells (NaN) are left out of the average; a step that no
    sample has makes the head's importance NaN.

    >>> norms = np.ones((2, 1, 1, 1, 3)) * [1.0, 2.0, 3.0]
    >>> head_importance(norms, np.array([1000.0]), np.ones((1, 3))).round(3).tolist()
    [[0.693, 1.386, 2.079]]
    """
    return norm_over_timesteps(value_norm, timesteps) * output_weight_norm


def norm_over_timesteps(value_norm: np.ndarray, timesteps: np.ndarray) -> np.ndarray:
    """Σ_t w(t)·‖ṽ_ij‖_F, the norms [sample, step, branch, block, head] averaged at each step: [block, head].

    >>> norm_over_timesteps(np.full((2, 1, 1, 1, 3), 2.0), np.array([1000.0])).round(3).tolist()
    [[1.386, 1.386, 1.386]]
    """
    return np.einsum("t,tbh->bh", timestep_weight(timesteps), average(np.asarray(value_norm), (0, 2)))


def protected(importance: np.ndarray, roles: np.ndarray, alpha: float = ALPHA) -> np.ndarray:
    """s̃ = α·s for temporal heads, s otherwise (PARE, Eq. 5); `roles` holds the letters of `analysis.roles.classify`.

    A score below 0, which Eq. 3 does not give but other scorers do, is divided by α: protection always raises.

    >>> protected(np.array([2.0, 2.0]), np.array(["T", "S"]), alpha=1.5).tolist()
    [3.0, 2.0]
    """
    check_alpha(alpha)
    importance = np.asarray(importance, float)
    lifted = np.where(importance < 0, importance / alpha, importance * alpha)
    return np.where(np.asarray(roles) == "T", lifted, importance)


def check_alpha(alpha: float) -> None:
    """Raise InputError unless 1 <= α < ∞.

    >>> check_alpha(1.5)
    """
    if not 1 <= alpha < float("inf"):
        raise InputError(
            "--alpha", got=alpha, expected="a number of at least 1", fix="1 protects nothing, PARE has 1.5"
        )


def run_importance(run: Run, branch: str | None = None) -> dict[str, np.ndarray]:
    """Eq. 3 over a run, from its summary: {"self": [block, head], "cross": [block, head]}.

    Cross-attention to text and, for image-to-video, to the image are summed per head. Raises InputError where the run
    has no value norms.
    """
    parts = {"self": ("self/value_norm",), "cross": ("cross/value_norm", "cross/image_value_norm")}
    result = {}
    for kind, names in parts.items():
        if names[0] not in run.statistics:
            raise InputError(
                str(run.folder),
                got=f"no {names[0]}",
                expected="value norms, which importance needs",
                fix="capture them",
            )
        norms = [_branches(run, name, branch)[None] for name in names if name in run.statistics]
        weight = run.output_weight_norm(kind).astype(float)
        result[kind] = np.sum([head_importance(norm, run.timesteps, weight) for norm in norms], axis=0)
    return result


def mean_ratio(run: Run, branch: str | None = None) -> np.ndarray:
    """The intra-slice ratio averaged over samples, then steps and branches, from the run's summary: [block, head].

    The same as `analysis.roles.overall_ratio` of the samples; NaN where a head was never measured.
    """
    return average(_branches(run, "self/ratio", branch), (0, 1))


def run_roles(run: Run, tau_s: float, tau_t: float, branch: str | None = None) -> np.ndarray:
    """Role letters [block, head] of the run's mean ratios."""
    return classify(mean_ratio(run, branch), tau_s, tau_t)


def _branches(run: Run, name: str, branch: str | None) -> np.ndarray:
    mean = run.summary(name)["mean"]
    return mean if branch is None else mean[:, [run.branch_index(branch)]]
