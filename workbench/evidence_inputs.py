"""What `pare evidence` is asked about: a run, a model, or both, checked to belong together; and what asking will cost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.evidence.answer import NEEDS_MODEL, QUESTIONS
from analysis.runs import Run
from pare import reference
from pare.errors import InputError
from pare.geometry import DEMO, Geometry
from workbench.plan import forwards_per_clip
from workbench.settings import RunSettings

ALL = "all"
DEMO_RUN = DEMO.parent / "runs" / "demo"
SAMPLES: Mapping[str, int] = {"premise": 24, "scores": 4}
TIMESTEPS = (900.0, 700.0, 500.0, 300.0, 100.0)
POINTS = 16
SCORERS = ("pare", "projected_energy", "magnitude", "gate_gradient", "gate_taylor", "integrated_gradients", "random")
# A backward pass costs about two forwards.
FORWARDS = {"gate_gradient": 3, "gate_taylor": 3, "integrated_gradients": 3 * POINTS}


@dataclass(frozen=True)
class Inputs:
    """A run to read and a model to run; `model` is None where no question runs one, `run` where only cost is asked."""

    run: Run | None
    model: str | None

    @property
    def identity(self) -> dict[str, Any]:
        """The model that answers are about."""
        if self.run is not None:
            return dict(self.run.manifest.model)
        assert self.model is not None
        return dict(reference.model_identity(self.model))

    @property
    def geometry(self) -> Geometry:
        """Its shapes."""
        if self.run is not None:
            return self.run.geometry
        assert self.model is not None
        return reference.model_geometry(self.model)

    @property
    def source(self) -> dict[str, Any]:
        """The model and the run, as answers name them."""
        about: dict[str, Any] = {"model": self.identity}
        if self.run is not None:
            mode, samples = self.run.manifest.mode, len(self.run.finished)
            about["run"] = {"name": self.run.folder.name, "hash": self.run.hash, "mode": mode, "samples": samples}
        return about


def questions(word: str) -> tuple[str, ...]:
    """The questions that a word on the command line stands for. Raises InputError for another word.

    >>> questions("alpha"), len(questions("all"))
    (('alpha',), 6)
    """
    if word == ALL:
        return tuple(QUESTIONS)
    if word not in QUESTIONS:
        raise InputError("QUESTION", got=word, expected=f"{', '.join(QUESTIONS)} or {ALL}", fix="choose one of them")
    return (word,)


def inputs(
    word: str, source: str | Path, *, run: str | Path | None = None, model: str | None = None, plan_only: bool = False
) -> Inputs:
    """The run and the model behind `source`, a run's folder or a MODEL, for a question.

    A model's statistics come from `run`, for the demo model from the bundled one; a run's model is its own, or `model`
    where that lies elsewhere. With `plan_only` there need not be a run. Raises InputError where a question's part is
    missing and where the two do not belong together: other weights than those that were measured.
    """
    wanted = questions(word)
    of_run = (Path(source) / "run.json").is_file()
    if of_run and run is not None:
        raise InputError("--run", got=run, expected="none beside a run", fix="leave it out")
    # What it will cost can be asked before the run is there.
    there = run is not None and not (plan_only and not (Path(run) / "run.json").is_file())
    opened = Run.open(source) if of_run else Run.open(str(run)) if there else None
    if opened is None and str(source) == "demo" and (DEMO_RUN / "run.json").is_file():
        opened = Run.open(DEMO_RUN)
    name = model or (opened.model_id if of_run and opened is not None else str(source))
    if not of_run:
        reference.resolve(name)
    if opened is None and not plan_only:
        raise InputError(
            "--run",
            got="no run",
            expected=f"a run of {source}, whose statistics the question is about",
            fix=f"pare capture {source} --out RUN, then --run RUN",
        )
    if opened is not None and not opened.finished:
        raise InputError(
            str(opened.folder), got="no finished sample", expected="at least one", fix="capture with --resume"
        )
    runs_model = any(each in NEEDS_MODEL for each in wanted)
    if of_run and (not runs_model or (word == ALL and not _here(name))):
        # What needs the weights is left out, and said so.
        return Inputs(opened, None)
    if opened is not None and not plan_only:
        check_same_model(opened, name)
    return Inputs(opened, name)


def check_same_model(run: Run, model: str) -> None:
    """Raise InputError unless the run was captured from this very model."""
    own, found = run.manifest.model, reference.model_identity(model)
    for name in ("config_hash", "weight_hash"):
        if own.get(name) != found[name]:
            raise InputError(
                "MODEL",
                got=f"{found['model_id']} ({name} {str(found[name])[:12]})",
                expected=f"the model of the run, {run.model_id} ({str(own.get(name))[:12]})",
                fix="give the run's own model with --model, or capture this one",
            )


def _here(model: str) -> bool:
    try:
        reference.weights_folder(model)
    except InputError:
        return False
    return True


def numbers_of_heads(text: str | int | Sequence[int] | None, geometry: Geometry) -> tuple[int, ...]:
    """How many heads of every block are switched off together: "1,2", a sequence, or a tenth and a fifth of a block's.

    Raises InputError for text that holds no whole numbers above 0.
    """
    if text is None:
        return tuple(sorted({max(1, geometry.heads // 10), max(1, geometry.heads // 5)}))
    parts = text.split(",") if isinstance(text, str) else [text] if isinstance(text, int) else text
    try:
        found = tuple(sorted({int(each) for each in parts}))
    except (TypeError, ValueError):
        found = ()
    if not found or found[0] < 1:
        raise InputError("--remove", got=text, expected="numbers of heads of every block, as 1,2", fix="--remove 1,2")
    return found


def videos_of_premise(prompts: int, removed: Sequence[int], draws: int, kinds: int) -> int:
    """How many videos the premise takes: the dense one and each set's, per prompt.

    >>> videos_of_premise(10, (1, 2), 2, 2)
    130
    """
    return prompts * (1 + len(removed) * (2 + draws + kinds))


def forwards_of_scores(geometry: Geometry, settings: RunSettings, samples: int, scorers: Sequence[str]) -> int:
    """Forwards of the transformer, backward passes as two: the clean samples, every head off in turn, and the gradients."""
    heads = 2 * geometry.blocks * geometry.heads
    per_point = heads + 1 + sum(FORWARDS.get(each, 0) for each in scorers)
    return samples * (forwards_per_clip(settings) + len(TIMESTEPS) * per_point)
