"""A report of answered questions: each with its verdict, its rule, what was measured, its charts, its tables and its command."""

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlencode

import plotly.graph_objects as go

from analysis.evidence.answer import QUESTIONS, VERDICTS, Answer
from analysis.evidence.premise import MOTION, OUTCOMES
from analysis.figures import evidence as figures
from pare.errors import InputError
from workbench.pages.text import command_line, short_path
from workbench.report.origin import model_facts, setting_facts, version_facts
from workbench.report.part import Part, Report
from workbench.state import Selection

KINDS = {"self": "self-attention", "cross": "cross-attention"}


def agreement(answer: Answer, path: Path) -> Part:
    """How well roles agree over every factor."""
    return _part(
        answer,
        path,
        figures.agreement_by_factor(answer.tables["factors"]),
        title="Agreement of roles by factor",
        alt=f"Agreement of roles over each factor with its 95 % interval. {answer.sentence}",
        table="factors",
        call="agreement_by_factor(table)",
    )


def contrasts(answer: Answer, path: Path, group: str) -> Part:
    """Damage by temporal heads less that by each control, for motion or for appearance."""
    return _part(
        answer,
        path,
        figures.damage_contrasts(answer.tables["contrasts"], group),
        title=group.capitalize(),
        alt=f"Damage to {group} by temporal heads less that by each control, with the intervals that decide.",
        table="contrasts",
        call=f"damage_contrasts(table, {group!r})",
    )


def outcomes_of(answer: Answer) -> list[str]:
    """The outcomes that were measured for the premise, in their order."""
    return [name for name in OUTCOMES if name in set(answer.tables["outcomes"]["outcome"])]


def damage(answer: Answer, path: Path, outcome: str) -> Part:
    """Damage to one outcome by how many heads are off."""
    return _part(
        answer,
        path,
        figures.damage_by_number(answer.tables["outcomes"], outcome),
        title=f"Damage by number of heads: {OUTCOMES[outcome].title}",
        alt=f"Damage, {OUTCOMES[outcome].title}, by how many heads are off, a line per kind of set.",
        table="outcomes",
        call=f"damage_by_number(table, {outcome!r})",
    )


def picks(answer: Answer, path: Path) -> Part:
    """What α changes."""
    bar, chosen = answer.settings.get("resampling_flips"), float(answer.settings.get("alpha", 1.5))
    return _part(
        answer,
        path,
        figures.picks_over_alpha(answer.tables["alphas"], chosen=chosen, bar=bar),
        title="Picks that α changes",
        alt=f"Picks that α changes and temporal heads kept, by α. {answer.sentence}",
        table="alphas",
        call=f"picks_over_alpha(table, chosen={chosen:g}, bar={bar!r})",
    )


def kinds_of(answer: Answer) -> list[str]:
    """The kinds of attention whose scores were measured."""
    return list(dict.fromkeys(answer.tables["correlations"]["kind"]))


def correlations(answer: Answer, path: Path, kind: str) -> Part:
    """How well scores foretell what switching a head off does."""
    return _part(
        answer,
        path,
        figures.score_correlations(answer.tables["correlations"], kind),
        title=f"Scores and effects of {KINDS[kind]} heads",
        alt=f"Rank correlation of every score with the effect of switching a head off. {answer.sentence}",
        table="correlations",
        call=f"score_correlations(table, {kind!r})",
    )


def attributes(answer: Answer, path: Path) -> Part | None:
    """How decisions differ with attributes of the content; None where none is known."""
    if not len(answer.tables["attributes"]):
        return None
    return _part(
        answer,
        path,
        figures.attribute_differences(answer.tables["attributes"]),
        title="Decisions by content",
        alt=f"How much more samples disagree that differ in an attribute of the content. {answer.sentence}",
        table="attributes",
        call="attribute_differences(table)",
    )


def disagreement(answer: Answer, path: Path) -> Part:
    """How often samples decide differently, by timestep."""
    return _part(
        answer,
        path,
        figures.disagreement_over_steps(answer.tables["steps"]),
        title="Disagreement by timestep",
        alt="Chance that two samples decide differently on a block, by timestep.",
        table="steps",
        call="disagreement_over_steps(table)",
    )


def own_roles(answer: Answer, path: Path) -> Part:
    """How often a head has the role of its mean."""
    return _part(
        answer,
        path,
        figures.own_role_shares(answer.tables["heads"]),
        title="Heads and the role of their mean",
        alt=f"Every head's mean ratio against the share of its cells with the role of that mean. {answer.sentence}",
        table="heads",
        call="own_role_shares(table)",
    )


def ranks(answer: Answer, path: Path) -> Part | None:
    """How ranks of blocks move over the timesteps; None for a run without norms of blocks."""
    steps = answer.tables.get("block_steps")
    if steps is None:
        return None
    return _part(
        answer,
        path,
        figures.ranks_over_timesteps(steps),
        title="Ranks of blocks over the timesteps",
        alt="Every block's rank by how much it changes its input, over the timesteps.",
        table="block_steps",
        call="ranks_over_timesteps(table)",
    )


def chart_parts(answer: Answer, path: Path) -> list[Part]:
    """Every chart of an answer."""
    found: list[Part | None]
    if answer.question == "roles":
        found = [agreement(answer, path)]
    elif answer.question == "premise":
        found = [contrasts(answer, path, group) for group in (MOTION, "appearance")]
        found += [damage(answer, path, outcome) for outcome in outcomes_of(answer)]
    elif answer.question == "alpha":
        found = [picks(answer, path)]
    elif answer.question == "scores":
        found = [correlations(answer, path, kind) for kind in kinds_of(answer)]
    elif answer.question == "routes":
        found = [attributes(answer, path), disagreement(answer, path)]
    else:
        found = [own_roles(answer, path), ranks(answer, path)]
    return [part for part in found if part is not None]


def answer_parts(answer: Answer, path: Path) -> list[Part]:
    """One answer: its verdict and rule, its charts, and the tables that no chart has."""
    facts = [("Verdict", answer.verdict), ("Claim", answer.claim), ("What would falsify it", answer.rule)]
    facts += [("Measured", answer.measured), ("n", ", ".join(f"{count:,} {name}" for name, count in answer.n.items()))]
    facts += [("Left out", limit) for limit in answer.limits]
    facts += [("Not shown by it", note) for note in answer.notes]
    run = answer.source.get("run") or {}
    facts += [("Run", f"{run.get('name')}, {run.get('hash')}")] if run else []
    facts += setting_facts(answer.settings)
    head = Part(answer.title, answer.sentence, facts=facts, command=answer.command or None)
    charts = chart_parts(answer, path)
    shown = {id(part.table) for part in charts}
    rest = [
        Part(
            f"{answer.question.capitalize()}: {name.replace('_', ' ')}",
            table=table,
            python=_python(path, name),
            command=answer.command or None,
        )
        for name, table in answer.tables.items()
        if id(table) not in shown
    ]
    return [head, *charts, *rest]


def evidence_report(
    answers: Sequence[tuple[Answer, Path]], *, command: str | None = None, link: str | None = None
) -> Report:
    """What questions were answered of one model: verdicts, rules, charts, tables, settings and versions.

    Raises InputError for answers of two models.
    """
    first = answers[0][0]
    model = first.source.get("model") or {}
    for answer, path in answers[1:]:
        other = answer.source.get("model") or {}
        if any(other.get(name) != model.get(name) for name in ("model_id", "config_hash", "weight_hash")):
            raise InputError(
                str(path),
                got=f"an answer of {other.get('model_id')} ({str(other.get('weight_hash'))[:12]})",
                expected=f"one of {model.get('model_id')} ({str(model.get('weight_hash'))[:12]})",
                fix="a report of each model",
            )
    name = str(model.get("model_id") or "an unnamed model")
    made: dict[str, str] = {}
    for answer, _ in answers:
        made |= answer.versions
    return Report(
        title=f"{name} · {first.title if len(answers) == 1 else 'evidence'}",
        finding=first.sentence if len(answers) == 1 else verdict_words(name, [answer for answer, _ in answers]),
        command=command or evidence_command([path for _, path in answers]),
        link=link,
        query=urlencode(Selection(question=first.question).to_query()),
        about={"Model": model_facts(model), "Versions": version_facts(made, "measured with")},
        parts=[part for answer, path in answers for part in answer_parts(answer, path)],
    )


def verdict_words(model: str, answers: Sequence[Answer]) -> str:
    """How many questions are answered for a model, and how."""
    verdicts = [answer.verdict for answer in answers]
    start = f"{len(verdicts)} of {len(QUESTIONS)} questions are answered for {model}"
    counts = [f"{verdicts.count(word)} {word}" for word in VERDICTS if verdicts.count(word)]
    return f"{start}: {', '.join(counts)}" if counts else start


def evidence_command(paths: Sequence[Path]) -> str:
    """The command line that makes the report of these answers."""
    return command_line("report", *(short_path(path) for path in paths), out="evidence.html")


def _part(answer: Answer, path: Path, figure: go.Figure, *, title: str, alt: str, table: str, call: str) -> Part:
    return Part(
        title,
        figure=figure,
        alt=alt,
        table=answer.tables[table],
        python=_python(path, table, call),
        command=answer.command or None,
    )


def _python(path: Path, table: str, call: str | None = None) -> str:
    imports = ["from analysis.evidence.answer import read_answer"]
    made = [f"answer = read_answer({short_path(path)!r})", f"table = answer.tables[{table!r}]"]
    if call is not None:
        imports.append("from analysis.figures import evidence as figures")
        made += [f"figure = figures.{call}", "figure.show()"]
    return "\n".join([*imports, "", *made])
