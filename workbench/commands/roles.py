"""`pare roles`: which heads are spatial, mixed and temporal, from a run."""

from pathlib import Path
from typing import Any

from analysis.evidence.words import counted
from analysis.importance import protected, run_importance
from analysis.roles import TAU_S, TAU_T, check_thresholds, role_counts, role_table
from analysis.runs import Run
from analysis.thresholds import suggest_thresholds
from pare.files import check_output, replacing
from workbench.step_range import step_range


def roles(
    run: str | Path,
    *,
    tau_s: float = TAU_S,
    tau_t: float = TAU_T,
    branch: str | None = None,
    sample: int | None = None,
    steps: str | None = None,
    csv: str | Path | None = None,
    parquet: str | Path | None = None,
) -> dict[str, Any]:
    """Roles of all self-attention heads at two thresholds, averaged over samples, timesteps and branches, or over a part of
    them: one `sample`, `steps` first-last, one `branch`.

    Every head comes with its ratio, 95 % bootstrap interval over the n samples, the share of cells that agree with its
    role, and its importance (Eq. 3, over all samples and steps). `csv` and `parquet` name tables to write. Raises
    `InputError` for an unreadable run, thresholds out of order, and a sample, steps or a branch that the run does not have.
    """
    check_thresholds(tau_s, tau_t)
    opened = Run.open(run)
    for flag, path in (("--csv", csv), ("--parquet", parquet)):
        if path is not None:
            check_output(path, flag)
    chosen = None
    if steps is not None:
        first, last = step_range(steps, len(opened.timesteps))
        chosen = list(range(first, last + 1))
    table = role_table(opened, tau_s, tau_t, branch, sample=sample, steps=chosen)
    importance = run_importance(opened, branch)
    table["importance"] = importance["self"].ravel()
    table["protected"] = protected(
        importance["self"], table["role"].to_numpy().reshape(importance["self"].shape)
    ).ravel()
    table["cross_importance"] = importance["cross"].ravel()
    if csv is not None:
        with replacing(csv) as temporary:
            table.to_csv(temporary, index=False)
    if parquet is not None:
        with replacing(parquet) as temporary:
            table.to_parquet(temporary, index=False)
    return {
        "run": str(run),
        "run_hash": opened.hash,
        "model": opened.model_id,
        "tau_s": tau_s,
        "tau_t": tau_t,
        "branches": [branch] if branch else list(opened.branches),
        "samples": len(opened.finished) if sample is None else 1,
        "steps": len(opened.timesteps) if chosen is None else len(chosen),
        "uniform_ratio": opened.uniform,
        "counts": role_counts(table["role"].to_numpy()),
        "near_a_threshold": int(table["flips"].sum()),
        "temporal_but_marked": int(((table["role"] == "T") & (table["mark"] != "")).sum()) if "mark" in table else None,
        "suggested": dict(zip(("tau_s", "tau_t"), suggest_thresholds(table["ratio"].to_numpy()), strict=True)),
        "heads": table.to_dict(orient="records"),
        "csv": None if csv is None else str(csv),
        "parquet": None if parquet is None else str(parquet),
    }


def render(result: dict[str, Any]) -> str:
    """The result for people: the counts, then one line of letters per block."""
    counts = ", ".join(f"{count} {role}" for role, count in result["counts"].items())
    uniform = result["uniform_ratio"]
    note = ", which counts as temporal" if uniform < result["tau_t"] else ""
    lines = [
        f"{result['model']}: {counts} (tau_s {result['tau_s']:g}, tau_t {result['tau_t']:g})",
        f"over {counted(result['samples'], 'sample')} x {counted(result['steps'], 'timestep')}, "
        f"{' and '.join(result['branches'])}; {result['near_a_threshold']} heads within 0.02 of a threshold",
        f"uniform attention would have r = {uniform:.3f}{note}",
    ]
    marked = any(head.get("mark") for head in result["heads"])
    if marked:
        lines.append(
            f"{result['temporal_but_marked']} of the temporal heads are uniform (u) or first-frame sinks (f): "
            "their low ratio says nothing of motion"
        )
    gaps = [f"{name} {value:g}" for name, value in result["suggested"].items() if value is not None]
    if gaps:
        lines.append(f"gaps in the histogram of ratios suggest {' and '.join(gaps)}")
    lines.append("block  heads 0, 1, … (S spatial, M mixed, T temporal)")
    letters: dict[int, list[str]] = {}
    for head in result["heads"]:
        text = (head["role"] or "?") + head.get("mark", "").lower()
        letters.setdefault(head["block"], []).append(text.ljust(3) if marked else text)
    lines += [f"{block:5d}  {' '.join(row).rstrip()}" for block, row in letters.items()]
    lines += [f"written {result[name]}" for name in ("csv", "parquet") if result[name]]
    return "\n".join(lines)
