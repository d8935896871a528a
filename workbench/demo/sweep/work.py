"""Doing the cells of the sweep, each of which goes on where it was stopped: at its training step, at its last look."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from analysis.runs import Run
from pare import reference
from pare.errors import InputError
from pare.files import write_bytes
from pare.geometry import read_json
from pare.progress import Progress, silent
from pare.versions import versions
from workbench.demo.results.rows import MASKS
from workbench.demo.results.work import WARMUP, has_all_shards
from workbench.demo.sweep.cells import Cell, Plan
from workbench.demo.sweep.values import DENSE
from workbench.settings import RunSettings

SCHEMA, RECORD = "pare-sweep-bench/1", "sweep.json"
CHECKPOINT_EVERY = 25


@dataclass(eq=False)
class Bench:
    """Where the sweep is made and of what: a folder, the teacher, its run, and how much of everything.

    `data` and `held_out`: encoded samples to train on and to look at (None: made in the folder, of moving digits);
    `settings` replace the model's own sampling.
    """

    folder: Path
    model: str
    run: Path
    plan: Plan
    data: Path | None = None
    held_out: Path | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    progress: Progress = silent

    def check(self) -> None:
        """Write down what the folder is of. InputError for a folder of something else."""
        about = {"schema": SCHEMA, "model": reference.model_identity(self.model), "run": Run.open(self.run).hash,
                 "plan": asdict(self.plan), "settings": self.settings}  # fmt: skip
        path = self.folder / RECORD
        if not path.is_file():
            write_bytes(path, json.dumps(about | {"versions": versions()}, indent=1).encode())
            return
        there, wanted = read_json(path), json.loads(json.dumps(about))
        if different := [name for name in wanted if there.get(name) != wanted[name]]:
            raise InputError(
                "--out", got=f"{self.folder}, a sweep of another {', '.join(different)}",
                expected="a folder that this very command began", fix="name another --out",
            )  # fmt: skip

    def done(self, cell: Cell) -> bool:
        """Whether the cell was looked at after all of its steps."""
        return all(cell.observation(self.folder, step).is_file() for step in self.plan.steps)

    def prepare(self) -> None:
        """Encode the samples, and look at the teacher."""
        from workbench.commands.distill import distill

        if self.data is None and not has_all_shards(self.samples):
            distill(
                "data", self.model, out=self.samples, samples=self.plan.samples, device="cpu", progress=self.progress
            )
        if self.held_out is None and not has_all_shards(self.looked_at):
            self._encode_held_out()
        self.observer.write(self.observer.teacher, self.folder / DENSE)

    def do(self, cell: Cell) -> None:
        """Train the cell's student, and look at it."""
        from workbench.commands.distill import distill
        from workbench.commands.mask import mask
        from workbench.commands.prune import prune
        from workbench.distill_train import load_student

        path = self.folder / "masks" / f"{cell.name}.safetensors"
        pruned, out = self.folder / "pruned" / cell.name, self.folder / "trained" / cell.name
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            mask(self.run, out=path, model=self.model, ratio=cell.ratio, device="cpu", **dict(MASKS[cell.mask]))
        if not (pruned / "README.md").is_file():
            prune(self.model, mask=path, out=pruned, run=self.run, components="copy")
        if 0 in self.plan.steps:
            self.observer.write(load_student(pruned / "transformer")[0], cell.observation(self.folder, 0))
        distill(
            "width", self.model, out=out, data=self.samples, student=pruned, resume=True, validate=self._look(cell),
            validate_every=self.plan.every, train_steps=self.plan.train_steps, batch=self.plan.batch,
            learning_rate=self.plan.learning_rate, warmup=min(WARMUP, self.plan.train_steps), checkpoint_every=CHECKPOINT_EVERY,
            device="cpu", progress=self.progress,
        )  # fmt: skip
        shutil.rmtree(out / "training" / "state", ignore_errors=True)

    def _look(self, cell: Cell) -> Callable[[Any, int], dict[str, Any]]:
        def look(student: Any, step: int) -> dict[str, Any]:
            if step in self.plan.steps:
                self.observer.write(student, cell.observation(self.folder, step))
            return {}

        return look

    @property
    def samples(self) -> Path:
        """What is trained on."""
        return self.data or self.folder / "data"

    @property
    def looked_at(self) -> Path:
        """What the flow loss is taken on."""
        return self.held_out or self.folder / "held-out"

    @cached_property
    def observer(self) -> Any:
        """Looks at students; loads the teacher once."""
        from pare.models import load_pipeline
        from pare.training.data import LatentData
        from workbench.demo.sweep.observe import Observer

        run = RunSettings.of(**self.settings, device="cpu").filled(self.model)
        data = LatentData(self.looked_at)
        captions: Sequence[str] = data.captions[: self.plan.videos]
        pipe = load_pipeline(self.model, **run.loading)
        pipe.transformer.requires_grad_(False).eval()
        return Observer(pipe, data, captions, run.model_dump())

    def _encode_held_out(self) -> None:
        """Clips of scans that neither the teacher nor a student ever saw."""
        from pare.models import load_pipeline
        from pare.processes import THE_ONLY_ONE
        from workbench.demo.moving_digits import draw_clip
        from workbench.demo.settings import DATA
        from workbench.distill_data import encode_data

        count = self.plan.held_out
        run = RunSettings.of(device="cpu").filled(self.model)
        encode_data(
            load_pipeline(self.model, **run.loading, transformer=False),
            self.looked_at,
            lambda index: draw_clip(DATA, index, held_out=True).video,
            [draw_clip(DATA, seed, held_out=True).factors.caption for seed in range(count)],
            settings=run.model_dump(),
            identity=reference.model_identity(self.model),
            source={"name": "moving digits, held-out scans", "samples": count},
            geometry=reference.model_geometry(self.model),
            process=THE_ONLY_ONE,
            progress=self.progress,
        )
