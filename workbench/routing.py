"""From the words of a command line to a routed model: which router, which budget, checked before a model is loaded."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pare import reference
from pare.depth.budget import BudgetSchedule, shifted_timesteps
from pare.depth.costs import CostTable
from pare.depth.table import DecisionTable
from pare.errors import InputError
from pare.geometry import DEMO, read_json
from workbench.routing_settings import RoutingSettings
from workbench.settings import RunSettings

if TYPE_CHECKING:
    import numpy as np

ROUTERS = ("importance", "random", "static", "learned", "none")
DEMO_RUN = DEMO.parent / "runs" / "demo"


@dataclass(frozen=True, eq=False)
class RoutingChoice:
    """A router that can be made: its name, its budget, and what it needs; `about` is what files say of it."""

    router: str
    blocks: int
    budget: BudgetSchedule | None
    importance: "tuple[np.ndarray, np.ndarray] | None" = None
    table: DecisionTable | None = None
    about: dict[str, Any] = field(default_factory=dict)

    def config(self, seed: int) -> Any:
        """The `RoutingConfig`; None to run all blocks. `seed` is that of the sample, which random scores follow."""
        from pare.depth import routers
        from pare.depth.routing import RoutingConfig

        if self.router == "none":
            return None
        router: Any = None
        if self.table is not None:
            router = routers.TableRouter(self.table)
        elif self.router == "random":
            router = routers.RandomRouter(self.blocks, seed)
        elif self.importance is not None and self.router == "importance":
            router = routers.ImportanceRouter(*self.importance)
        elif self.importance is not None:
            router = routers.StaticRouter(self.importance[1].mean(axis=0))
        return RoutingConfig(router, self.budget)


def choose_routing(model: str, settings: RoutingSettings, run: RunSettings) -> RoutingChoice | None:
    """What these settings mean for a model and a filled `RunSettings`; None where they say nothing.

    No weights are read. Raises `InputError` for a router that is not there, a budget that the model cannot keep, flags
    that contradict each other, and a run of another model.
    """
    own = own_routing(model)
    if not settings.model_dump(exclude_none=True):
        return None
    blocks = reference.model_geometry(model).blocks
    name = settings.router or ("learned" if own is not None else "importance")
    if name == "learned" and own is None:
        raise InputError(
            "--router",
            got=f"learned, with {model}, which has none",
            expected="a student with a router",
            fix="importance",
        )
    is_file = name not in ROUTERS
    if is_file and not Path(name).expanduser().is_file():
        raise InputError(
            "--router",
            got=name,
            expected=f"one of {', '.join(ROUTERS)}, or a decision table (JSON or Parquet)",
            fix="--router importance",
        )
    table = DecisionTable.load(Path(name).expanduser()) if is_file else None
    if table is not None and table.blocks != blocks:
        raise InputError(
            "--router",
            got=f"a table of {table.blocks} blocks",
            expected=f"{blocks}, as {model}",
            fix="a table of this model",
        )
    budget = _budget(settings, run, blocks)
    about: dict[str, Any] = {"router": "table" if is_file else name}
    importance = None
    if name in ("importance", "static"):
        importance, about["run"] = _importance(model, settings.run, blocks)
    elif settings.run is not None:
        raise InputError(
            "--run",
            got=f"{settings.run}, with --router {name}",
            expected="--router importance or static",
            fix="drop it",
        )
    if table is not None:
        about["table"] = {"name": Path(name).name, "counts": list(table.counts), **table.about}
        budget = budget or table.budget
    elif name == "learned":
        budget = budget or BudgetSchedule.from_dict(own)
    elif name != "none":
        budget = budget or BudgetSchedule.paper(blocks)
    if name == "none" and budget is not None:
        raise InputError("--router", got="none, with a budget", expected="a router, or no budget", fix="drop one")
    if budget is not None:
        budget.check(blocks)
        about["budget"] = budget.to_dict()
    return RoutingChoice("table" if is_file else name, blocks, budget, importance, table, about)


def planned_share(model: str, choice: RoutingChoice | None, run: RunSettings) -> float:
    """The share of the blocks that will run, on average over the sampler's steps: what a plan is made with."""
    blocks = reference.model_geometry(model).blocks
    if choice is None:
        own = own_routing(model)
        budget = None if own is None else BudgetSchedule.from_dict(own)
    else:
        budget = choice.budget
    if budget is None:
        return 1.0
    return budget.mean_count(shifted_timesteps(run.steps or 1, run.shift or 1.0), blocks) / blocks


@contextmanager
def routed(pipe: Any, choice: RoutingChoice | None, seed: int) -> Iterator[None]:
    """Route the pipeline's transformer inside the block; afterwards the pipeline is as it was found."""
    if choice is None:
        yield
        return
    from pare.transformer import PareWanTransformer3DModel

    found = pipe.transformer
    transformer = PareWanTransformer3DModel.from_stock(found)
    if transformer is not found:
        pipe.transformer = transformer
    try:
        with transformer.routed(choice.config(seed)):
            yield
    finally:
        if transformer is not found:
            pipe.transformer = found


def summary(pipe: Any, choice: RoutingChoice | None) -> dict[str, Any] | None:
    """What was decided, for people and files; None for a model that is not routed. To be asked inside `routed`."""
    transformer: Any = getattr(pipe, "transformer", None)
    if not getattr(transformer, "is_routing_enabled", False):
        return None if choice is None else choice.about
    steps = transformer.routing_summary()
    counts = [int(each.blocks_run[0]) for each in steps]
    return {
        **({"router": "learned"} if choice is None else choice.about),
        "blocks": len(transformer.blocks),
        "blocks_run": counts,
        "mean_blocks": sum(counts) / max(len(counts), 1),
        "asked": [round(float(each.asked[0]), 6) for each in steps],
        "achieved": [round(float(each.achieved[0]), 6) for each in steps],
        "router_milliseconds": round(sum(each.milliseconds for each in steps), 3),
    }


def own_routing(model: str) -> dict[str, Any] | None:
    """What the config of a student says of its own router."""
    known = reference.resolve(model)
    if known.kind == "preset":
        return None
    config = read_json(reference.description_folder(known) / "transformer" / "config.json")
    return config.get("routing")


def _budget(settings: RoutingSettings, run: RunSettings, blocks: int) -> BudgetSchedule | None:
    bounds = settings.k_min is not None or settings.k_max is not None
    if bounds + (settings.share is not None) + (settings.seconds is not None) > 1:
        raise InputError(
            "--k-min --k-max --share --seconds", got="several budgets", expected="one of them", fix="drop the others"
        )
    if (settings.seconds is None) != (settings.costs is None):
        raise InputError(
            "--seconds",
            got="one of --seconds and --costs",
            expected="both, since time is known from a measured table only",
            fix="python benchmarks/depth.py --costs FILE measures one",
        )
    timesteps = shifted_timesteps(run.steps or 1, run.shift or 1.0)
    if settings.share is not None:
        return BudgetSchedule.from_share(settings.share, timesteps, blocks)
    if settings.seconds is not None:
        costs = CostTable.load(settings.costs or "")
        if costs.blocks != blocks:
            raise InputError(
                "--costs", got=f"a table of {costs.blocks} blocks", expected=f"{blocks}", fix="measure this model"
            )
        return BudgetSchedule.from_seconds(settings.seconds, costs, timesteps, guidance=(run.guidance or 0) > 1)
    if not bounds:
        return None
    usual = BudgetSchedule.paper(blocks)
    k_min = usual.k_min if settings.k_min is None else settings.k_min
    k_max = usual.k_max if settings.k_max is None else settings.k_max
    # One bound alone moves the other one along where they would cross.
    k_min, k_max = (
        (min(k_min, k_max) if settings.k_min is None else k_min),
        (max(k_min, k_max) if settings.k_max is None else k_max),
    )
    schedule = BudgetSchedule.linear(k_min, k_max)
    schedule.check(blocks)
    return schedule


def _importance(model: str, run: str | None, blocks: int) -> "tuple[tuple[np.ndarray, np.ndarray], dict[str, Any]]":
    """Timesteps and importance [steps, blocks] of a run, and what files say of it."""
    from analysis.block_values import block_importance
    from analysis.runs import Run

    if run is None and model == "demo" and DEMO_RUN.is_dir():
        run = str(DEMO_RUN)
    if run is None:
        raise InputError(
            "--run",
            got="no run",
            expected="a run of this model, whose block importance routes",
            fix=f"pare capture {model} --out RUN, then --run RUN",
        )
    opened = Run.open(run)
    same = opened.manifest.model.get("config_hash") == reference.model_identity(model)["config_hash"]
    # A student has the geometry of the model it was cut from, and that model's blocks.
    if not same and opened.geometry != reference.model_geometry(model):
        raise InputError(
            "--run",
            got=f"{run}, of {opened.model_id} ({opened.geometry.blocks} blocks)",
            expected=f"a run of {model} ({blocks} blocks)",
            fix=f"pare capture {model} --out RUN",
        )
    return block_importance(opened), {"name": Path(run).name, "hash": opened.hash}
