"""The rows of the table: which mask, which stages, how many trainings; a list of jobs that share what they can."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from pare.errors import InputError
from pare.training.plan import Stage as StageName

Kind: TypeAlias = Literal["data", "evaluation", "mask", "student", "training", "scores"]
Pairs: TypeAlias = tuple[tuple[str, Any], ...]

TEACHER = "teacher"
# By name, what `pare mask` is told beside the ratio. Neurons go by Eq. 6 and 7 but in the uniform cut by magnitude.
MASKS: dict[str, Pairs] = {
    "pare": (),
    "alpha-1": (("alpha", 1.0),),
    "magnitude": (("scorer", "magnitude"), ("neurons", "magnitude"), ("alpha", 1.0)),
    "random": (("scorer", "random"),),
    "temporal-attention": (("scorer", "temporal_attention"),),
}


@dataclass(frozen=True)
class Budget:
    """What every row gets: the cut, training steps, prompts, trainings.

    Stage I has `width_steps`, stage II `joint_steps`; a row without one of them gets the steps of both in the other. Stage III
    comes on top, where a row has it. `seeds` trainings for main rows, one for baselines. Two rows more have `longer` times the
    steps in every stage, one training each: what the budget costs. The rates are for a model of a few
    million parameters and few steps; those of `DistillSettings` are the paper's.
    """

    ratio: float = 0.3
    width_steps: int = 400
    joint_steps: int = 800
    few_steps_steps: int = 300
    longer: int = 3
    batch: int = 2
    few_steps_batch: int = 2
    trajectories: int = 48
    seeds: int = 3
    prompts: int = 200
    samples: int = 2048
    learning_rate: float = 5e-4
    joint_rate: float = 5e-4
    router_rate: float = 2.5e-3
    router_share: float = 0.25
    few_steps_rate: float = 1e-4

    @property
    def steps(self) -> int:
        """Training steps of a row, without stage III."""
        return self.width_steps + self.joint_steps


@dataclass(frozen=True)
class Stage:
    """One call of `pare distill`: its stage, its steps, and the settings in which it differs.

    >>> Stage("joint", 300, (("router", "timestep"),)).slug
    'joint300-router-timestep'
    """

    name: StageName
    steps: int
    settings: Pairs = ()

    @property
    def slug(self) -> str:
        """A part of a folder's name."""
        own = "".join(f"-{name.replace('_', '-')}-{value:g}" if isinstance(value, int | float) else
                      f"-{name.replace('_', '-')}-{value}" for name, value in self.settings)  # fmt: skip
        return f"{self.name}{self.steps}{own}"


@dataclass(frozen=True)
class Row:
    """One row: `mask` (None: nothing is cut), `stages`, how many training seeds, and what it is for people.

    `static` rows never run some of their blocks, which need not be stored. `more` steps are those of stage III.
    """

    key: str
    title: str
    group: Literal["teacher", "main", "longer", "baseline"]
    mask: str | None = None
    stages: tuple[Stage, ...] = ()
    seeds: int = 1
    static: bool = False

    @property
    def steps(self) -> int:
        """Training steps of the first two stages."""
        return sum(stage.steps for stage in self.stages if stage.name != "steps")

    def name(self, seed: int, stages: int | None = None) -> str:
        """The folder of the student of a seed after so many stages; rows with a common beginning share its folders."""
        chosen = self.stages if stages is None else self.stages[:stages]
        return ".".join([f"{self.mask or 'dense'}-s{seed}", *(stage.slug for stage in chosen)])

    def evaluation(self, seed: int) -> str:
        """The folder of its videos."""
        return self.name(seed) if self.stages else self.key


@dataclass(frozen=True)
class Job:
    """One thing to do, with the row and seed that first ask for it; `source` is the student that it begins with."""

    kind: Kind
    name: str
    row: Row
    seed: int = 0
    stage: Stage | None = None
    source: str | None = None

    @property
    def title(self) -> str:
        """For people."""
        if self.kind in ("data", "mask", "student"):
            return f"{self.kind} {self.name}"
        which = self.row.title if not self.row.stages else f"{self.row.title}, seed {self.seed}"
        return f"{which}: {f'{self.stage.name} training' if self.stage else self.kind}"


def all_rows(budget: Budget, static_blocks: int) -> tuple[Row, ...]:
    """The rows of the table; `static_blocks` blocks of a dense model have the active parameters of a pruned, routed one.

    >>> rows = all_rows(Budget(), 4)
    >>> sorted({(row.group, row.steps) for row in rows if row.stages})
    [('baseline', 1200), ('longer', 3600), ('main', 1200)]
    """
    first, second = budget.width_steps, budget.joint_steps

    def both(times: int = 1, **settings: Any) -> tuple[Stage, ...]:
        pairs = tuple(settings.items())
        return Stage("width", times * first, pairs), Stage("joint", times * second, pairs)

    def main(key: str, title: str, mask: str | None, *stages: Stage) -> Row:
        return Row(key, title, "main", mask, stages, budget.seeds)

    def baseline(key: str, title: str, mask: str | None, *stages: Stage, static: bool = False) -> Row:
        return Row(key, title, "baseline", mask, stages, static=static)

    many = budget.longer

    def longer(key: str, title: str, *stages: Stage) -> Row:
        return Row(key, f"{title}, {many} × the steps", "longer", "pare", (*both(many), *stages))

    k = (("router", "static"), ("k_min", static_blocks), ("k_max", static_blocks))
    timestep = Stage("joint", second, (("router", "timestep"),))
    return (
        Row(TEACHER, "teacher", "teacher", seeds=0),
        main("width", "width only", "pare", both()[0], Stage("width", second)),
        main("routing", "routing only", None, Stage("joint", budget.steps)),
        main("pare", "PARE", "pare", *both()),
        main("four-steps", "PARE + four steps", "pare", *both(), Stage("steps", budget.few_steps_steps)),
        longer("pare-longer", "PARE"),
        longer("four-steps-longer", "PARE + four steps", Stage("steps", many * budget.few_steps_steps)),
        baseline("magnitude", "uniform magnitude", "magnitude", *both()),
        baseline("random", "random heads", "random", *both()),
        baseline("static", "static blocks by importance", None, Stage("joint", budget.steps, k), static=True),
        baseline("low-temporal", "low temporal attention cut (F3-like)", "temporal-attention", *both()),
        baseline("timestep", "timestep-only router", "pare", both()[0], timestep),
        baseline("alpha-1", "α = 1", "alpha-1", *both()),
        baseline("no-width", "no stage I", "pare", Stage("joint", budget.steps)),
        baseline("no-features", "no L_feat", "pare", *both(feature_weight=0.0)),
        baseline("no-temporal", "no L_temp", "pare", *both(temporal_weight=0.0)),
    )  # fmt: skip


def choose(rows: Sequence[Row], keys: Iterable[str] | None) -> tuple[Row, ...]:
    """The rows of these keys, the teacher always among them; InputError for a key that is none."""
    if keys is None:
        return tuple(rows)
    asked, known = list(keys), {row.key for row in rows}
    for key in asked:
        if key not in known:
            raise InputError("--rows", got=key, expected=", ".join(row.key for row in rows), fix="a key of a row")
    return tuple(row for row in rows if row.key in {TEACHER, *asked})


def jobs_of(rows: Sequence[Row]) -> list[Job]:
    """Everything to do, each thing once; the first seed of all rows comes before the second."""
    found: dict[tuple[Kind, str], Job] = {}
    for job in _wanted(rows):
        found.setdefault((job.kind, job.name), job)
    return list(found.values())


def needed(jobs: Sequence[Job], done: Callable[[Job], bool]) -> list[Job]:
    """The jobs that a missing score still needs; a student whose videos are scored need not be there."""
    known = {(job.kind, job.name): job for job in jobs}
    found: set[tuple[Kind, str]] = set()

    def ask(kind: Kind, name: str) -> None:
        job = known.get((kind, name))
        if job is None or (kind, name) in found or done(job):
            return
        found.add((kind, name))
        if kind == "scores":
            # A video is scored beside the teacher's.
            ask("evaluation", TEACHER)
            ask("evaluation", name)
        elif kind == "evaluation" and name != TEACHER:
            ask("training", name)
        elif kind == "training":
            ask("data", "data")
            if job.source is not None:
                ask("student", job.source)
                ask("training", job.source)
        elif kind == "student":
            ask("mask", name)

    for job in jobs:
        if job.kind == "scores":
            ask("scores", job.name)
    return [job for job in jobs if (job.kind, job.name) in found]


def _wanted(rows: Sequence[Row]) -> Iterator[Job]:
    (teacher,) = (row for row in rows if row.group == "teacher")
    yield Job("evaluation", TEACHER, teacher)
    yield Job("scores", TEACHER, teacher)
    if any(row.stages for row in rows):
        yield Job("data", "data", teacher)
    for seed in range(max((row.seeds for row in rows), default=0)):
        for row in rows:
            if seed >= row.seeds:
                continue
            if row.mask is not None:
                yield Job("mask", row.mask, row)
                yield Job("student", row.mask, row)
            for number, stage in enumerate(row.stages):
                before = row.mask if number == 0 else row.name(seed, number)
                yield Job("training", row.name(seed, number + 1), row, seed, stage, before)
            yield Job("evaluation", row.evaluation(seed), row, seed)
            yield Job("scores", row.evaluation(seed), row, seed)
