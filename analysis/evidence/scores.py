"""Question: which scores of heads predict what switching a head off does?"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import hypergeom

from analysis.evidence.answer import Answer, Verdict
from analysis.evidence.words import counted, spread
from analysis.rank_correlation import rank_correlations
from analysis.scores import Scores

TRUTH, ASKED, CONTROL = "leave_one_out", "pare", "random"
PREDICTS = 0.3
LOWEST = 0.25
"""The share of heads with the smallest effect: what a pruning would take first."""

CLAIM = "Eq. 3 (pare) predicts, inside blocks, how far the velocity moves when a self-attention head is switched off."
RULE = (
    "The true effect of a head is the mean squared change of the velocity when it alone is off, over the velocity's own "
    "mean square, on fixed inputs. A score predicts it where the 95 % interval of Spearman's ρ with it lies above 0.3. The "
    "claim is true when that holds for Eq. 3 over the self-attention heads inside blocks, where PARE ranks them, and "
    "falsified when the interval lies below 0.3. One score is named in the claim, so nothing is corrected for it; of the "
    "others the best of several looks better than it is."
)
MEASURED = (
    "Spearman's rank correlation of every score with the effect of switching single heads off, over all heads and inside "
    "blocks, and how many of the quarter of heads with the least effect each score finds. What heads do together, and what "
    "becomes of whole videos, is another question."
)


def answer(scores: Mapping[str, Scores], *, timesteps: Sequence[float], seed: int = 0, draws: int = 500) -> Answer:
    """Correlation of every score with the one called `leave_one_out`, among `scores` by name.

    The intervals redraw samples and heads together (`analysis.rank_correlation`).
    """
    table = rank_correlations(scores, seed, draws=draws)
    table = table[(table["a"] == TRUTH) | (table["b"] == TRUTH)]
    scorer = np.where(table["a"] == TRUTH, table["b"], table["a"])
    samples = np.where(table["a"] == TRUTH, table["samples_b"], table["samples_a"])
    correlations = pd.DataFrame(
        {
            "kind": table["kind"],
            "scope": table["scope"],
            "scorer": scorer,
            "spearman": table["spearman"],
            "low": table["low"],
            "high": table["high"],
            "heads": table["heads"],
            "samples": samples,
            "n": scores[TRUTH].n,
        }
    ).sort_values(["kind", "scope", "spearman"], ascending=[False, True, False], kind="stable", ignore_index=True)
    decisive = correlations[(correlations["kind"] == "self") & (correlations["scope"] == "block")]
    asked = decisive[decisive["scorer"] == ASKED]
    verdict: Verdict = "undecided"
    if len(asked):
        verdict = (
            "yes" if asked["low"].iloc[0] > PREDICTS else "no" if asked["high"].iloc[0] < PREDICTS else "undecided"
        )
    heads = int(sum(np.isfinite(scores[TRUTH].score(kind)).sum() for kind in scores[TRUTH].values))
    return Answer(
        question="scores",
        claim=CLAIM,
        verdict=verdict,
        sentence=_sentence(verdict, decisive),
        rule=RULE,
        measured=MEASURED,
        n={"samples": scores[TRUTH].n, "timesteps": len(timesteps), "heads": heads, "scores": len(scores) - 1},
        tables={"correlations": correlations, "lowest": _lowest(scores), "heads": _heads(scores)},
        notes=_notes(scores, decisive),
        settings={"timesteps": [float(t) for t in timesteps], "seed": seed, "draws": draws},
    )


def _lowest(scores: Mapping[str, Scores]) -> pd.DataFrame:
    """How many of the heads with the least effect are also among each score's lowest, and how often chance does as well."""
    rows = []
    for kind in scores[TRUTH].values:
        effect = scores[TRUTH].score(kind).ravel()
        for name, each in scores.items():
            if name == TRUTH or kind not in each.values:
                continue
            score = each.score(kind).ravel()
            there = np.flatnonzero(np.isfinite(effect) & np.isfinite(score))
            k = max(1, int(LOWEST * len(there)))
            low = [set(there[np.argsort(values[there], kind="stable")[:k]]) for values in (effect, score)]
            hits = len(low[0] & low[1])
            rows.append(
                {
                    "kind": kind,
                    "scorer": name,
                    "found": hits,
                    "of": k,
                    "by_chance": k * k / len(there),
                    "p": float(hypergeom.sf(hits - 1, len(there), k, k)),
                    "n": len(there),
                }
            )
    return pd.DataFrame(rows).sort_values(["kind", "found"], ascending=False, kind="stable", ignore_index=True)


def _heads(scores: Mapping[str, Scores]) -> pd.DataFrame:
    parts = []
    for kind in scores[TRUTH].values:
        effect = scores[TRUTH].score(kind)
        low, high = scores[TRUTH].interval(kind)
        block, head = np.indices(effect.shape)
        columns: dict[str, Any] = {"block": block, "head": head, "effect": effect, "low": low, "high": high}
        columns |= {name: each.score(kind) for name, each in scores.items() if name != TRUTH and kind in each.values}
        flat = pd.DataFrame({name: np.asarray(values).ravel() for name, values in columns.items()})
        flat.insert(0, "kind", kind)
        flat.insert(6, "n", scores[TRUTH].n)
        parts.append(flat)
    return pd.concat(parts, ignore_index=True)


def _sentence(verdict: Verdict, decisive: pd.DataFrame) -> str:
    start = {"yes": "Yes: ", "no": "No: ", "undecided": "Undecided: "}[verdict]
    asked, others = decisive[decisive["scorer"] == ASKED], decisive[~decisive["scorer"].isin([ASKED, CONTROL])]
    say = lambda row: spread(row["spearman"], row["low"], row["high"])  # noqa: E731
    if not len(asked):
        text = "no score of Eq. 3 was given"
    else:
        text = f"inside blocks Eq. 3 correlates with the effect of switching a head off with ρ = {say(asked.iloc[0])}"
    if len(others):
        best = others.loc[others["spearman"].fillna(-2).idxmax()]
        text += f"; of the other {counted(len(others), 'score')} {best['scorer']} does best with {say(best)}"
    control = decisive[decisive["scorer"] == CONTROL]
    if len(control):
        text += f"; random scores have {say(control.iloc[0])}"
    return f"{start}{text}."


def _notes(scores: Mapping[str, Scores], decisive: pd.DataFrame) -> tuple[str, ...]:
    truth = scores[TRUTH].n
    notes = [
        "The effect is that of one head at a time; heads that stand in for each other look useless here.",
        f"{counted(truth, 'sample')} behind the effect" + ("; intervals over so few are rough." if truth < 10 else "."),
    ]
    if decisive["spearman"].isna().any():
        notes.append("A correlation is not defined where a score gives every head of a block the same.")
    return tuple(notes)
