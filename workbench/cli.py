"""The command line: `pare`, or `python -m workbench`. Every command calls the public function of the same name."""

import logging
import os
import signal
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from workbench.call import BAD_INPUT, CANCELLED, DONE, Call, as_command
from workbench.distill_settings import DistillSettings
from workbench.mask_settings import changed, with_mask_flags
from workbench.routing_settings import with_routing_flags
from workbench.settings import with_flags, with_run_flags

Model = Annotated[str, typer.Argument(metavar="MODEL", help="demo, a diffusers folder, a hub id, or a preset's name.")]
Run = Annotated[str, typer.Argument(metavar="RUN", help="The folder of a run that capture wrote.")]
Branch = Annotated[str | None, typer.Option("--branch", help="cond or uncond; default: both.")]
TauS = Annotated[float, typer.Option("--tau-s", help="A head is spatial above this ratio.")]
TauT = Annotated[float, typer.Option("--tau-t", help="A head is temporal below this ratio.")]
Preset = Annotated[str | None, typer.Option("--preset", help="paper: what PARE did; other flags change it.")]
Workspace = Annotated[str, typer.Option("--workspace", help="The folder of the app and its jobs.")]
Job = Annotated[str, typer.Argument(metavar="ID", help="A job's id.")]
Student = Annotated[str | None, typer.Option("--student", help="A folder of pare prune, or of the stage before.")]
Samples = Annotated[str | None, typer.Option("--data", help="A folder of pare distill data.")]
Trained = Annotated[str, typer.Option("--out", help="The folder of the student to write.", show_default=False)]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with a training that was cut off.")]
Probe = Annotated[bool, typer.Option("--probe", help="Run one batch, say what a step takes, train nothing.")]
Ratio = Annotated[float, typer.Option("--ratio", help="Of a --dry-run without a student: the share that is gone.")]
Devices = Annotated[int | None, typer.Option("--processes", help="Of a --dry-run: devices, the models in shards.")]
Pixels = Annotated[int | None, typer.Option(help="Pixels; default: the model's own size.")]
Length = Annotated[int | None, typer.Option(help="Video frames; default: the model's own length.")]


class MakeByDefault(TyperGroup):
    """A group whose first word, where it names no verb, belongs to `make`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] != "--help":
            args = ["make", *args]
        return super().parse_args(ctx, args)


cli = typer.Typer(
    name="pare",
    help="Measure, look at, prune and route the heads and blocks of a video diffusion transformer.",
    pretty_exceptions_enable=False,
    # Plain help: boxes would cost a quarter of the time that --help takes.
    rich_markup_mode=None,
    context_settings={"max_content_width": 120},
    add_completion=False,
)
masks = typer.Typer(
    cls=MakeByDefault, help="Make a mask from a run (`pare mask RUN --out MASK`), or look at one.", no_args_is_help=True
)
jobs = typer.Typer(help="Long commands in the background, shared with the app.", no_args_is_help=True)
distillations = typer.Typer(
    help="Encode training data, and train a student in PARE's three stages.", no_args_is_help=True
)
cli.add_typer(masks, name="mask")
cli.add_typer(distillations, name="distill")
cli.add_typer(jobs, name="jobs")


@cli.command()
@as_command
def info(
    model: Model,
    *,
    height: Pixels = None,
    width: Pixels = None,
    frames: Length = None,
    mask: Annotated[str | None, typer.Option("--mask", help="As this mask would make it.")] = None,
    qk_norm: Annotated[str, typer.Option("--qk-norm", help="How it would be applied: fold, exact, none.")] = "fold",
    gib: Annotated[
        float | None, typer.Option("--gib", help="GiB of memory: what fits, with and without offload?")
    ] = None,
    dtype: Annotated[str, typer.Option("--dtype", help="Precision of the weights, for memory.")] = "bfloat16",
) -> Call:
    """Shapes, parameters, tokens, operations and memory of a model; weights are not read."""
    size = {"height": height, "width": width, "frames": frames}
    return Call(
        "info", arguments={"model": model, **size, "mask": mask, "qk_norm": qk_norm, "gib": gib, "dtype": dtype}
    )


@cli.command()
@as_command
@with_run_flags
def doctor(
    model: Annotated[str | None, typer.Argument(metavar="[MODEL]", help="A model to check here.")] = None,
    *,
    workspace: Workspace = "./workspace",
    **settings: Any,
) -> Call:
    """What this machine has, whether a model fits, and whether a capture leaves it as it is."""
    return Call("doctor", arguments={"model": model, "workspace": workspace, **settings})


@cli.command()
@as_command
@with_routing_flags
def generate(
    model: Model,
    *,
    prompt: Annotated[str, typer.Option("--prompt", help="What to show.", show_default=False)],
    out: Annotated[str, typer.Option("--out", help="The mp4 file to write.", show_default=False)],
    mask: Annotated[str | None, typer.Option("--mask", help="Run as if what this mask removes gave nothing.")] = None,
    **settings: Any,
) -> Call:
    """Generate one video from a prompt."""
    return Call("generate", arguments={"model": model, "prompt": prompt, "out": out, "mask": mask, **settings})


@cli.command()
@as_command
@with_run_flags
def capture(
    model: Model,
    *,
    out: Annotated[str, typer.Option("--out", help="The folder of the run to write.", show_default=False)],
    mode: Annotated[str, typer.Option("--mode", help="calibration, or trajectory.")] = "calibration",
    prompts: Annotated[str | None, typer.Option("--prompts", help="A text file, one prompt per line.")] = None,
    videos: Annotated[str | None, typer.Option("--videos", help="A folder of videos to measure on.")] = None,
    samples: Annotated[int | None, typer.Option("--samples", help="How many samples; default: all prompts.")] = None,
    statistics: Annotated[str, typer.Option("--statistics", help="all, basic, or names; NAME:N in N samples.")] = "all",
    maps_steps: Annotated[int, typer.Option("--maps-steps", help="How many steps keep their frame maps.")] = 5,
    max_disk: Annotated[float, typer.Option("--max-disk", help="GiB; a larger run is refused.")] = 10.0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was cut off.")] = False,
    **settings: Any,
) -> Call:
    """Measure every head and block of a model, and write a run."""
    own = {"out": out, "mode": mode, "prompts": prompts, "videos": videos, "samples": samples, "resume": resume}
    what = {"statistics": statistics, "maps_steps": maps_steps, "max_disk": max_disk}
    return Call("capture", arguments={"model": model, **own, **what, **settings})


@cli.command()
@as_command
@with_routing_flags
def route(
    model: Model,
    *,
    out: Annotated[str, typer.Option("--out", help="The folder of the run to write.", show_default=False)],
    prompts: Annotated[str | None, typer.Option("--prompts", help="A text file, one prompt per line.")] = None,
    samples: Annotated[int | None, typer.Option("--samples", help="How many samples; default: all prompts.")] = None,
    statistics: Annotated[
        str, typer.Option("--statistics", help="What to measure beside: block, or as capture.")
    ] = "block",
    max_disk: Annotated[float, typer.Option("--max-disk", help="GiB; a larger run is refused.")] = 10.0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was cut off.")] = False,
    **settings: Any,
) -> Call:
    """Generate videos with a part of the blocks at every step, and write the decisions as a run."""
    own = {"out": out, "prompts": prompts, "samples": samples, "statistics": statistics, "max_disk": max_disk}
    return Call("route", arguments={"model": model, **own, "resume": resume, **settings})


@cli.command()
@as_command
def roles(
    run: Run,
    *,
    tau_s: TauS = 0.7,
    tau_t: TauT = 0.3,
    branch: Branch = None,
    sample: Annotated[int | None, typer.Option("--sample", help="One sample; default: all.")] = None,
    steps: Annotated[str | None, typer.Option("--steps", help="first-last; default: all.")] = None,
    csv: Annotated[str | None, typer.Option("--csv", help="Also write every head's numbers here.")] = None,
    parquet: Annotated[str | None, typer.Option("--parquet", help="The same as Parquet.")] = None,
) -> Call:
    """Which heads are spatial, mixed and temporal."""
    part = {"branch": branch, "sample": sample, "steps": steps}
    given = {"tau_s": tau_s, "tau_t": tau_t, **part, "csv": csv, "parquet": parquet}
    return Call("roles", arguments={"run": run, **given})


@cli.command()
@as_command
def report(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="A run; A and B: two runs, masks, models or sets of videos; a training; or answers of pare evidence.",
        ),
    ],
    *,
    out: Annotated[str, typer.Option("--out", help="The HTML file to write.", show_default=False)],
    kind: Annotated[
        str | None, typer.Option("--kind", help="Of two that can be several: runs, masks, students, videos.")
    ] = None,
    block: Annotated[int | None, typer.Option("--block", help="The block in detail.")] = None,
    head: Annotated[int | None, typer.Option("--head", help="The head in detail, with its block.")] = None,
    sample: Annotated[int | None, typer.Option("--sample", help="One sample; default: all.")] = None,
    branch: Branch = None,
    steps: Annotated[str | None, typer.Option("--steps", help="first-last; default: all.")] = None,
    lens: Annotated[
        str, typer.Option("--lens", help="The map of blocks: residual, self, cross, ffn, cosine.")
    ] = "residual",
    tau_s: TauS = 0.7,
    tau_t: TauT = 0.3,
    mask: Annotated[str | None, typer.Option("--mask", help="A mask file: what it removes is shown.")] = None,
    run: Annotated[
        str | None, typer.Option("--run", help="Of two masks that predict no cost: a run of their model.")
    ] = None,
    scores: Annotated[
        list[str] | None, typer.Option("--scores", help="Of two models: the evaluation of each, A's first.")
    ] = None,
    pair: Annotated[
        int | None, typer.Option("--pair", help="Of two sets of videos: the pair that stands first.")
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Of two sets of videos: score them where they were not.")
    ] = False,
    at: Annotated[
        int | None, typer.Option("--at", help="Of a training: the step of the validation to show; default: the last.")
    ] = None,
    max_videos: Annotated[float, typer.Option("--max-videos", help="MB of videos that it carries at most.")] = 20.0,
) -> Call:
    """One HTML file of a run, a comparison, a training or answers, with its videos, that opens offline."""
    part = {"block": block, "head": head, "sample": sample, "branch": branch, "steps": steps, "kind": kind, "at": at}
    given = {"lens": lens, "tau_s": tau_s, "tau_t": tau_t, "mask": mask, "max_videos": max_videos}
    compared = {"run": run, "scores": scores, "pair": pair, "measure": measure}
    return Call("report", arguments={"sources": sources, "out": out, **part, **given, **compared})


@cli.command()
@as_command
def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="A video, a folder of videos, an evaluation, or a run.")],
    b: Annotated[str, typer.Argument(metavar="B", help="The same, made from the same prompts and seeds.")],
    *,
    oracle: Annotated[bool, typer.Option("--oracle", help="Also score moving digits against their prompts.")] = False,
    statistic: Annotated[
        str | None, typer.Option("--statistic", help="Of two runs: self/ratio, residual, … (default without videos).")
    ] = None,
    branch: Annotated[
        str | None, typer.Option("--branch", help="Of the statistics of two runs: cond or uncond.")
    ] = None,
    csv: Annotated[
        str | None, typer.Option("--csv", help="Also write every pair's, head's or block's numbers.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the bootstrap behind the intervals.")] = 0,
) -> Call:
    """Two sets of videos side by side, or the statistics of two runs, with intervals over prompts."""
    given = {"oracle": oracle, "statistic": statistic, "branch": branch, "csv": csv, "seed": seed}
    return Call("compare", arguments={"a": a, "b": b, **given})


@cli.command("slice-lora")
@as_command
def slice_lora(
    lora: Annotated[str, typer.Argument(metavar="LORA", help="A .safetensors file: a LoRA of the dense model.")],
    *,
    mask: Annotated[str, typer.Option("--mask", help="The mask, or the pruned model's folder.", show_default=False)],
    out: Annotated[str, typer.Option("--out", help="The .safetensors file to write.", show_default=False)],
    model: Annotated[str | None, typer.Option("--model", help="The dense model; default: as the mask says.")] = None,
    qk_norm: Annotated[str, typer.Option("--qk-norm", help="How the mask was applied: fold, exact, none.")] = "fold",
) -> Call:
    """Cut a LoRA to a pruned model, which refuses one of the dense model."""
    given = {"lora": lora, "mask": mask, "out": out, "model": model, "qk_norm": qk_norm}
    return Call("slice_lora", arguments=given)


@cli.command()
@as_command
@with_routing_flags
def evaluate(
    model: Model,
    *,
    out: Annotated[str, typer.Option("--out", help="The folder of videos and scores to write.", show_default=False)],
    prompts: Annotated[str | None, typer.Option("--prompts", help="A text file, one prompt per line.")] = None,
    samples: Annotated[int | None, typer.Option("--samples", help="How many of them; default: all.")] = None,
    mask: Annotated[str | None, typer.Option("--mask", help="Run as if what this mask removes gave nothing.")] = None,
    **settings: Any,
) -> Call:
    """Generate the videos of a file of prompts and score them: metrics and, on moving digits, the oracle."""
    given = {"out": out, "prompts": prompts, "samples": samples, "mask": mask}
    return Call("evaluate", arguments={"model": model, **given, **settings})


@cli.command()
@as_command
@with_run_flags
def evidence(
    question: Annotated[
        str, typer.Argument(metavar="QUESTION", help="roles, premise, alpha, scores, routes, averages, or all.")
    ],
    source: Annotated[str, typer.Argument(metavar="MODEL|RUN", help="A model (with --run), or the folder of a run.")],
    *,
    out: Annotated[str, typer.Option("--out", help="The folder of the answer to write.", show_default=False)],
    run: Annotated[str | None, typer.Option("--run", help="A run of MODEL; default for demo: the bundled one.")] = None,
    model: Annotated[str | None, typer.Option("--model", help="Where RUN's model is; default: by its name.")] = None,
    prompts: Annotated[str | None, typer.Option("--prompts", help="A text file, one prompt per line.")] = None,
    samples: Annotated[int | None, typer.Option("--samples", help="How many of them are used.")] = None,
    remove: Annotated[
        str | None, typer.Option("--remove", help="premise: how many heads of every block go, as 1,2.")
    ] = None,
    draws: Annotated[int, typer.Option("--draws", min=1, help="premise: random sets of each size.")] = 2,
    tau_s: TauS = 0.7,
    tau_t: TauT = 0.3,
    alpha: Annotated[float, typer.Option("--alpha", help="alpha: the protection to judge.")] = 1.5,
    ratio: Annotated[float, typer.Option("--ratio", help="alpha: the share of heads that goes.")] = 0.3,
    keep_videos: Annotated[bool, typer.Option("--keep-videos/--no-keep-videos", help="premise: keep them.")] = True,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an answer that was cut off.")] = False,
    **settings: Any,
) -> Call:
    """Answer one of the method's questions on a model or a run, with a verdict by a stated rule."""
    given = {"question": question, "source": source, "out": out, "run": run, "model": model, "prompts": prompts}
    how = {"samples": samples, "remove": remove, "draws": draws, "keep_videos": keep_videos, "resume": resume}
    roles = {"tau_s": tau_s, "tau_t": tau_t, "alpha": alpha, "ratio": ratio}
    return Call("evidence", arguments={**given, **how, **roles, **settings})


@masks.command("make")
@as_command
@with_mask_flags
def make_mask(
    run: Annotated[str | None, typer.Argument(metavar="[RUN]", help="The folder of a run that capture wrote.")] = None,
    *,
    out: Annotated[str | None, typer.Option("--out", help="The .safetensors file to write.")] = None,
    model: Annotated[str | None, typer.Option("--model", help="Whose weights; default: the run's model.")] = None,
    preset: Preset = None,
    device: Annotated[str, typer.Option("--device", help="Where neurons are compared: auto, cpu, cuda.")] = "auto",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print counts and cost, write nothing.")] = False,
    **settings: Any,
) -> Call:
    """Choose which heads and neurons stay (the default verb: `pare mask RUN --out MASK`)."""
    given = {"run": run, "out": out, "model": model, "preset": preset, "device": device, "dry_run": dry_run}
    return Call("mask", arguments={**given, **changed(settings)})


@masks.command("alpha")
@as_command
@with_mask_flags
def alpha_of_mask(run: Run, *, preset: Preset = None, **settings: Any) -> Call:
    """Which picks flip as the protection of temporal heads goes from 1 to 3."""
    return Call("mask", "alpha", {"run": run, "preset": preset, **changed(settings)})


@masks.command("show")
@as_command
def show_mask(file: Annotated[str, typer.Argument(metavar="FILE")]) -> Call:
    """What a mask keeps, and where it comes from."""
    return Call("mask", "show", {"file": file})


@masks.command("diff")
@as_command
def diff_masks(a: Annotated[str, typer.Argument(metavar="A")], b: Annotated[str, typer.Argument(metavar="B")]) -> Call:
    """Which heads and neurons two masks disagree on."""
    return Call("mask", "diff", {"a": a, "b": b})


@masks.command("check")
@as_command
def check_mask(file: Annotated[str, typer.Argument(metavar="FILE")], model: Model) -> Call:
    """Whether a mask fits a model."""
    return Call("mask", "check", {"file": file, "model": model})


@cli.command()
@as_command
def prune(
    model: Model,
    *,
    mask: Annotated[str, typer.Option("--mask", help="The mask file: what stays.", show_default=False)],
    out: Annotated[str, typer.Option("--out", help="The folder of the student to write.", show_default=False)],
    run: Annotated[str | None, typer.Option("--run", help="A run of the model, for its moments.")] = None,
    qk_norm: Annotated[str, typer.Option("--qk-norm", help="fold (needs --run), exact, or none.")] = "fold",
    compensate: Annotated[bool, typer.Option("--compensate", help="Fold the mean of what goes into biases.")] = False,
    dtype: Annotated[str, typer.Option("--dtype", help="Precision to write; auto: as stored.")] = "auto",
    components: Annotated[str | None, typer.Option("--components", help="The other parts: copy, link, none.")] = None,
    max_shard: Annotated[float, typer.Option("--max-shard", help="GiB of one weight file at most.")] = 2.0,
    measure: Annotated[bool, typer.Option("--measure/--no-measure", help="Take every block's error.")] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print sizes, write nothing.")] = False,
) -> Call:
    """Cut what a mask removes out of a model, block by block, and write the student as a diffusers folder."""
    how = {"run": run, "qk_norm": qk_norm, "compensate": compensate, "dtype": dtype, "components": components}
    given = {"max_shard": max_shard, "measure": measure, "dry_run": dry_run}
    return Call("prune", arguments={"model": model, "mask": mask, "out": out, **how, **given})


@distillations.command("data")
@as_command
@with_run_flags
def encode_data(
    model: Model,
    *,
    out: Annotated[str, typer.Option("--out", help="The folder of samples to write.", show_default=False)],
    videos: Annotated[str | None, typer.Option("--videos", help="A folder of videos and captions.")] = None,
    samples: Annotated[int | None, typer.Option("--samples", help="At most so many; demo: clips to draw.")] = None,
    **settings: Any,
) -> Call:
    """Encode videos and captions once, into latents and embeddings; the same words go on where it stopped."""
    given = {"stage": "data", "model": model, "out": out, "videos": videos, "samples": samples}
    return Call("distill", arguments={**given, **settings})


def _train(stage: str, summary: str) -> None:
    def train(
        model: Model,
        *,
        out: Trained,
        data: Samples = None,
        student: Student = None,
        run: Annotated[str | None, typer.Option("--run", help="A run, for the importance of blocks.")] = None,
        ratio: Ratio = 0.3,
        processes: Devices = None,
        resume: Resume = False,
        probe: Probe = False,
        **settings: Any,
    ) -> Call:
        given = {"stage": stage, "model": model, "out": out, "data": data, "student": student, "run": run}
        how = {"ratio": ratio, "processes": processes, "resume": resume, "probe": probe}
        return Call("distill", arguments={**given, **how, **settings})

    train.__doc__ = summary
    distillations.command(stage)(as_command(with_flags(train, DistillSettings)))


_train("width", "Stage I: a pruned student learns from the frozen teacher.")
_train("joint", "Stage II: the student and its router learn together; without --student the teacher's own weights.")
_train("steps", "Stage III: few sampler steps and no guidance, from trajectories and by consistency.")


@jobs.command("list")
@as_command
def list_jobs(
    *,
    workspace: Workspace = "./workspace",
    active: Annotated[bool, typer.Option("--active", help="Leave out what is finished.")] = False,
) -> Call:
    """Jobs in work, waiting and finished."""
    return Call("jobs", "jobs_list", {"workspace": workspace, "active": active})


@jobs.command("status")
@as_command
def job_status(job_id: Job, *, workspace: Workspace = "./workspace") -> Call:
    """One job: state, progress, time left, files."""
    return Call("jobs", "jobs_status", {"job_id": job_id, "workspace": workspace})


@jobs.command("submit", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@as_command
def submit_job(
    command: Annotated[str, typer.Argument(metavar="COMMAND", help="capture, generate, …")],
    arguments: Annotated[list[str] | None, typer.Argument(metavar="ARGS", help="As for the command itself.")] = None,
    *,
    workspace: Workspace = "./workspace",
    device: Annotated[str | None, typer.Option("--device", help="The device whose queue it joins.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Return when the job is finished.")] = False,
) -> Call:
    """Queue `pare COMMAND ARGS…`; flags of this command come before COMMAND."""
    words = arguments or []
    check_words(command, words)
    given = {"workspace": workspace, "device": device, "wait": wait}
    return Call("jobs", "jobs_submit", {"command": command, "arguments": words, **given})


@jobs.command("cancel")
@as_command
def cancel_job(job_id: Job, *, workspace: Workspace = "./workspace") -> Call:
    """Stop a job at its next step."""
    return Call("jobs", "jobs_cancel", {"job_id": job_id, "workspace": workspace})


@jobs.command("resume")
@as_command
def resume_job(job_id: Job, *, workspace: Workspace = "./workspace") -> Call:
    """Go on with a job that was cancelled, failed or lost."""
    return Call("jobs", "jobs_resume", {"job_id": job_id, "workspace": workspace})


@jobs.command("log")
@as_command
def job_log(
    job_id: Job,
    *,
    workspace: Workspace = "./workspace",
    lines: Annotated[int, typer.Option("--lines", min=1, help="How many.")] = 200,
) -> Call:
    """The last lines that a job wrote."""
    return Call("jobs", "jobs_log", {"job_id": job_id, "workspace": workspace, "lines": lines})


@cli.command()
@as_command
def app(
    paths: Annotated[list[str] | None, typer.Argument(metavar="[RUN|FOLDER]...", help="Runs to open.")] = None,
    *,
    workspace: Workspace = "./workspace",
    port: Annotated[int, typer.Option("--port", help="Where the browser finds it, on this machine only.")] = 8501,
    open_browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open a browser.")] = True,
) -> Call:
    """Open the workbench in the browser."""
    given = {"workspace": workspace, "port": port, "open_browser": open_browser}
    return Call("app", arguments={"paths": paths or [], **given})


def check_words(command: str, words: Sequence[str]) -> None:
    """Raises a usage error unless `pare COMMAND WORDS…` could be called; nothing is run."""
    known = getattr(get_command(cli), "commands", {})
    if command in known:
        known[command].make_context(f"pare {command}", list(words))


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code: 0 done, 1 failed, 2 bad input, 130 cancelled."""
    words = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    # Libraries' notices would stand before the one line that says what is wrong.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    logging.getLogger("xformers").setLevel(logging.ERROR)
    # A stopped process cleans up as after Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        code = cli(args=words, prog_name="pare", standalone_mode=False)
    except typer.TyperException as error:
        context = getattr(error, "ctx", None)
        where = context.command_path if context is not None else "pare"
        message = " ".join(error.format_message().split())
        if not message:  # a group without a verb, which has just shown its help
            return DONE
        print(f"{where}: {message} (see {where} --help)", file=sys.stderr)
        return BAD_INPUT
    except (KeyboardInterrupt, typer.Abort):
        print("cancelled", file=sys.stderr)
        return CANCELLED
    return code if isinstance(code, int) else 0
