"""The scores that heads are ranked by when a mask is made: Eq. 3, or a scorer that stands in its place."""

import hashlib
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from analysis.importance import run_importance
from analysis.runs import Run
from analysis.score_table import ENDINGS, is_table, read_scores, table_file
from analysis.scores import Scores, random_scores, run_scores
from pare.errors import InputError
from pare.geometry import Geometry

SCORERS = ("pare", "projected_energy", "temporal_attention", "magnitude", "random")
BY_TABLE = {"gate_gradient": "gate_gradient", "gate_taylor": "gate_taylor", "leave_one_out": "effect",
            "integrated_gradients": "integrated_gradients"}  # fmt: skip
"""Scorers that run the model, and their column in an answer of `pare evidence scores`."""


@dataclass(frozen=True, eq=False)
class HeadScores:
    """What heads are ranked by: `values` {"self": [block, head], "cross": …}, and what made them (`source`)."""

    values: Mapping[str, np.ndarray]
    source: Mapping[str, Any] = field(default_factory=dict)


def head_scores(
    scorer: str,
    geometry: Geometry,
    *,
    run: Run | None = None,
    weights: Path | None = None,
    branch: str | None = None,
    seed: int = 0,
    read: Callable[[Run, str, str | None], Scores] = run_scores,
) -> HeadScores:
    """Scores of every head of a model by the scorer of this name, or from a table (`FILE` or `FILE#COLUMN`, a file that
    `analysis.score_table.read_scores` reads).

    `pare` (Eq. 3), `projected_energy` and `temporal_attention` (1 − r; cross-attention, which has none, by Eq. 3) need the
    `run`, `magnitude` the folder of the transformer's `weights`, `random` nothing but its seed. A table without
    cross-attention is completed by the run's Eq. 3. `read` gives the scores that are read from a run's samples, where the
    caller holds them. Raises InputError for an unknown scorer and for what it needs and is not there.
    """
    check_scorer(scorer)
    if is_table(scorer):
        return _from_table(scorer, geometry, run, branch)
    if scorer == "random":
        scores = random_scores(geometry.blocks, geometry.heads, seed)
        return HeadScores({kind: scores.score(kind) for kind in ("self", "cross")}, {"scorer": scorer, "seed": seed})
    if scorer == "magnitude":
        if weights is None:
            raise InputError("--scorer", got="magnitude without weights", expected="a model", fix="--model MODEL")
        # By name, so that the app, which never does this, stays free of torch.
        scores = importlib.import_module("analysis.stored_magnitude").stored_magnitude(weights, geometry)
        return HeadScores({kind: scores.score(kind) for kind in ("self", "cross")}, {"scorer": scorer})
    if run is None:
        raise InputError(
            "RUN", got="none", expected=f"a run, which {scorer} ranks by", fix="pare capture MODEL --out RUN"
        )
    if scorer == "projected_energy":
        if branch is not None:
            run.branch_index(branch)
        energy = read(run, scorer, branch)
        return HeadScores({kind: energy.score(kind) for kind in ("self", "cross")}, {"scorer": scorer})
    if scorer == "temporal_attention":
        if branch is not None:
            run.branch_index(branch)
        own = read(run, scorer, branch).score("self")
        source = {"scorer": scorer, "cross_scorer": "pare"}
        return HeadScores({"self": own, "cross": run_importance(run, branch)["cross"]}, source)
    return HeadScores(run_importance(run, branch), {"scorer": scorer})


def check_scorer(scorer: str) -> None:
    """Raise InputError unless a mask can be made by this scorer.

    >>> check_scorer("pare")
    """
    if scorer in BY_TABLE:
        raise InputError(
            "--scorer",
            got=f"{scorer}, which runs the model",
            expected=f"{', '.join(SCORERS)} or a table ({', '.join(ENDINGS)})",
            fix=f"pare evidence scores MODEL --out SCORES, then --scorer SCORES/evidence.json#{BY_TABLE[scorer]}",
        )
    if scorer not in SCORERS and not is_table(scorer):
        expected = f"{', '.join(SCORERS)} or a table ({', '.join(ENDINGS)})"
        raise InputError("--scorer", got=scorer, expected=expected, fix=f"--scorer {SCORERS[0]}")


def _from_table(scorer: str, geometry: Geometry, run: Run | None, branch: str | None) -> HeadScores:
    scores, path = read_scores(scorer, geometry), table_file(scorer)[0]
    # The name and the content say which table it was; where it lay does not matter.
    source = {"scorer": scores.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    values = {kind: scores.score(kind) for kind in scores.values}
    missing = [kind for kind in ("self", "cross") if kind not in values]
    if missing and run is None:
        got = f"no scores for {missing[0]}-attention, and no run"
        raise InputError(str(path), got=got, expected="both kinds", fix="a column kind with self and cross, or a RUN")
    if missing and run is not None:
        importance = run_importance(run, branch)
        values |= {kind: importance[kind] for kind in missing}
        source |= {f"{kind}_scorer": "pare" for kind in missing}
    return HeadScores(values, source)
