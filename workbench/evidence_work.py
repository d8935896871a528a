"""What `pare evidence` does for one question: reads the run, or runs the model, and hands the numbers to the answer."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.evidence import alpha, averages, head_sets, premise, roles, routes, scores
from analysis.evidence.answer import NEEDS_MODEL, Answer
from analysis.importance import mean_ratio, run_importance
from analysis.marks import head_marks
from analysis.runs import Run
from pare import reference
from pare.errors import InputError
from pare.files import write_bytes
from pare.progress import Progress
from pare.versions import versions
from workbench.call import plain
from workbench.evidence_inputs import (
    SAMPLES,
    SCORERS,
    TIMESTEPS,
    Inputs,
    forwards_of_scores,
    numbers_of_heads,
    videos_of_premise,
)
from workbench.plan import forwards_per_clip
from workbench.plan import plan as cost_of
from workbench.settings import RunSettings

REQUEST = "request.json"
NEEDS = {"roles": ("self/ratio",), "averages": ("self/ratio",), "alpha": ("self/ratio", "self/value_norm")}
KINDS = (head_sets.UNIMPORTANT, head_sets.MAGNITUDE)


class Occupied(InputError):
    """The folder to write holds something else."""


@dataclass(frozen=True)
class Work:
    """The run and the model, loaded once, and how they are to be asked: `options` of roles and masks, `how` many and which
    videos, `settings` of the model.
    """

    given: Inputs
    options: Mapping[str, Any]
    how: Mapping[str, Any]
    settings: Mapping[str, Any]
    keep_videos: bool = True
    resume: bool = False
    load: Callable[..., Any] | None = None

    def answer(self, question: str, folder: Path, progress: Progress) -> Answer:
        """The answer without its origin; what it takes is written into the folder on the way."""
        if question == "premise":
            return self._premise(folder, progress)
        if question == "scores":
            return self._scores(folder, progress)
        run = self._run
        if missing := [name for name in NEEDS.get(question, ()) if name not in run.statistics]:
            raise InputError(str(run.folder), got=f"no {missing[0]}", expected="a run with it", fix="capture it")
        self._begin(question, folder)
        taus = {name: self.options[name] for name in ("tau_s", "tau_t")}
        if question == "alpha":
            return alpha.ask(run, alpha=self.options["alpha"], share=self.options["ratio"], **taus)
        if question == "routes":
            return routes.ask(run)
        return roles.ask(run, **taus) if question == "roles" else averages.ask(run, **taus)

    def plan(self, question: str) -> dict[str, Any] | None:
        """Cost of a question; None for one that reads the run alone."""
        if question not in NEEDS_MODEL or self.given.model is None:
            return None
        from pare import models

        geometry, filled = self.given.geometry, self._filled
        device = models.check_device(filled.device)
        speed = models.measure_speed(device, models.check_dtype(filled.dtype, device))
        about: dict[str, Any] = {"device": str(device), "flops_per_second": speed}
        prompts = self.how["samples"] or SAMPLES[question]
        if question == "scores":
            return cost_of(
                self._model, filled, forwards=forwards_of_scores(geometry, filled, prompts, SCORERS), **about
            )
        removed = numbers_of_heads(self.how["remove"], geometry)
        clips = videos_of_premise(prompts, removed, self.how["draws"], len(KINDS))
        return cost_of(self._model, filled, forwards=forwards_per_clip(filled), clips=clips, **about)

    def about(self, question: str) -> dict[str, Any]:
        """The model's settings, for an answer that ran it."""
        if question not in NEEDS_MODEL:
            return {}
        own = self._filled.model_dump(exclude={"dry_run"})
        return {name: value for name, value in own.items() if value is not None}

    def _premise(self, folder: Path, progress: Progress) -> Answer:
        from analysis.stored_magnitude import stored_magnitude
        from workbench.commands.generate import generate
        from workbench.evidence_videos import Maker, make_videos, set_masks

        run, prompts = self._run, self._prompts("premise")
        ratio, marked = mean_ratio(run), head_marks(run).any
        magnitude = stored_magnitude(reference.weights_folder(self._model), run.geometry).score("self")
        kinds = dict(zip(KINDS, (run_importance(run)["self"], magnitude), strict=True))
        removed = numbers_of_heads(self.how["remove"], run.geometry)
        sets = head_sets.head_sets(ratio, kinds, removed=removed, draws=self.how["draws"])
        heads = {each.name: each.heads for each in sets}
        self._begin("premise", folder, prompts=prompts, sets=heads)
        files = set_masks(sets, run.geometry, self.given.identity, folder)
        load = self._load

        def made(*words: Any, **flags: Any) -> Any:
            return generate(*words, load=load, **flags)

        settings = {name: value for name, value in self.settings.items() if name != "seed"}
        maker = Maker(self._model, prompts, files, folder, made, self._filled.seed, settings)
        videos = make_videos(maker, keep_videos=self.keep_videos, progress=progress)
        rows = []
        for each in sets:
            at = tuple(zip(*each.heads, strict=True))
            about = {"set": each.name, "kind": each.kind, "removed": each.removed, "ratio": float(ratio[at].mean())}
            listed = " ".join(f"{block}.{head}" for block, head in each.heads)
            rows.append({**about, "marked": int(marked[at].sum()), "heads": listed})
        return premise.answer(videos, sets, about=pd.DataFrame(rows))

    def _scores(self, folder: Path, progress: Progress) -> Answer:
        from workbench.evidence_effects import head_effects, possible

        run, prompts, filled = self._run, self._prompts("scores"), self._filled
        chosen, missing = possible(SCORERS, run.statistics)
        self._begin("scores", folder, prompts=prompts, scorers=chosen)
        pipe = self._load(self._model, **filled.loading)
        resume = self.resume
        found = head_effects(pipe, run, prompts, filled, scorers=chosen, out=folder, resume=resume, progress=progress)
        answer = scores.answer(found, timesteps=TIMESTEPS)
        return replace(answer, settings={**answer.settings, "left_out": missing})

    @property
    def _run(self) -> Run:
        assert self.given.run is not None
        return self.given.run

    @property
    def _model(self) -> str:
        if self.given.model is None:
            got, expected = f"{self._run.model_id}, which is not here", "its weights on this machine, or --model"
            raise InputError("MODEL", got=got, expected=expected, fix="--model FOLDER")
        return self.given.model

    @cached_property
    def _filled(self) -> RunSettings:
        """The settings, with what auto comes to: it is part of what makes the numbers."""
        filled = RunSettings.of(**self.settings).filled(self._model)
        if filled.dry_run:
            return filled
        from pare import models

        device = models.check_device(filled.device)
        dtype = str(models.check_dtype(filled.dtype, device)).removeprefix("torch.")
        return filled.model_copy(update={"device": str(device), "dtype": dtype})

    @cached_property
    def _load(self) -> Callable[..., Any]:
        """Loads the pipeline when it is first needed, and hands out the same one from then on."""

        def once(model: str, **options: Any) -> Any:
            from pare.models import load_pipeline

            return (self.load or load_pipeline)(model, **options)

        return lru_cache(maxsize=1)(once)

    def _prompts(self, question: str) -> list[str]:
        from workbench.commands.capture import read_prompts

        lines = read_prompts(self.how["prompts"], self._model)
        if not lines and self.how["prompts"] is None:
            lines = list(dict.fromkeys(each.prompt for each in self._run.manifest.samples if each.prompt))
        asked = self.how["samples"]
        if not lines:
            raise InputError("--prompts", got="none", expected="a text file, one prompt per line", fix="--prompts FILE")
        if asked is not None and not 1 <= asked <= len(lines):
            expected = f"1 to {len(lines)}, the number of prompts"
            raise InputError("--samples", got=asked, expected=expected, fix=f"--samples {len(lines)}")
        return lines[: asked or SAMPLES[question]]

    def _begin(self, question: str, folder: Path, **more: Sequence[Any] | Mapping[str, Any]) -> None:
        """Write what is asked into the folder; refuse one that holds anything else."""
        request = {
            "question": question, "source": self.given.source, "options": dict(self.options), **more,
            "settings": self.about(question), "versions": versions(),
        }  # fmt: skip
        content = (json.dumps(plain(request), indent=1, ensure_ascii=False) + "\n").encode()
        path = folder / REQUEST
        if folder.exists() and any(folder.iterdir()):
            same = path.is_file() and path.read_bytes() == content
            if not (self.resume and same):
                raise Occupied(
                    "--out",
                    got=f"{folder}, which holds " + ("this very question" if same else "something else"),
                    expected="a new folder, or --resume with one that this very command began",
                    fix="add --resume" if same else "name another --out",
                )
        write_bytes(path, content)
