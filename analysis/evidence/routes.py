"""Question: do routes follow the content?"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.block_values import block_values
from analysis.evidence.answer import Answer, Verdict
from analysis.evidence.words import counted, listed
from analysis.metrics.moving_digits_factors import parse_caption
from analysis.route_variation import RouteVariation, route_variation
from analysis.routes import has_routes, route_array
from analysis.runs import Run
from pare.depth.budget import BudgetSchedule
from pare.depth.decision import choose_blocks

NEGLIGIBLE = 0.01
DEALS = 2000

CLAIM = "Which blocks run depends on the content of the video, not on the timestep alone."
RULE = (
    "Two samples disagree on a decision when one runs the block at that step and the other does not. Routes follow an "
    "attribute of the content when samples that differ in it disagree more than samples that share it, more than labels "
    "dealt at random do (p below 0.05 after Holm's correction over all attributes). The claim is true when they follow one, "
    "and falsified when they follow none and two samples disagree on surely fewer than 1 decision in 100. Without recorded "
    "decisions it stays open, whatever the block norms say."
)
MEASURED = {
    True: "The decisions that a router made while it generated, of every sample, step and block that is not always on.",
    False: "No router was recorded: at every step the blocks that change this sample's own input most would run, as many as "
    "PARE's budget says. It is how far routes could follow the content, not what a router does.",
}


def ask(run: Run, *, k_min: float | None = None, k_max: float | None = None, seed: int = 0) -> Answer:
    """The answer from a run's recorded decisions, else from the block norms of its single samples; see `answer`.

    The budget is that of such would-be decisions, PARE's in proportion unless given.
    """
    prompts = {index: run.manifest.samples[index].prompt for index in run.finished}
    if has_routes(run):
        routes = run.routes()
        samples = sorted(routes["sample"].unique())
        return answer(routes, [prompts[index] for index in samples], recorded=True, seed=seed)
    budget = BudgetSchedule.paper(run.geometry.blocks)
    if k_min is not None or k_max is not None:
        budget = BudgetSchedule.linear(
            *(b if a is None else a for a, b in ((k_min, budget.k_min), (k_max, budget.k_max)))
        )
    routes = would_be_routes(run, budget)
    samples = sorted(routes["sample"].unique())
    found = answer(routes, [prompts[run.finished[index]] for index in samples], recorded=False, seed=seed)
    return found.made_by(source={}, settings={"budget": budget.to_dict()}, command="", versions={})


def would_be_routes(run: Run, budget: BudgetSchedule) -> pd.DataFrame:
    """What every sample's own block norms would decide at a budget: one row per sample, step and block."""
    found = block_values(run)
    timesteps, values = found.timesteps, found.values
    blocks = values.shape[2]
    counts = np.array([budget.count(t, step, blocks) for step, t in enumerate(timesteps)])
    whole = ~np.isnan(values).any(axis=(1, 2))
    ran = choose_blocks(values[whole], counts[None])
    sample, step, block = np.indices(ran.shape)
    columns = {
        "sample": np.flatnonzero(whole)[sample], "step": step, "timestep": timesteps[step], "block": block, "ran": ran,
    }  # fmt: skip
    return pd.DataFrame({name: values.ravel() for name, values in columns.items()})


def answer(routes: pd.DataFrame, prompts: Sequence[str], *, recorded: bool = True, seed: int = 0) -> Answer:
    """How far decisions differ between samples, and which attributes of their `prompts` [sample] they follow.

    `routes` has one row per sample, step and block (`Run.routes`). Attributes are the prompt, where prompts repeat, and
    what moving-digits captions name.
    """
    variation = route_variation(routes)
    ran = route_array(routes, "ran").astype(bool)
    distance = distances(ran[:, :, 1:-1] if ran.shape[2] > 2 else ran[:, :, :0])
    table = _factors(distance, attributes(prompts), seed)
    followed = list(table["attribute"][table["follows"]])
    verdict: Verdict = "undecided"
    # What block norms would decide is no route of anything.
    if recorded and followed:
        verdict = "yes"
    elif recorded and variation.samples > 2 and variation.high < NEGLIGIBLE:
        verdict = "no"
    return Answer(
        question="routes",
        claim=CLAIM,
        verdict=verdict,
        sentence=_sentence(verdict, variation, followed, recorded),
        rule=RULE,
        measured=MEASURED[recorded],
        n={
            "samples": variation.samples,
            "prompts": len(set(prompts)),
            "steps": len(variation.timesteps),
            "blocks": ran.shape[2],
            "attributes": len(table),
        },
        tables={"attributes": table, "steps": _steps(variation), "blocks": _blocks(variation, ran)},
        notes=_notes(table, variation),
        settings={"seed": seed, "recorded": recorded, "deals": DEALS},
    )


def attributes(prompts: Sequence[str]) -> dict[str, np.ndarray]:
    """Labels of the samples by attribute: the prompt where some repeat, and the factors of moving-digits captions.

    >>> {name: list(map(str, labels)) for name, labels in attributes(["a cat", "a dog", "a cat"]).items()}
    {'prompt': ['a cat', 'a dog', 'a cat']}
    """
    found: dict[str, np.ndarray] = {}
    if len(set(prompts)) < len(prompts):
        found["prompt"] = np.array(list(prompts))
    try:
        factors = [parse_caption(prompt) for prompt in prompts]
    except ValueError:
        factors = []
    for name in ("digit", "colour", "direction", "speed") if factors else ():
        found[name] = np.array([str(getattr(each, name)) for each in factors])
    return {name: labels for name, labels in found.items() if 1 < len(set(labels)) < len(labels)}


def distances(ran: np.ndarray) -> np.ndarray:
    """Share of decisions on which every two samples differ: [sample, step, block] in, [sample, sample] out.

    >>> distances(np.array([[[True, False]], [[True, True]]])).tolist()
    [[0.0, 0.5], [0.5, 0.0]]
    """
    flat = ran.reshape(len(ran), -1).astype(float)
    same = flat @ flat.T + (1 - flat) @ (1 - flat).T
    return 1 - same / flat.shape[1] if flat.shape[1] else np.zeros((len(ran), len(ran)))


def excess(distance: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Mean distance of pairs of samples with the same label, and of pairs with different ones.

    >>> excess(np.array([[0, 0, 1], [0, 0, 1], [1, 1, 0.0]]), np.array(["a", "a", "b"]))
    (0.0, 1.0)
    """
    pair = np.triu_indices(len(labels), 1)
    same = labels[pair[0]] == labels[pair[1]]
    values = distance[pair]
    return float(values[same].mean()), float(values[~same].mean())


def _factors(distance: np.ndarray, found: Mapping[str, np.ndarray], seed: int) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for name, labels in found.items():
        within, between = excess(distance, labels)
        dealt = dealt_differences(distance, labels, generator)
        low, high = _jackknife(distance, labels)
        p = (1 + int((dealt >= between - within - 1e-12).sum())) / (1 + DEALS)
        rows.append(
            {
                "attribute": name,
                "values": len(set(labels)),
                "within": within,
                "between": between,
                "difference": between - within,
                "low": low,
                "high": high,
                "p": p,
                "n": len(labels),
            }
        )
    columns = ["attribute", "values", "within", "between", "difference", "low", "high", "p", "n"]
    table = pd.DataFrame(rows, columns=columns)
    table["p_corrected"] = holm(table["p"].to_numpy(float))
    table["follows"] = (table["p_corrected"] < 0.05) & (table["difference"] > 0)
    return table


def dealt_differences(distance: np.ndarray, labels: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Between − within of `excess`, with the labels dealt at random DEALS times."""
    values, codes = np.unique(labels, return_inverse=True)
    members = np.eye(len(values))[codes]
    number, total = len(labels), distance.sum() / 2
    alike = int((members.sum(axis=0) * (members.sum(axis=0) - 1)).sum() / 2)
    apart = number * (number - 1) // 2 - alike
    dealt = np.empty(DEALS)
    for deal in range(DEALS):
        mixed = members[generator.permutation(number)]
        within = (mixed * (distance @ mixed)).sum() / 2
        dealt[deal] = (total - within) / apart - within / alike
    return dealt


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's correction of p-values over all of them.

    >>> holm(np.array([0.01, 0.04, 0.03])).round(2).tolist()
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p, kind="stable")
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(1, np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p)))))
    return corrected


def _jackknife(distance: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """95 % interval of between − within over samples; NaN where leaving one out leaves no pair of either kind."""
    number = len(labels)
    value = np.subtract(*excess(distance, labels)[::-1])
    without = []
    for left_out in range(number):
        kept = np.delete(np.arange(number), left_out)
        same = labels[kept][:, None] == labels[kept][None]
        if same.all() or same.sum() == len(kept):
            return float("nan"), float("nan")
        without.append(np.subtract(*excess(distance[np.ix_(kept, kept)], labels[kept])[::-1]))
    spread = np.array(without)
    margin = 1.96 * np.sqrt((number - 1) / number * np.square(spread - spread.mean()).sum())
    return float(value - margin), float(value + margin)


def _steps(found: RouteVariation) -> pd.DataFrame:
    return pd.DataFrame({"timestep": found.timesteps, "disagreement": found.by_step, "n": found.samples})


def _blocks(found: RouteVariation, ran: np.ndarray) -> pd.DataFrame:
    columns = {"block": np.arange(ran.shape[2]), "disagreement": found.by_block, "ran": ran.mean(axis=(0, 1))}
    return pd.DataFrame(columns | {"n": found.samples})


def _sentence(verdict: Verdict, found: RouteVariation, followed: list[str], recorded: bool) -> str:
    start = {"yes": "Yes: ", "no": "No: ", "undecided": "Undecided: "}[verdict]
    start += "" if recorded else "no router was recorded; "
    who = "with the recorded router" if recorded else "if each sample's own block norms decided"
    if found.disagreement == 0:
        return f"{start}{who}, all {found.samples} samples {'' if recorded else 'would '}run the same blocks."
    if np.isnan(found.disagreement):
        return f"{start}one sample, or no block that may be skipped, says nothing of differences."
    interval = "" if np.isnan(found.low) else f" [{found.low:.1%}, {found.high:.1%}]"
    text = f"{who}, two samples {'' if recorded else 'would '}disagree on {found.disagreement:.1%}{interval} of the decisions"
    if followed:
        return f"{start}{text}, more so where they differ in {listed(followed)}."
    return f"{start}{text}; whether that goes with an attribute of the content is open."


def _notes(table: pd.DataFrame, found: RouteVariation) -> tuple[str, ...]:
    notes = []
    if not len(table):
        notes.append(
            "No attribute of the content is shared by some samples and not by others, so differences of noise and of content "
            "cannot be told apart: record prompts with several seeds."
        )
    if 1 < found.samples < 20:
        notes.append(f"{counted(found.samples, 'sample')}: an attribute must matter much to be seen.")
    notes.append("An attribute that routes follow need not be what the router looks at: attributes go together.")
    return tuple(notes)
