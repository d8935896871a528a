"""Question: what does the protection α alone change?"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from analysis.alpha_study import AlphaStudy, alpha_study
from analysis.evidence.answer import Answer, Verdict
from analysis.evidence.words import counted
from analysis.importance import ALPHA
from analysis.roles import LETTERS, ROLES, TAU_S, TAU_T, classify
from analysis.runs import Run
from analysis.scores import pare_scores
from pare.width.heads import kept_count, select_heads

ALPHAS = (1.0, 1.1, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0)
DRAWS = 300
FEWEST = 5
"""Samples below which redrawing them says too little."""

CLAIM = "α changes which self-attention heads stay, by more than another draw of the samples would."
RULE = (
    "A pick is a head that is kept with α and not without it, or the other way round. The claim is true when the 95 % "
    "interval of the number of picks that α changes lies above what 95 % of pairs of other draws of as many samples change "
    "at α = 1, and falsified when it lies at or below it. Below 5 samples it is open."
)
MEASURED = (
    "The heads that Eq. 3 keeps at a uniform count per block, with temporal heads multiplied by α (Eq. 5), from the run "
    "alone: picks that flip, heads kept of every role, and the share of all importance that stays. No video is made."
)


def ask(
    run: Run, *, alpha: float = ALPHA, share: float = 0.3, tau_s: float = TAU_S, tau_t: float = TAU_T, seed: int = 0
) -> Answer:
    """The answer from a run's value norms and ratios, at `share` of the heads removed; see `answer`."""
    samples = run.finished
    ratio = run.array("self/ratio", samples)
    return answer(
        pare_scores(run).values["self"],
        # Cells are averaged per sample first; where none is missing that is the mean that a role goes by.
        np.nanmean(ratio, axis=(1, 2)),
        alpha=alpha,
        share=share,
        tau_s=tau_s,
        tau_t=tau_t,
        seed=seed,
    )


def answer(
    importance: np.ndarray,
    ratio: np.ndarray,
    *,
    alpha: float = ALPHA,
    share: float = 0.3,
    tau_s: float = TAU_S,
    tau_t: float = TAU_T,
    seed: int = 0,
) -> Answer:
    """What α changes, from every sample's importance and mean ratio [sample, block, head].

    Intervals: a bootstrap that redraws samples, and with them importance, roles and picks.
    """
    samples, _, heads = importance.shape
    count = kept_count(heads, share)
    choose = lambda scores: select_heads(scores, count)  # noqa: E731
    alphas = tuple(sorted({*ALPHAS, float(alpha)}))
    whole = _study(importance, ratio, np.ones(samples), choose, alphas, tau_s, tau_t)
    generator = np.random.default_rng(seed)
    counts = generator.multinomial(samples, np.full(samples, 1 / samples), size=DRAWS if samples > 1 else 0)
    drawn = [_study(importance, ratio, each, choose, alphas, tau_s, tau_t) for each in counts]
    mean = importance.mean(axis=0)
    table = _by_alpha(whole, drawn, mean, samples)
    noise = np.array([int((a.kept[0] != b.kept[0]).sum()) for a, b in zip(drawn[::2], drawn[1::2], strict=True)])
    bar = float(np.quantile(noise, 0.95)) if len(noise) else float("nan")
    chosen = table[table["alpha"] == alpha].iloc[0]
    verdict: Verdict = "undecided"
    if samples >= FEWEST:
        verdict = "yes" if chosen["flips_low"] > bar else "no" if chosen["flips_high"] <= bar else "undecided"
    return Answer(
        question="alpha",
        claim=CLAIM,
        verdict=verdict,
        sentence=_sentence(verdict, chosen, table.iloc[0], bar, samples),
        rule=RULE,
        measured=MEASURED,
        n={"samples": samples, "heads": mean.size, "kept": int(count * len(mean)), "draws": len(drawn)},
        tables={"alphas": table, "heads": _by_head(whole, drawn, mean, alphas.index(float(alpha)))},
        notes=_notes(whole, samples),
        settings={
            "alpha": alpha, "ratio": share, "tau_s": tau_s, "tau_t": tau_t, "allocation": "uniform", "seed": seed,
            "resampling_flips": bar,
        },
    )  # fmt: skip


def _study(
    importance: np.ndarray,
    ratio: np.ndarray,
    counts: np.ndarray,
    choose: Callable[[np.ndarray], np.ndarray],
    alphas: tuple[float, ...],
    tau_s: float,
    tau_t: float,
) -> AlphaStudy:
    mean_importance, mean_ratio = (np.average(each, axis=0, weights=counts) for each in (importance, ratio))
    return alpha_study(mean_importance, classify(mean_ratio, tau_s, tau_t), choose, alphas)


def _measures(study: AlphaStudy, importance: np.ndarray) -> dict[str, np.ndarray]:
    """Per α: picks that flip, kept heads of every role, and the share of all importance that stays."""
    return {
        "flips": study.flips.sum(axis=(1, 2)),
        **{
            name: (study.kept & (study.roles == letter)).sum(axis=(1, 2))
            for name, letter in zip(ROLES, LETTERS, strict=True)
        },
        "importance": (study.kept * importance).sum(axis=(1, 2)) / importance.sum(),
    }


def _by_alpha(whole: AlphaStudy, drawn: list[AlphaStudy], importance: np.ndarray, samples: int) -> pd.DataFrame:
    point = _measures(whole, importance)
    spread = [_measures(each, importance) for each in drawn]
    columns: dict[str, Any] = {"alpha": whole.alphas}
    for name, values in point.items():
        columns[name] = values
        ends = (
            np.quantile([each[name] for each in spread], [0.025, 0.975], axis=0)
            if spread
            else np.full((2, len(values)), np.nan)
        )
        columns[f"{name}_low"], columns[f"{name}_high"] = ends
    return pd.DataFrame(columns | {"n": samples})


def _by_head(whole: AlphaStudy, drawn: list[AlphaStudy], importance: np.ndarray, at: int) -> pd.DataFrame:
    blocks, heads = importance.shape
    flips = np.mean([each.flips[at] for each in drawn], axis=0) if drawn else np.full(importance.shape, np.nan)
    columns = {
        "block": np.repeat(np.arange(blocks), heads),
        "head": np.tile(np.arange(heads), blocks),
        "role": whole.roles,
        "importance": importance,
        "kept_without": whole.kept[0],
        "kept_with": whole.kept[at],
        "flips_at": whole.flips_at,
        "flips_in_draws": flips,
    }
    return pd.DataFrame({name: np.asarray(values).ravel() for name, values in columns.items()})


def _sentence(verdict: Verdict, chosen: pd.Series, without: pd.Series, bar: float, samples: int) -> str:
    start = {"yes": "Yes: ", "no": "No: ", "undecided": "Undecided: "}[verdict]
    interval = "" if np.isnan(chosen["flips_low"]) else f" [{chosen['flips_low']:.0f}, {chosen['flips_high']:.0f}]"
    against = (
        "one sample gives no interval"
        if np.isnan(bar)
        else f"another draw of {counted(samples, 'sample')} changes up to {bar:.0f}"
    )
    return (
        f"{start}α = {chosen['alpha']:g} changes {chosen['flips']:.0f}{interval} picks, where {against}; it keeps "
        f"{chosen['temporal']:.0f} temporal heads instead of {without['temporal']:.0f} and "
        f"{chosen['importance']:.1%} of all importance instead of {without['importance']:.1%}."
    )


def _notes(whole: AlphaStudy, samples: int) -> tuple[str, ...]:
    all_temporal = int((whole.roles == "T").all(axis=1).sum())
    notes = [
        "Picks are made per block, so every head that enters pushes one out: flips come in pairs.",
        "What the other picks do to videos is not measured here; `pare mask`, `pare prune` and `pare compare` show it.",
    ]
    if all_temporal:
        notes.append(f"{counted(all_temporal, 'block')} of temporal heads alone: α can change nothing there.")
    if samples < 10:
        notes.append(f"{counted(samples, 'sample')}: intervals over so few are rough.")
    return tuple(notes)
