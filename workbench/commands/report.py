"""`pare report`: one HTML file of a run, of a comparison, of a training or of answers, that opens offline."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from analysis.block_values import LENSES
from analysis.evidence.answer import read_answer
from analysis.roles import TAU_S, TAU_T, check_thresholds
from analysis.runs import Run
from analysis.score_comparison import pair_scores, score_table, sorted_by_effect
from pare.errors import InputError
from pare.files import check_output, write_bytes
from workbench.commands.compare import compare
from workbench.pages.text import command_line, file_size, short_path
from workbench.report.build import build_report
from workbench.report.compare_masks import masks_report
from workbench.report.compare_models import models_report
from workbench.report.compare_runs import runs_report
from workbench.report.compare_videos import videos_report
from workbench.report.cut import Cut
from workbench.report.evidence import evidence_report
from workbench.report.page import render_report
from workbench.report.part import Report
from workbench.report.sources import answers_at, kind_of, source_at, training_at
from workbench.report.training import training_report
from workbench.state import Selection
from workbench.step_range import step_range
from workbench.training_record import Training
from workbench.video_sets import open_videos

Sources: TypeAlias = str | Path | Sequence[str | Path]
FLAGS: Mapping[str, tuple[str, ...]] = {
    "run": ("block", "head", "sample", "branch", "steps", "lens", "tau_s", "tau_t", "mask", "max_videos"),
    "runs": ("sample", "branch", "steps", "tau_s", "tau_t"),
    "masks": ("run",),
    "students": ("scores",),
    "videos": ("pair", "measure", "max_videos"),
    "training": ("at", "tau_s", "tau_t", "max_videos"),
    "answers": (),
}
"""Kind of report → the flags that mean something there."""
USUAL: Mapping[str, Any] = {"lens": "residual", "tau_s": TAU_S, "tau_t": TAU_T, "max_videos": 20.0, "measure": False}


def report(
    sources: Sources,
    *,
    out: str | Path,
    kind: str | None = None,
    block: int | None = None,
    head: int | None = None,
    sample: int | None = None,
    branch: str | None = None,
    steps: str | None = None,
    lens: str = "residual",
    tau_s: float = TAU_S,
    tau_t: float = TAU_T,
    mask: str | Path | None = None,
    run: str | Path | None = None,
    scores: Sequence[str | Path] | None = None,
    pair: int | None = None,
    measure: bool = False,
    at: int | None = None,
    max_videos: float = 20.0,
) -> dict[str, Any]:
    """Write what a page shows as one HTML file: finding, figures with numbers, videos, settings, versions.

    `sources` is a run; two runs, masks, models or sets of videos, which are compared (`kind` where two folders can be
    several); a training; or answers of `pare evidence`, which may be many. Of a run, `block` and `head` name the head in
    detail, `sample`, `branch` and `steps` ("first-last") the part that is averaged, `lens` what the map of blocks shows,
    `mask` a mask file to show. `run` lends its model to two masks that predict no cost, `scores` are the evaluations of
    two models, `pair` is the pair of videos that stands first, `measure` scores videos that were not; `at` is the step of
    a training whose validation is shown. Videos up to `max_videos` MB are inside. The same call writes the same bytes.
    Raises `InputError` for what cannot be read or does not fit together, and for flags that mean nothing for it.
    """
    check_output(out)
    check_thresholds(tau_s, tau_t)
    if not max_videos >= 0:
        raise InputError("--max-videos", got=max_videos, expected="MB, 0 or more", fix="--max-videos 20")
    paths = [source_at(each) for each in ([sources] if isinstance(sources, str | Path) else sources)]
    what = kind_of(paths, kind)
    given = {
        "block": block, "head": head, "sample": sample, "branch": branch, "steps": steps, "lens": lens, "tau_s": tau_s,
        "tau_t": tau_t, "mask": mask, "run": run, "scores": scores or None, "pair": pair, "measure": measure, "at": at,
        "max_videos": max_videos,
    }  # fmt: skip
    for name, value in given.items():
        if value != USUAL.get(name) and name not in FLAGS[what]:
            fitting = ", ".join(each for each, names in FLAGS.items() if name in names)
            flag = f"--{name.replace('_', '-')}"
            raise InputError(flag, got=f"a report of {what}", expected=f"one of {fitting}", fix=f"leave out {flag}")
    made = _make(what, paths, Path(out).name, given, kind)
    content = render_report(made).encode()
    write_bytes(out, content)
    return {
        "report": str(out),
        "kind": what,
        "bytes": len(content),
        "finding": made.finding,
        "parts": [part.title for part in made.parts],
        "videos": sum(clip.content is not None for clip in made.clips),
        "left_out": made.left_out or None,
    }


def _make(what: str, paths: Sequence[Path], out: str, given: Mapping[str, Any], kind: str | None) -> Report:
    """The report, with the command line that asks for it."""
    command = _command(paths, out, given, kind)
    most = round(given["max_videos"] * 1e6)
    if what == "run":
        return _run_report(paths[0], given, command, most)
    if what == "answers":
        files = [file for path in paths for file in answers_at(path)]
        return evidence_report([(read_answer(file), file) for file in files], command=command)
    if what == "training":
        training = Training.open(training_at(paths[0]) or paths[0])
        where = {name: given[name] for name in ("at", "tau_s", "tau_t")}
        return training_report(training, **where, command=command, most_video_bytes=most)
    a, b = paths
    if what == "runs":
        first, second = Run.open(a), Run.open(b)
        part = {name: given[name] for name in ("block", "head", "sample", "branch", "steps", "lens", "tau_s", "tau_t")}
        return runs_report(first, second, _selection(first, **part), command=command)
    if what == "masks":
        lent = None if given["run"] is None else Run.open(given["run"])
        return masks_report(a, b, run=lent, command=command)
    if what == "students":
        return models_report(a, b, scores=_scores(given["scores"]), command=command)
    sets = open_videos(a), open_videos(b)
    measured = None
    if given["measure"]:
        rows = compare(a, b)["metrics"]
        measured = sorted_by_effect([row for row in rows if row["of"] == "each"])
    return videos_report(*sets, first=given["pair"], measured=measured, command=command, most_video_bytes=most)


def _run_report(path: Path, given: Mapping[str, Any], command: str, most: int) -> Report:
    opened, mask = Run.open(path), given["mask"]
    if given["lens"] not in LENSES:
        raise InputError("--lens", got=given["lens"], expected=f"one of {', '.join(LENSES)}", fix="--lens residual")
    part = {name: given[name] for name in ("block", "head", "sample", "branch", "steps", "lens", "tau_s", "tau_t")}
    selection = _selection(opened, **part)
    cut = None if mask is None else Cut.of_file(mask, opened)
    return build_report(opened, selection, cut=cut, command=command, most_video_bytes=most)


def _scores(folders: Sequence[str | Path] | None) -> tuple[Path, Path, Any] | None:
    """Two evaluations and B − A of what both measured."""
    if folders is None:
        return None
    if len(folders) != 2:
        raise InputError("--scores", got=f"{len(folders)} evaluations", expected="two", fix="--scores A --scores B")
    a, b = (open_videos(Path(folder).expanduser()) for folder in folders)
    pairs = pair_scores(a.table, b.table)
    if not (a.scored and b.scored) or pairs.empty:
        got = "evaluations without common scores"
        raise InputError("--scores", got=got, expected="two of the same prompts and seeds", fix="pare evaluate both")
    return a.folder, b.folder, score_table(pairs, a.metrics)


def _command(paths: Sequence[Path], out: str, given: Mapping[str, Any], kind: str | None) -> str:
    """The command line that was asked, paths as a person here would type them."""
    words: list[object] = [short_path(path) for path in paths]
    for folder in given["scores"] or ():
        words += ["--scores", short_path(Path(folder))]
    words += ["--measure"] if given["measure"] else []
    flags = {name: value for name, value in given.items() if name not in ("scores", "measure")}
    flags = {name: value for name, value in flags.items() if value != USUAL.get(name)}
    flags |= {name: short_path(Path(flags[name])) for name in ("mask", "run") if name in flags}
    return command_line("report", *words, out=out, kind=kind, **flags)


def render(result: dict[str, Any]) -> str:
    """The result for people."""
    lines = [
        f"{result['report']}: {file_size(result['bytes'])}, {len(result['parts'])} parts, {result['videos']} videos"
    ]
    return "\n".join([*lines, result["finding"], *([result["left_out"]] if result["left_out"] else [])])


def _selection(run: Run, *, steps: Any, **values: Any) -> Selection:
    """The selection that the flags name. Raises InputError for what the run does not have."""
    geometry = run.geometry
    if values["head"] is not None and values["block"] is None:
        raise InputError("--head", got="no --block", expected="a head with its block", fix="add --block")
    sizes = {"block": geometry.blocks, "head": geometry.heads, "sample": len(run.manifest.samples)}
    for name, size in sizes.items():
        if values[name] is not None and not 0 <= values[name] < size:
            raise InputError(f"--{name}", got=values[name], expected=f"0 to {size - 1}", fix=f"--{name} 0")
    if values["sample"] is not None and values["sample"] not in run.finished:
        raise InputError("--sample", got=values["sample"], expected="a finished sample", fix="capture with --resume")
    if values["branch"] is not None:
        run.branch_index(values["branch"])
    first, last = (None, None) if steps is None else step_range(steps, len(run.timesteps))
    return Selection(**values, first_step=first, last_step=last)
