"""`pare evidence`: the method's questions, answered on a run or a model, each with a verdict, tables and what made it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from analysis.evidence.answer import NEEDS_MODEL, write_answer
from pare.errors import InputError
from pare.progress import Progress, silent
from pare.versions import versions
from workbench.evidence_inputs import ALL, inputs, questions
from workbench.evidence_work import Occupied, Work
from workbench.settings import RunSettings


def evidence(
    question: str,
    source: str | Path,
    *,
    out: str | Path,
    run: str | Path | None = None,
    model: str | None = None,
    prompts: str | Path | Sequence[str] | None = None,
    samples: int | None = None,
    remove: str | Sequence[int] | None = None,
    draws: int = 2,
    tau_s: float = 0.7,
    tau_t: float = 0.3,
    alpha: float = 1.5,
    ratio: float = 0.3,
    keep_videos: bool = True,
    resume: bool = False,
    progress: Progress = silent,
    load: Callable[..., Any] | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Answer one of `analysis.evidence.answer.QUESTIONS`, or all, and write `evidence.json` and its tables into `out`.

    `source` is a run, or a model with its `run` (the demo's is bundled). roles, alpha, routes and averages read the run
    alone. premise generates videos of `samples` of the `prompts` with nothing and with sets of `remove` heads of every
    block off (`draws` random sets each); scores switches every head off in turn on `samples` clean samples. Both need
    the model that the run was captured from. All at once get a folder each, and what cannot be answered is left out and
    named. `settings` are the fields of `RunSettings`; `load` stands in for `pare.models.load_pipeline`. `resume` goes on
    with a folder of the very same request. Raises InputError for anything that could not work, before anything is
    written.
    """
    wanted = questions(question)
    given = inputs(question, source, run=run, model=model, plan_only=bool(settings.get("dry_run")))
    options = {"tau_s": tau_s, "tau_t": tau_t, "alpha": alpha, "ratio": ratio}
    how = {"prompts": prompts, "samples": samples, "remove": remove, "draws": draws}
    work = Work(given, options, how, settings, keep_videos, resume, load)
    if settings.get("dry_run"):
        return {"dry_run": True, "source": str(source), "plans": {each: work.plan(each) for each in wanted}}
    found: dict[str, dict[str, Any]] = {}
    left_out: dict[str, str] = {}
    for each in wanted:
        folder = Path(out) / each if question == ALL else Path(out)
        try:
            answer = work.answer(each, folder, progress)
        except InputError as error:
            if question != ALL or isinstance(error, Occupied):
                raise
            left_out[each] = str(error)
            continue
        made = answer.made_by(
            source=given.source,
            settings=work.about(each),
            command=_command(each, source, {**how, **options, "run": run, "model": model}, settings),
            versions=versions(),
        )
        path = write_answer(made, folder)
        found[each] = {"verdict": made.verdict, "sentence": made.sentence, "file": str(path), "n": dict(made.n)}
        progress(1, 1, f"{each}: {made.verdict}")
    if not found:
        first = next(iter(left_out.values()))
        raise InputError(
            str(source), got=f"no question that it can answer: {first}", expected="a run", fix="capture one"
        )
    return {"out": str(out), "source": str(source), "answers": found, "left_out": left_out}


def render(result: dict[str, Any]) -> str:
    """The result for people."""
    if result.get("dry_run"):
        from workbench.plan import render_plan

        parts = [
            f"{name}: " + ("reads the run alone, a second or two" if plan is None else render_plan(plan))
            for name, plan in result["plans"].items()
        ]
        return "\n\n".join(parts)
    lines = [f"{name}: {each['sentence']}" for name, each in result["answers"].items()]
    lines += [f"{name}: left out, {why}" for name, why in result["left_out"].items()]
    return "\n".join([*lines, f"written {result['out']}"])


def _command(question: str, source: str | Path, given: dict[str, Any], settings: dict[str, Any]) -> str:
    """The command line that asks this again; prompts that were given one by one stand in a file of their own."""
    from workbench.pages.text import command_line

    defaults = {"draws": 2, "tau_s": 0.7, "tau_t": 0.3, "alpha": 1.5, "ratio": 0.3}
    flags = {name: value for name, value in given.items() if value is not None and value != defaults.get(name)}
    if question not in NEEDS_MODEL:
        for name in ("prompts", "samples", "remove", "draws", "model"):
            flags.pop(name, None)
    else:
        own = {name: value for name, value in settings.items() if value is not None and name != "dry_run"}
        flags |= {name: value for name, value in own.items() if value != RunSettings.model_fields[name].default}
    for name, join in (("prompts", None), ("remove", ",")):
        if name in flags and not isinstance(flags[name], str | Path):
            flags[name] = "prompts.txt" if join is None else join.join(map(str, flags[name]))
    return command_line("evidence", question, source, **flags, out=f"evidence-{question}")
