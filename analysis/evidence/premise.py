"""Question: does switching off temporal heads hurt motion more, and appearance less, than as many other heads?"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from analysis.evidence.answer import Answer, Verdict
from analysis.evidence.head_sets import TEMPORAL, WORDS, HeadSet
from analysis.evidence.words import counted, listed
from analysis.paired import DRAWS
from analysis.roles import bootstrap_interval

DENSE = "dense"
FEW = 20

CLAIM = (
    "Switching off the most temporal heads hurts motion more, and appearance less, than switching off as many of the most "
    "spatial, of random, or of unimportant heads."
)
RULE = (
    "Damage is how much worse a video is than the dense model's of the same prompt and seed, per outcome, motion and "
    "appearance apart. Against each control, the damage of the temporal set less that of the control, averaged over the "
    "numbers of heads removed, gets an interval over prompts that holds together over all decisive comparisons "
    "(Bonferroni). Motion is hurt more where an interval of a motion outcome lies above 0 and none below; appearance less "
    "where one of appearance lies below 0 and none above. The claim is true when both hold against every control, and "
    "falsified when one is surely the other way round against any."
)


@dataclass(frozen=True)
class Outcome:
    """A number of a video and how it becomes damage: `loss` dense − ablated, `gain` ablated − dense, `shortfall` 1 − it,
    `negative` −it, `as is`. `decides`: with an oracle, without one, or never.
    """

    group: Literal["motion", "steadiness", "appearance"]
    title: str
    unit: str
    how: Literal["loss", "gain", "shortfall", "negative", "as is"]
    decides: Literal["oracle", "metrics", "never"] = "never"


OUTCOMES: dict[str, Outcome] = {
    "direction": Outcome("motion", "direction wrong", "share", "loss", "oracle"),
    "speed": Outcome("motion", "speed wrong", "share", "loss", "oracle"),
    "flow_error": Outcome("motion", "flow error to dense", "px/frame", "as is", "metrics"),
    "flow_magnitude": Outcome("motion", "optical flow lost", "px/frame", "loss"),
    "digit": Outcome("appearance", "digit wrong", "share", "loss", "oracle"),
    "colour": Outcome("appearance", "colour wrong", "share", "loss", "oracle"),
    "ssim": Outcome("appearance", "1 − SSIM to dense", "0..1", "shortfall", "metrics"),
    "psnr": Outcome("appearance", "−PSNR to dense", "dB", "negative"),
    "sharpness": Outcome("appearance", "sharpness lost", "0..1", "loss"),
    "warp_error": Outcome("steadiness", "warp error gained", "0..1²", "gain"),
    "flicker": Outcome("steadiness", "flicker gained", "0..1", "gain"),
}
MOTION, APPEARANCE = "motion", "appearance"


def answer(
    videos: pd.DataFrame, sets: Sequence[HeadSet], *, about: pd.DataFrame | None = None, seed: int = 0
) -> Answer:
    """What the videos say: `videos` has one row per video with `set` (a name of `sets`, or dense), prompt, seed and the
    numbers of OUTCOMES that were taken; the oracle's are 1 for right, 0 for wrong, NaN where the prompt does not ask.

    `about` (a row per set: heads, their mean ratio, …) is passed on as a table.
    """
    oracle = "digit" in videos.columns and bool(videos["digit"].notna().any())
    damage = _damages(videos, sets)
    controls = list(dict.fromkeys(each.kind for each in sets if each.kind != TEMPORAL))
    decisive = [
        name for name in damage["outcome"].unique() if OUTCOMES[name].decides == ("oracle" if oracle else "metrics")
    ]
    contrasts = _contrasts(damage, controls, decisive, seed)
    verdict, states = _verdict(contrasts, controls)
    prompts = int(videos["prompt"].nunique())
    return Answer(
        question="premise",
        claim=CLAIM,
        verdict=verdict,
        sentence=_sentence(verdict, states, prompts),
        rule=RULE,
        measured=_measured(oracle),
        n={
            "prompts": prompts,
            "videos": len(videos),
            "sets": len(sets),
            "decisive comparisons": int(contrasts["decides"].sum()),
        },
        tables={
            "contrasts": contrasts,
            "outcomes": _outcomes(damage, seed),
            "sets": pd.DataFrame(_about(sets)) if about is None else about,
        },
        notes=_notes(oracle, prompts, sets),
        settings={"seed": seed, "oracle": oracle, "removed": sorted({each.removed for each in sets})},
    )


def _damages(videos: pd.DataFrame, sets: Sequence[HeadSet]) -> pd.DataFrame:
    """One row per video without heads and outcome: kind, removed, draw, prompt, seed, dense, value, damage."""
    key = ["prompt", "seed"]
    dense = videos[videos["set"] == DENSE].set_index(key)
    about = {each.name: each for each in sets}
    ablated = videos[videos["set"].isin(about)]
    rows = []
    for name, outcome in OUTCOMES.items():
        if name not in videos.columns:
            continue
        before = dense[name].reindex(pd.MultiIndex.from_frame(ablated[key])).to_numpy(float)
        value = ablated[name].to_numpy(float)
        damage = {
            "loss": before - value,
            "gain": value - before,
            "shortfall": 1 - value,
            "negative": -value,
            "as is": value,
        }[outcome.how]
        part = ablated[key].assign(
            outcome=name,
            kind=[about[each].kind for each in ablated["set"]],
            removed=[about[each].removed for each in ablated["set"]],
            draw=[about[each].draw for each in ablated["set"]],
            dense=before,
            value=value,
            damage=damage,
        )
        rows.append(part)
    return pd.concat(rows, ignore_index=True)


def _by_prompt(damage: pd.DataFrame, **where: Any) -> pd.Series:
    """Mean damage per prompt of the rows that fit; seeds, draws and numbers of heads are averaged."""
    for name, value in where.items():
        damage = damage[damage[name] == value]
    return damage.groupby("prompt", sort=True)["damage"].mean()


def _contrasts(damage: pd.DataFrame, controls: list[str], decisive: list[str], seed: int) -> pd.DataFrame:
    """Damage of the temporal set less that of each control, per outcome, at each number of heads (0: their mean)."""
    counts = sorted(int(each) for each in damage["removed"].unique())
    comparisons = max(1, len(controls) * len(decisive))
    rows = []
    for name in damage["outcome"].unique():
        own = damage[damage["outcome"] == name]
        for control in controls:
            for removed in [0, *counts]:
                where = {"removed": removed} if removed else {}
                # Prompts that the outcome does not ask about (a still digit has no direction) are missing in both.
                pair = pd.concat(
                    [_by_prompt(own, kind=TEMPORAL, **where), _by_prompt(own, kind=control, **where)], axis=1
                ).dropna()
                difference = (pair.iloc[:, 0] - pair.iloc[:, 1]).to_numpy(float)
                decides = name in decisive and removed == 0
                low, high = bootstrap_interval(difference, seed, draws=DRAWS)
                level = 1 - 0.05 / comparisons
                sure_low, sure_high = bootstrap_interval(difference, seed, level, DRAWS) if decides else (np.nan,) * 2
                rows.append(
                    {
                        "group": OUTCOMES[name].group,
                        "outcome": name,
                        "control": control,
                        "removed": removed,
                        "temporal": float(pair.iloc[:, 0].mean()),
                        "other": float(pair.iloc[:, 1].mean()),
                        "difference": float(difference.mean()) if len(difference) else np.nan,
                        "low": float(low),
                        "high": float(high),
                        "n": len(difference),
                        "decides": decides,
                        "sure_low": float(sure_low),
                        "sure_high": float(sure_high),
                    }
                )
    return pd.DataFrame(rows)


def _verdict(contrasts: pd.DataFrame, controls: list[str]) -> tuple[Verdict, dict[tuple[str, str], str]]:
    """The verdict, and per (control, group) whether the claim holds there: yes, no (the other way round), undecided."""
    states: dict[tuple[str, str], str] = {}
    for control in controls:
        for group, sign in ((MOTION, 1), (APPEARANCE, -1)):
            rows = contrasts[contrasts["decides"] & (contrasts["control"] == control) & (contrasts["group"] == group)]
            low, high = (rows["sure_low"], rows["sure_high"]) if sign > 0 else (-rows["sure_high"], -rows["sure_low"])
            as_claimed, reversed_ = bool((low > 0).any()), bool((high < 0).any())
            states[control, group] = "undecided" if as_claimed == reversed_ else "yes" if as_claimed else "no"
    found = list(states.values())
    if "no" in found:
        return "no", states
    return ("yes" if found and set(found) == {"yes"} else "undecided"), states


def _outcomes(damage: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Every set's outcome and damage: mean over prompts with interval and n; draws of random sets together."""
    rows = []
    for (name, kind, removed), part in damage.groupby(["outcome", "kind", "removed"], sort=False):
        there = part.dropna(subset=["damage"])
        own = there.groupby("prompt", sort=True)["damage"].mean().to_numpy(float)
        low, high = bootstrap_interval(own, seed, draws=DRAWS)
        rows.append(
            {
                "group": OUTCOMES[str(name)].group,
                "outcome": name,
                "kind": kind,
                "removed": removed,
                "dense": float(there["dense"].mean()) if there["dense"].notna().any() else np.nan,
                "value": float(there["value"].mean()),
                "damage": float(own.mean()) if len(own) else np.nan,
                "low": float(low),
                "high": float(high),
                "n": len(own),
                "videos": len(there),
            }
        )
    return pd.DataFrame(rows)


def _about(sets: Sequence[HeadSet]) -> list[dict[str, Any]]:
    return [
        {"set": each.name, "kind": each.kind, "removed": each.removed, "heads": _heads(each), "n": len(each.heads)}
        for each in sets
    ]


def _heads(each: HeadSet) -> str:
    return " ".join(f"{block}.{head}" for block, head in each.heads)


def _sentence(verdict: Verdict, states: dict[tuple[str, str], str], prompts: int) -> str:
    start = {"yes": "Yes: ", "no": "No: ", "undecided": "Undecided: "}[verdict]
    parts = []
    for group, more in ((MOTION, "motion more"), (APPEARANCE, "appearance less")):
        by = {state: [control for (control, g), s in states.items() if g == group and s == state] for state in
              ("yes", "no", "undecided")}  # fmt: skip
        said = [
            f"{word} against {listed(by[state])} heads"
            for state, word in (("yes", "as claimed"), ("no", "the other way round"), ("undecided", "open"))
            if by[state]
        ]
        parts.append(f"{more}: {', '.join(said)}")
    return f"{start}switching off temporal heads hurts {'; '.join(parts)} (n = {counted(prompts, 'prompt')})."


def _measured(oracle: bool) -> str:
    how = (
        "The oracle reads digit and colour (appearance), direction and speed (motion) from the pixels and compares them with "
        "the prompt."
        if oracle
        else "Without an oracle the error of the optical flow to the dense video stands for motion, SSIM to it for appearance."
    )
    return (
        "Videos of the same prompts and seeds with nothing, and with each set of self-attention heads switched off (their "
        f"output zero) at every step and in both branches. {how} All other metrics are shown and decide nothing."
    )


def _notes(oracle: bool, prompts: int, sets: Sequence[HeadSet]) -> tuple[str, ...]:
    kinds = [WORDS[each] for each in dict.fromkeys(each.kind for each in sets)]
    draws = len({each.draw for each in sets if each.kind == "random"})
    notes = [f"Sets: {listed(kinds)}; {counted(draws, 'draw')} of random ones. Every block keeps one head at least."]
    if prompts < FEW:
        notes.append(
            f"{counted(prompts, 'prompt')}: percentile intervals over so few are too narrow; take more before trusting."
        )
    if not oracle:
        notes.append(
            "SSIM and PSNR to the dense video also fall when something moves otherwise: they are not appearance alone."
        )
    notes.append("An interval that holds 0 is no proof that sets do equal damage; it says that n is too small to tell.")
    return tuple(notes)
