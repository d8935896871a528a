"""A report of one training: its settings, its curves, its validations with clips, and the roles and gates of its student."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from urllib.parse import urlencode

from analysis.figures.training import gate_shares, gate_table, logged_curve, loss_curves, role_counts, validation_curves
from analysis.role_changes import counts_by_block, role_changes
from analysis.roles import TAU_S, TAU_T
from workbench.pages.text import command_line, file_size, short_path
from workbench.report.origin import MOST_VIDEO_BYTES, carried, model_facts, setting_facts, version_facts
from workbench.report.part import Part, Report
from workbench.state import Selection
from workbench.training_record import Training

FIGURES = "analysis.figures.training"
BESIDE = (
    ("learning_rate", "learning rate", True),
    ("gradient_norm", "gradient norm", True),
    ("blocks_run", "blocks that run", False),
)


def loss_part(training: Training, height: int = 330) -> Part:
    """The loss and its parts by step."""
    n = training.samples_per_step
    parts = [name for name in training.losses if name != "loss"]
    call = f"loss_curves(training.curves, training.losses, samples={n}, steps={training.steps}, height={height})"
    return Part(
        "Losses",
        f"loss: the weighted sum; {', '.join(parts) or 'no parts'}: before their weights. Every point is the mean over the "
        f"n = {n} samples of one step, not smoothed.",
        figure=loss_curves(training.curves, training.losses, samples=n, steps=training.steps, height=height),
        alt="Loss of the training and its parts by step, on a logarithmic axis.",
        table=training.curves,
        python=_python(training, "loss_curves", "training.curves", call),
        command=training_command(training),
    )


def beside_parts(training: Training) -> dict[str, Part]:
    """What is logged beside the losses, by its name."""
    found = {}
    for name, words, log in BESIDE:
        if name not in training.curves or not training.curves[name].notna().any():
            continue
        table = training.curves[["step", name]]
        call = f"logged_curve(training.curves, {name!r}, {words!r}, log={log})"
        found[name] = Part(
            words.capitalize(),
            figure=logged_curve(training.curves, name, words, log=log),
            alt=f"The {words} by training step.",
            table=table,
            python=_python(training, "logged_curve", f"training.curves[['step', {name!r}]]", call),
            command=training_command(training),
        )
    return found


def validation_parts(training: Training) -> dict[str, Part]:
    """Errors on held-out samples and what the oracle read, by their name: errors_data, errors_teacher, oracle."""
    found = {}
    for against, words in (("data", "against the data"), ("teacher", "against the teacher")):
        rows = training.errors[training.errors["against"] == against]
        if len(rows):
            found[f"errors_{against}"] = Part(
                f"Held-out error {words}",
                "Squared error of the velocity, mean over n samples with its 95 % interval.",
                figure=validation_curves(rows, "sigma", "mean", f"error {words}"),
                alt=f"Squared error of the velocity {words} on held-out samples by training step, with 95 % intervals.",
                table=rows,
                python=_python(
                    training,
                    "validation_curves",
                    f"training.errors.query('against == \"{against}\"')",
                    f"validation_curves(table, 'sigma', 'mean', 'error {words}')",
                ),
                command=training_command(training),
            )
    if len(training.shares):
        found["oracle"] = Part(
            "What the oracle reads",
            "Share of the validation's clips that show what the caption asks for, with its 95 % interval.",
            figure=validation_curves(training.shares, "factor", "share", "read as asked", share=True),
            alt="Share of validation clips in which the oracle reads what the caption asked for, with 95 % intervals.",
            table=training.shares,
            python=_python(
                training,
                "validation_curves",
                "training.shares",
                "validation_curves(table, 'factor', 'share', 'read as asked', share=True)",
            ),
            command=training_command(training),
        )
    return found


def nearest(steps: Sequence[int], step: int) -> int:
    """The measured step nearest to the one that is asked for."""
    return min(steps, key=lambda each: abs(each - step))


def role_part(training: Training, step: int, tau_s: float, tau_t: float) -> Part | None:
    """The roles of the student's heads beside the teacher's; None where nothing was measured."""
    if not training.role_steps:
        return None
    at = nearest(training.role_steps, step)
    student, teacher = training.ratios(at), training.ratios(None)
    if student is None:
        return None
    own = counts_by_block(student.ratio, tau_s, tau_t)
    base = own if teacher is None else counts_by_block(teacher.ratio, tau_s, tau_t)
    changed = ""
    if teacher is not None:
        changes = role_changes(teacher.ratio, student.ratio, tau_s, tau_t)
        clear = int(changes["clear"].sum()) if len(changes) else 0
        changed = (
            f" {len(changes)} heads that were kept changed role, {clear} with a change whose interval leaves 0 out."
        )
    levels = ", ".join(f"{each:g}" for each in student.sigmas)
    whose = "None" if teacher is not None else str(at)
    lines = [
        f"teacher = counts_by_block(training.ratios({whose}).ratio, {tau_s:g}, {tau_t:g})",
        f"student = counts_by_block(training.ratios({at}).ratio, {tau_s:g}, {tau_t:g})",
    ]
    return Part(
        f"Head roles at step {at:,}",
        f"n = {student.samples} samples at σ = {levels}, the same noise each time; τs = {tau_s:g}, τt = {tau_t:g}.{changed}",
        figure=role_counts(base, own),
        alt="Heads of every role by block, the teacher's beside the student's.",
        table=base.merge(own, on="block", suffixes=("_teacher", "_student")),
        python=_python(
            training,
            "role_counts",
            "teacher.merge(student, on='block', suffixes=('_teacher', '_student'))",
            "role_counts(teacher, student)",
            lines=lines,
            more="from analysis.role_changes import counts_by_block",
        ),
        command=training_command(training),
    )


def gate_part(training: Training, step: int) -> Part | None:
    """In how many samples a block ran; None where no router was measured."""
    if training.stage == "width" or not training.role_steps:
        return None
    at = nearest(training.role_steps, step)
    student = training.ratios(at)
    if student is None or student.ran is None:
        return None
    ran = student.ran
    counts = ran.sum(axis=2)
    per_level = ", ".join(f"{counts[:, i].mean():.2f} at σ = {s:g}" for i, s in enumerate(student.sigmas))
    moved = int((ran != ran[:1]).any(axis=0).sum())
    return Part(
        f"Router at step {at:,}",
        f"Blocks that run of {ran.shape[2]}: {per_level} (n = {len(ran)} samples; every block is computed in training, its "
        f"change times the gate). {moved} of {ran.shape[1] * ran.shape[2]} gates differ between the samples.",
        figure=gate_shares(ran, student.sigmas),
        alt="Share of the samples in which a block ran, by noise level and block.",
        table=gate_table(ran, student.sigmas),
        python=_python(
            training,
            "gate_shares, gate_table",
            "gate_table(student.ran, student.sigmas)",
            "gate_shares(student.ran, student.sigmas)",
            lines=[f"student = training.ratios({at})"],
        ),
        command=training_command(training),
    )


def facts(training: Training) -> list[tuple[str, str]]:
    """What a training was asked, a name and a fact each."""
    about, settings = training.about, training.settings
    found = [
        ("Teacher", str(about["model"].get("model_id"))),
        (
            "Samples",
            f"{about['data'].get('samples')} of {about['data'].get('name')}, {training.samples_per_step} a step",
        ),
        ("Rate", f"{settings.get('learning_rate')}, warm-up {settings.get('warmup')}, seed {settings.get('seed')}"),
    ]
    if training.stage == "joint":
        found.append(("Router", f"{settings.get('router')}, rate {settings.get('router_rate')}"))
    if training.student is not None:
        weights = sum(path.stat().st_size for path in (training.student / "transformer").glob("*.safetensors"))
        found.append(("Student", f"{short_path(training.student)}, {file_size(weights)} of weights"))
    return found


def how_far(training: Training, student: str, *, active: bool = False) -> str:
    """One sentence on how far a training is; `student` is what it began with."""
    at = f"step {training.done:,} of {training.steps:,}"
    verb = "is at" if active else "ended at" if training.done >= training.steps else "stands at"
    now = training.curves["loss"].dropna().tolist() if "loss" in training.curves else []
    fell = ""
    if len(now) > 1:
        # One batch alone says little: the losses of neighbouring steps scatter.
        n = max(len(now) // 10, 1)
        first, last = fmean(now[:n]), fmean(now[-n:])
        steps = f"n = {n} logged step{'s' if n > 1 else ''} each"
        fell = f": the loss went from {first:.3g} to {last:.3g} (means of the first and last tenth, {steps})"
    return f"Stage {training.stage} of {student} {verb} {at}{fell}"


def resume_command(training: Training) -> str:
    """The command line that goes on, but for the paths, which a record does not keep."""
    model = training.about["model"].get("model_id")
    return f"pare distill {training.stage} {model} --data … --student … --out {short_path(training.folder.parent)} --resume"


def _going_on(training: Training) -> list[tuple[str, str]]:
    """How it goes on; nothing once every step is done."""
    return [] if training.done >= training.steps else [("Goes on by", resume_command(training))]


def training_command(training: Training) -> str:
    """The command line that makes the report of a training."""
    return command_line("report", short_path(training.folder), out="training.html")


def training_report(
    training: Training,
    *,
    at: int | None = None,
    tau_s: float = TAU_S,
    tau_t: float = TAU_T,
    active: bool = False,
    command: str | None = None,
    link: str | None = None,
    most_video_bytes: int = MOST_VIDEO_BYTES,
) -> Report:
    """What a training was asked and what came of it; `at` is the validation whose clips and roles are shown (the last).

    Videos beyond `most_video_bytes` in all are named, not carried.
    """
    validated = sorted({*training.clips, *training.role_steps})
    step = None if not validated else validated[-1] if at is None else nearest(validated, at)
    parts: list[Part | None] = [loss_part(training)] if training.losses else []
    parts += [*beside_parts(training).values(), *validation_parts(training).values()]
    if step is not None:
        parts += [role_part(training, step, tau_s, tau_t), gate_part(training, step)]
    clips, left_out = carried(_videos(training, step), most_video_bytes)
    if training.torn:
        left_out = f"{left_out} {training.torn} lines of the log cannot be read and are left out.".strip()
    query = Selection(tau_s=tau_s, tau_t=tau_t, training_step=at).to_query()
    given = {"at": at, "tau_s": None if tau_s == TAU_S else tau_s, "tau_t": None if tau_t == TAU_T else tau_t}
    again = command_line("report", short_path(training.folder), out="training.html", **given)
    return Report(
        title=f"Training {training.folder.resolve().parent.name} · stage {training.stage}",
        finding=how_far(training, str(training.about.get("student")), active=active),
        command=command or again,
        link=link,
        query=urlencode(query),
        about={
            "Training": [*facts(training), *_going_on(training)],
            "Settings": setting_facts(training.settings),
            "Model": model_facts(training.about["model"]),
            "Data": setting_facts(training.about["data"]),
            "Versions": version_facts(training.about.get("versions") or {}, "trained with"),
        },
        parts=[part for part in parts if part is not None],
        clips=clips,
        left_out=left_out,
    )


def _videos(training: Training, step: int | None) -> list[tuple[Path, str]]:
    """The clips of the validation nearest to a step, each after the teacher's of the same caption and seed."""
    if step is None or not training.clips:
        return []
    at = nearest(sorted(training.clips), step)
    found = []
    for number, path in sorted(training.clips[at].items()):
        teacher = training.teacher_clip(number)
        found += [] if teacher is None else [(teacher, f"Teacher, clip {number}")]
        found.append((path, f"Student at step {at:,}, clip {number}"))
    return found


def _python(
    training: Training, imports: str, table: str, figure: str, *, lines: Sequence[str] = (), more: str | None = None
) -> str:
    head = [*([] if more is None else [more]), f"from {FIGURES} import {imports}"]
    made = [f"training = Training.open({str(short_path(training.folder))!r})", *lines]
    made += [f"table = {table}", f"figure = {figure}", "figure.show()"]
    return "\n".join([*head, "from workbench.training_record import Training", "", *made])
