"""Doing the jobs of the table in a folder: every one can be interrupted at any moment and goes on where it stopped."""

import json
import math
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from analysis.runs import Run
from pare import reference
from pare.errors import InputError
from pare.files import write_bytes
from pare.geometry import read_json
from pare.progress import Progress, silent
from pare.versions import versions
from pare.video import read_metadata
from workbench.call import plain
from workbench.demo.results.effort import FEW_STEPS
from workbench.demo.results.rows import MASKS, TEACHER, Budget, Job
from workbench.demo.results.store import compact

SCHEMA, SCORES_SCHEMA = "pare-results/1", "pare-results-scores/2"
RECORD, EVALUATIONS, SCORES, STUDENTS = "results.json", "evaluations", "scores", "students"
CARD = "README.md"
WARMUP, CHECKPOINT_EVERY = 120, 100
# What decides which jobs there are and stands in their names.
NAMED = ("seeds", "width_steps", "joint_steps", "few_steps_steps", "longer")


@dataclass(frozen=True)
class Bench:
    """Where the table is made and of what: a folder, the teacher, its run, prompts, and how much of everything.

    `data`: encoded samples of `pare distill data` (None: made in the folder); `settings` replace the model's own sampling.
    """

    folder: Path
    model: str
    run: Path
    prompts: Sequence[str]
    budget: Budget
    data: Path | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def samples(self) -> Path:
        """The encoded samples."""
        return self.data or self.folder / "data"

    def check(self) -> None:
        """Write down what the folder is of. InputError for a folder of another model, run, cut, prompts or settings."""
        budget = {name: value for name, value in asdict(self.budget).items() if name not in NAMED}
        about = {"schema": SCHEMA, "model": reference.model_identity(self.model), "run": Run.open(self.run).hash,
                 "prompts": list(self.prompts), "budget": budget, "settings": self.settings}  # fmt: skip
        path = self.folder / RECORD
        named = {name: value for name, value in asdict(self.budget).items() if name in NAMED}
        there, wanted = read_json(path) if path.is_file() else None, json.loads(json.dumps(about))
        if there is None or (there["named"] != named and all(there.get(name) == wanted[name] for name in wanted)):
            # Jobs of other steps have other names, so a folder may go on with them.
            write_bytes(path, json.dumps(about | {"named": named, "versions": versions()}, indent=1).encode())
            return
        if different := [name for name in wanted if there.get(name) != wanted[name]]:
            raise InputError(
                "--out", got=f"{self.folder}, results of another {', '.join(different)}",
                expected="a folder that this very command began", fix="name another --out",
            )  # fmt: skip

    def place(self, job: Job) -> Path:
        """The file or folder that a job makes."""
        kinds = {"evaluation": self.folder / EVALUATIONS / job.name, "data": self.samples,
                 "scores": self.folder / SCORES / f"{job.name}.json",
                 "mask": self.folder / "masks" / f"{job.name}.safetensors"}  # fmt: skip
        return kinds.get(job.kind, self.student(job.name))

    def student(self, name: str) -> Path:
        """The folder of a student, pruned or trained."""
        return self.folder / STUDENTS / name

    def done(self, job: Job) -> bool:
        """Whether what the job makes is there and whole."""
        place = self.place(job)
        if job.kind == "evaluation":
            return all(video_path(place, number).is_file() for number in range(len(self.prompts)))
        if job.kind == "data":
            return self.data is not None or has_all_shards(place)
        # The card is the last thing that a training writes; a pruned student appears whole.
        return (place / CARD).is_file() if job.kind in ("training", "student") else place.is_file()

    def do(self, job: Job, progress: Progress = silent) -> None:
        """Do one job, from wherever an earlier attempt stopped."""
        {"data": self._encode, "mask": self._mask, "student": self._prune, "training": self._train,
         "evaluation": self._evaluate, "scores": self._score}[job.kind](job, progress)  # fmt: skip

    def _encode(self, job: Job, progress: Progress) -> None:
        from workbench.commands.distill import distill

        distill("data", self.model, out=self.samples, samples=self.budget.samples, device="cpu", progress=progress)

    def _mask(self, job: Job, progress: Progress) -> None:
        from workbench.commands.mask import mask

        self.place(job).parent.mkdir(parents=True, exist_ok=True)
        settings = dict(MASKS[job.name])
        mask(self.run, out=self.place(job), model=self.model, ratio=self.budget.ratio, device="cpu",
             progress=progress, **settings)  # fmt: skip

    def _prune(self, job: Job, progress: Progress) -> None:
        from workbench.commands.prune import prune

        path = self.folder / "masks" / f"{job.name}.safetensors"
        prune(self.model, mask=path, out=self.place(job), run=self.run, components="copy", progress=progress)

    def _train(self, job: Job, progress: Progress) -> None:
        from workbench.commands.distill import distill

        stage, out = job.stage, self.place(job)
        assert stage is not None
        budget = self.budget
        few = stage.name == "steps"
        rates = {"width": budget.learning_rate, "joint": budget.joint_rate, "steps": budget.few_steps_rate}
        settings: dict[str, Any] = {
            "train_steps": stage.steps, "batch": budget.few_steps_batch if few else budget.batch,
            "learning_rate": rates[stage.name], "seed": job.seed, "warmup": min(WARMUP, stage.steps // 5),
            "checkpoint_every": CHECKPOINT_EVERY, "device": "cpu",
        }  # fmt: skip
        if stage.name == "joint":
            settings |= {"run": self.run, "router_rate": budget.router_rate, "router_share": budget.router_share}
        if few:
            settings |= {"few_steps": FEW_STEPS, "trajectories": budget.trajectories}
        student = None if job.source is None else self.student(job.source)
        settings |= {name: value for name, value in self.settings.items() if name in ("steps", "guidance", "shift")}
        distill(stage.name, self.model, out=out, data=self.samples, student=student, resume=True, progress=progress,
                **(settings | dict(stage.settings)))  # fmt: skip
        # Most of the disk, and of no use to a student that is written.
        shutil.rmtree(out / "training" / "state", ignore_errors=True)

    def _evaluate(self, job: Job, progress: Progress) -> None:
        self.make_videos(self.model_of(job), job.name, self.sampling(job), progress)

    def _score(self, job: Job, progress: Progress) -> None:
        self.score(self.model_of(job), job.name, progress)

    def make_videos(self, model: str, name: str, sampling: dict[str, Any], progress: Progress = silent) -> None:
        """The videos of all prompts, prompt i with seed i, into an evaluation of this name; those that are there are kept."""
        from pare.compact_text import compact_text
        from pare.models import load_pipeline
        from workbench.commands.generate import generate

        folder, loaded = self.folder / EVALUATIONS / name, list[Any]()
        with ExitStack() as compact:

            def held(model: str, **options: Any) -> Any:
                if not loaded:
                    loaded.append(load_pipeline(model, **options))
                    # A sixth of a video's time is saved, and velocities are the same but for rounding.
                    compact.enter_context(compact_text(loaded[0].transformer))
                return loaded[0]

            for number, prompt in enumerate(self.prompts):
                path = video_path(folder, number)
                if not path.is_file():
                    generate(model, prompt=prompt, out=path, load=held, device="cpu", seed=number, **sampling)
                progress(number + 1, len(self.prompts), prompt)

    def score(self, model: str, name: str, progress: Progress = silent) -> None:
        """The scores of an evaluation's videos, beside the teacher's."""
        from workbench.demo.results.video_scores import score_videos

        folder, place = self.folder / EVALUATIONS, self.folder / SCORES / f"{name}.json"
        lines = place.with_suffix(".jsonl")
        videos = score_videos(folder / name, folder / TEACHER, self.prompts, lines, progress)
        about = read_metadata(video_path(folder / name, 0))
        result = {"schema": SCORES_SCHEMA, "name": name, "model": about["model"], "settings": about["settings"],
                  "parameters": stored_parameters(reference.weights_folder(model)), "videos": videos,
                  "versions": versions()}  # fmt: skip
        write_bytes(place, compact(plain(result)))
        lines.unlink()

    def model_of(self, job: Job) -> str:
        """MODEL of an evaluation."""
        return self.model if job.name == TEACHER else str(self.student(job.name))

    def sampling(self, job: Job) -> dict[str, Any]:
        """What replaces the model's own sampling; a student of four steps keeps its own."""
        return {} if any(stage.name == "steps" for stage in job.row.stages) else self.settings


def video_path(folder: Path, number: int) -> Path:
    """Where video number i of an evaluation lies."""
    return folder / "videos" / f"{number:05d}.mp4"


def has_all_shards(folder: Path) -> bool:
    """Whether an encoding of samples has come to its end."""
    if not (folder / "data.json").is_file():
        return False
    about = read_json(folder / "data.json")
    count = -(-len(about["captions"]) // about["shard_samples"])
    return all((folder / "shards" / f"{number:05d}.safetensors").is_file() for number in range(count))


def stored_parameters(folder: Path) -> int:
    """How many numbers the safetensors files of a folder hold, from their headers."""
    total = 0
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        total += sum(math.prod(each["shape"]) for name, each in header.items() if name != "__metadata__")
    return total
