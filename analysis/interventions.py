"""Interventions: switch heads off and see what becomes of the velocity or the video."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import pandas as pd
import torch

from analysis.probes import Probe, velocity
from analysis.scores import Scores
from analysis.sweep_file import SweepFile, describe_sweep
from pare.errors import InputError
from pare.gates import Gates, gate_shapes, gated, wan_transformer
from pare.passes import ForwardPass
from pare.progress import Progress, silent

Kind: TypeAlias = Literal["self", "cross"]
KINDS: tuple[Kind, ...] = ("self", "cross")
MODES = ("zero", "mean")
COLUMNS = {
    "head_set": "str", "heads": "int64", "sample": "int64", "step": "int64", "timestep": "float64", "sigma": "float64",
    "change": "float64", "difference": "float64", "velocity": "float64",
}  # fmt: skip


class Head(NamedTuple):
    """One attention head: `self` or `cross`, zero-based block and head."""

    kind: str
    block: int
    head: int


@contextmanager
def ablate(
    pipe: Any,
    heads: Iterable[tuple[str, int, int]],
    steps: Iterable[int] | None = None,
    mode: str = "zero",
    means: Mapping[str, Any] | None = None,
    branch: str | None = None,
) -> Iterator[None]:
    """Switch heads (kind, block, head) off around calls of a pipeline or forwards of a transformer.

    `steps` are the denoising steps where they are off, all unless given; `branch` is `cond` or `uncond`, both unless
    given. `mode` zero removes a head's output; mean puts its mean in the place, from `means` {"self": [blocks, heads,
    head_dim], "cross": …}. For image-to-video a cross-attention head is text and image part together. No hook stays.
    Raises InputError for heads the model does not have and a mean mode without means.

    >>> with ablate(pipe, [("self", 3, 7)], steps=range(10)):  # doctest: +SKIP
    ...     video = pipe(prompt).frames
    """
    gates = ablation(pipe, heads, mode, means)
    if steps is None and branch is None:
        with gated(pipe, gates):
            yield
        return
    chosen = None if steps is None else frozenset(steps)

    def off_here(this: ForwardPass) -> Gates | None:
        here = (chosen is None or this.step in chosen) and branch in (None, this.branch)
        return gates if here else None

    with gated(pipe, off_here):
        yield


def ablation(
    model: Any, heads: Iterable[tuple[str, int, int]], mode: str = "zero", means: Mapping[str, Any] | None = None
) -> Gates:
    """The gates that close these heads of a model, with their means in the mean mode."""
    if mode not in MODES:
        raise InputError("mode", got=mode, expected=" or ".join(MODES), fix="mode='zero'")
    shapes = gate_shapes(model)
    chosen = [Head(*head) for head in heads]
    factors: dict[str, list[torch.Tensor]] = {}
    for kind in KINDS:
        counts = [units for units, _ in shapes[f"{kind}_heads"]]
        factors[kind] = [torch.ones(units) for units in counts]
        for head in chosen:
            if head.kind == kind:
                if not (0 <= head.block < len(counts) and 0 <= head.head < counts[head.block]):
                    raise InputError("heads", got=head, expected=f"{len(counts)} blocks of {counts}", fix="other heads")
                factors[kind][head.block][head.head] = 0.0
    for head in chosen:
        if head.kind not in KINDS:
            raise InputError("heads", got=head, expected="kind self or cross", fix="(kind, block, head)")
    used = [kind for kind in KINDS if any(head.kind == kind for head in chosen)]
    gates: dict[str, Any] = {f"{kind}_heads": factors[kind] for kind in used}
    if mode == "mean":
        for kind in used:
            if means is None or kind not in means:
                raise InputError("means", got=f"none for {kind}", expected="one vector per head", fix="mode='zero'")
            gates[f"{kind}_means"] = torch.as_tensor(means[kind])
    return Gates(**gates)


def sweep(
    model: Any,
    head_sets: Mapping[str, Iterable[tuple[str, int, int]]],
    probes: Sequence[Probe],
    timesteps: Sequence[float],
    *,
    mode: str = "zero",
    means: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    identity: Mapping[str, Any] | None = None,
    resume: bool = False,
    progress: Progress = silent,
) -> pd.DataFrame:
    """How far each named set of heads moves the velocity when it is off, on fixed inputs.

    One row per (head set, sample, step): `change` = mean((v' − v)²) / mean(v²) with v the velocity of the whole model,
    v' without the heads; `difference` and `velocity` are the two means, in squared latent units per element. With `out`
    every row is appended to a JSON-lines file as it is found; `resume` continues that file, after a kill too, to the
    same table, and refuses one of other settings. `identity` names the model in it (`pare.models.model_identity`).
    `progress` is called after every row and may stop the sweep by raising; the rows on disk stay.

    >>> table = sweep(pipe, {"3.7": [("self", 3, 7)]}, probes, (900.0, 500.0))  # doctest: +SKIP
    """
    if not head_sets or not probes or not len(timesteps):
        got = f"{len(head_sets)} head sets, {len(probes)} samples, {len(timesteps)} timesteps"
        raise InputError("sweep", got=got, expected="at least one each", fix="name some")
    transformer = wan_transformer(model)
    sets = {name: tuple(Head(*head) for head in heads) for name, heads in head_sets.items()}
    gates = {name: ablation(transformer, heads, mode, means) for name, heads in sets.items()}
    settings = describe_sweep(transformer, sets, probes, timesteps, mode, means)
    total = len(sets) * len(probes) * len(timesteps)
    with SweepFile(out, {"model": dict(identity or {}), "settings": settings}, resume=resume) as file, torch.no_grad():
        rows = {(row["head_set"], row["sample"], row["step"]): row for row in file.rows}
        for sample, probe in enumerate(probes):
            for step, timestep in enumerate(timesteps):
                missing = [name for name in sets if (name, sample, step) not in rows]
                if not missing:
                    continue
                whole = _precise(velocity(transformer, probe, timestep, step=step))
                for name in missing:
                    with gated(transformer, gates[name]):
                        moved = _precise(velocity(transformer, probe, timestep, step=step)) - whole
                    difference, size = moved.square().mean().item(), whole.square().mean().item()
                    row = {
                        "head_set": name,
                        "heads": len(set(sets[name])),
                        "sample": sample,
                        "step": step,
                        "timestep": float(timestep),
                        "sigma": timestep / 1000,
                        "change": difference / size if size else float("nan"),
                        "difference": difference,
                        "velocity": size,
                    }
                    file.append(row)
                    rows[name, sample, step] = row
                    progress(len(rows), total, f"{name}, sample {sample + 1} of {len(probes)}, timestep {timestep:g}")
    order = [(name, sample, step) for name in sets for sample in range(len(probes)) for step in range(len(timesteps))]
    return pd.DataFrame([rows[key] for key in order], columns=list(COLUMNS)).astype(COLUMNS)


def every_head(model: Any) -> dict[str, list[Head]]:
    """Every head of a model alone, as head sets of `sweep`: {"self 0.0": [Head("self", 0, 0)], …}."""
    shapes = gate_shapes(model)
    return {
        f"{kind} {block}.{head}": [Head(kind, block, head)]
        for kind in KINDS
        for block, (units, _) in enumerate(shapes[f"{kind}_heads"])
        for head in range(units)
    }


def by_head(table: pd.DataFrame, model: Any, column: str = "change") -> dict[str, np.ndarray]:
    """A sweep over `every_head` as arrays: {"self": [sample, block, head], "cross": …}, averaged over steps."""
    mean = table.groupby(["head_set", "sample"], sort=False)[column].mean()
    shapes, samples = gate_shapes(model), table["sample"].max() + 1
    arrays: dict[str, np.ndarray] = {}
    for kind in KINDS:
        widths = [units for units, _ in shapes[f"{kind}_heads"]]
        arrays[kind] = np.full((samples, len(widths), max(widths)), np.nan)
        for block, units in enumerate(widths):
            for head in range(units):
                arrays[kind][:, block, head] = mean[f"{kind} {block}.{head}"].sort_index().to_numpy()
    return arrays


def leave_one_out(
    model: Any,
    probes: Sequence[Probe],
    timesteps: Sequence[float],
    *,
    out: str | Path | None = None,
    resume: bool = False,
    progress: Progress = silent,
) -> Scores:
    """Change of the velocity, mean((v' − v)²) / mean(v²), when one head is off: the ground truth on small models.

    One forward per head, sample and timestep; `out` and `resume` as in `sweep`. A sample's value is its mean over
    timesteps.
    """
    table = sweep(model, every_head(model), probes, timesteps, out=out, resume=resume, progress=progress)
    return Scores("leave_one_out", by_head(table, model))


def _precise(values: torch.Tensor) -> torch.Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))
