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
MEAN = "mean"
"""Stands for the mean over all numbers of heads, which decides."""
FEWEST = 10
"""Prompts below which chance alone puts every difference on one side too often, given so many comparisons."""

CLAIM = (
    "Switching off the most temporal heads of every block hurts motion more, and appearance less, than switching off as "
    "many of its most spatial, random, or unimportant heads."
)
RULE = (
    "Damage is how much worse a video is than the dense model's of the same prompt and seed, per outcome, motion and "
    "appearance apart. Against each control, the damage of the temporal set less that of the control, averaged over the "
    "numbers of heads removed, gets an interval over prompts that holds together over all decisive comparisons "
    "(Bonferroni); with fewer than 10 prompts that an outcome asks about it stays open. Motion is hurt more where an "
    "interval of a motion outcome lies above 0 and none below; appearance less where one of appearance lies below 0 and "
    "none above. The claim is true when both hold against every control, and falsified when one is surely the other way "
    "round against any."
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
        if name not in videos.columns or not videos[name].notna().any():
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


def _by_prompt(damage: pd.DataFrame, *keys: str) -> pd.DataFrame:
    """Mean damage per prompt (the columns) of every group of `keys` (the rows); seeds and draws are averaged."""
    return damage.groupby([*keys, "prompt"], sort=True)["damage"].mean().unstack("prompt")


def _contrasts(damage: pd.DataFrame, controls: list[str], decisive: list[str], seed: int) -> pd.DataFrame:
    """Damage of the temporal set less that of each control, per outcome, at each number of heads, and their mean."""
    over_all, apart = _by_prompt(damage, "outcome", "kind"), _by_prompt(damage, "outcome", "kind", "removed")
    counts = sorted(int(each) for each in damage["removed"].unique())
    rows, differences = [], []
    for name in damage["outcome"].unique():
        for control in controls:
            for removed in [None, *counts]:
                pair = [
                    (over_all.loc[(name, kind)] if removed is None else apart.loc[(name, kind, removed)]).to_numpy(
                        float
                    )
                    for kind in (TEMPORAL, control)
                ]
                difference = pair[0] - pair[1]
                # What an outcome does not ask of a prompt (a still digit has no direction) is missing in both.
                there = ~np.isnan(difference)
                means = [float(each[there].mean()) if there.any() else np.nan for each in (*pair, difference)]
                words = MEAN if removed is None else str(removed)
                about = {"group": OUTCOMES[name].group, "outcome": name, "control": control, "removed": words}
                rows.append(
                    about | dict(zip(("temporal", "other", "difference"), means, strict=True)) | {"n": int(there.sum())}
                )
                differences.append(difference)
    table, values = pd.DataFrame(rows), np.stack(differences, axis=1)
    table["low"], table["high"] = bootstrap_interval(values, seed, draws=DRAWS)
    table["decides"] = table["outcome"].isin(decisive) & (table["removed"] == MEAN)
    level = 1 - 0.05 / max(1, int(table["decides"].sum()))
    sure = bootstrap_interval(values, seed, level, DRAWS)
    for name, ends in zip(("sure_low", "sure_high"), sure, strict=True):
        table[name] = np.where(table["decides"], ends, np.nan)
    return table


def _verdict(contrasts: pd.DataFrame, controls: list[str]) -> tuple[Verdict, dict[tuple[str, str], str]]:
    """The verdict, and per (control, group) whether the claim holds there: yes, no (the other way round), undecided."""
    states: dict[tuple[str, str], str] = {}
    for control in controls:
        for group, sign in ((MOTION, 1), (APPEARANCE, -1)):
            rows = contrasts[contrasts["decides"] & (contrasts["control"] == control) & (contrasts["group"] == group)]
            rows = rows[rows["n"] >= FEWEST]
            low, high = (rows["sure_low"], rows["sure_high"]) if sign > 0 else (-rows["sure_high"], -rows["sure_low"])
            as_claimed, reversed_ = bool((low > 0).any()), bool((high < 0).any())
            states[control, group] = "undecided" if as_claimed == reversed_ else "yes" if as_claimed else "no"
    found = list(states.values())
    if "no" in found:
        return "no", states
    return ("yes" if found and set(found) == {"yes"} else "undecided"), states


def _outcomes(damage: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Every set's outcome and damage: mean over prompts with interval and n; draws of random sets together."""
    keys = ["outcome", "kind", "removed"]
    own = _by_prompt(damage, *keys)
    low, high = bootstrap_interval(own.to_numpy(float).T, seed, draws=DRAWS)
    there = damage.dropna(subset=["damage"]).groupby(keys, sort=True)
    table = pd.DataFrame(
        {
            "dense": there["dense"].mean(),
            "value": there["value"].mean(),
            "damage": own.mean(axis=1),
            "low": pd.Series(low, own.index),
            "high": pd.Series(high, own.index),
            "n": own.notna().sum(axis=1),
            "videos": there.size(),
        }
    ).reset_index()
    table.insert(0, "group", [OUTCOMES[name].group for name in table["outcome"]])
    order = {name: at for at, name in enumerate(OUTCOMES)}
    kinds = {name: at for at, name in enumerate(WORDS)}
    return table.sort_values(
        ["outcome", "removed", "kind"],
        key=lambda c: c.map(order | kinds) if c.name != "removed" else c,
        ignore_index=True,
    )


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
    for group, claimed, reversed_ in ((MOTION, "more", "less"), (APPEARANCE, "less", "more")):
        by = {state: [control for (control, g), s in states.items() if g == group and s == state] for state in
              ("yes", "no", "undecided")}  # fmt: skip
        said = [
            f"{word} {listed(by[state])} ones"
            for state, word in (
                ("yes", f"{claimed} than"),
                ("no", f"{reversed_} than"),
                ("undecided", "undecided against"),
            )
            if by[state]
        ]
        parts.append(f"{group} {', '.join(said)}")
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
    notes = [f"Sets: {listed(kinds)}; {counted(draws, 'draw')} of random ones."]
    if prompts < FEW:
        notes.append(
            f"{counted(prompts, 'prompt')}: percentile intervals over so few are too narrow; take more before trusting."
        )
    if not oracle:
        notes.append(
            "SSIM and PSNR to the dense video also fall when something moves otherwise: they are not appearance alone."
        )
    notes.append("Every set takes as many heads of every block: sets differ in their heads, not in where these lie.")
    notes.append("An interval that holds 0 is no proof that sets do equal damage; it says that n is too small to tell.")
    return tuple(notes)
