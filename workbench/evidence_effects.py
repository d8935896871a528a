"""The numbers behind the question of scores: the effect of every head alone, and what each scorer says of it."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from analysis.interventions import leave_one_out
from analysis.probes import make_probes
from analysis.runs import Run
from analysis.scorers import Evidence, score
from analysis.scores import Scores
from pare.progress import Progress, silent
from workbench.evidence_inputs import FORWARDS, TIMESTEPS, forwards_of_scores
from workbench.plan import forwards_per_clip
from workbench.settings import RunSettings

SWEEP = "sweep.jsonl"


def head_effects(
    pipe: Any,
    run: Run,
    prompts: Sequence[str],
    settings: RunSettings,
    *,
    scorers: Sequence[str],
    out: Path,
    resume: bool = False,
    progress: Progress = silent,
) -> dict[str, Scores]:
    """`leave_one_out` and every scorer by name, on one clean sample per prompt at TIMESTEPS.

    The sweep is kept in `out`/sweep.jsonl row by row and goes on there with `resume`; the rest is computed again.
    """
    geometry, samples = run.geometry, len(prompts)
    total = forwards_of_scores(geometry, settings, samples, scorers)
    done = 0

    def stage(forwards: int, what: str) -> Callable[..., None]:
        """Progress in forwards over all stages, whose own units cost different numbers of them."""
        nonlocal done
        begun = done
        done += forwards

        def report(own: int, of: int, message: str = "") -> None:
            progress(begun + forwards * own // max(of, 1), total, f"{what}: {message}")

        return report

    clean = stage(samples * forwards_per_clip(settings), "clean samples")
    probes = make_probes(pipe, list(prompts), settings.model_dump(), progress=clean)
    heads = 2 * geometry.blocks * geometry.heads
    single = stage(samples * len(TIMESTEPS) * (heads + 1), "one head off")
    sweep = out / SWEEP
    found: dict[str, Scores] = {
        "leave_one_out": leave_one_out(
            pipe, probes, TIMESTEPS, out=sweep, resume=resume and sweep.exists(), progress=single
        )
    }
    evidence = Evidence(run=run, model=pipe, probes=probes, timesteps=TIMESTEPS, seed=settings.seed)
    for name in scorers:
        forwards = samples * len(TIMESTEPS) * FORWARDS.get(name, 0)
        found[name] = score(name, evidence, stage(forwards, name))
    return found


def possible(scorers: Sequence[str], statistics: Mapping[str, Any] | Sequence[str]) -> tuple[list[str], list[str]]:
    """Which scorers a run has the statistics for, and which it has not.

    >>> possible(["pare", "projected_energy", "random"], ["self/value_norm", "cross/value_norm"])
    (['pare', 'random'], ['projected_energy'])
    """
    needs = {"pare": {"self/value_norm", "cross/value_norm"}, "projected_energy": {"self/projected_energy"}}
    there = [name for name in scorers if needs.get(name, set()) <= set(statistics)]
    return there, [name for name in scorers if name not in there]
