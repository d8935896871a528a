"""What a job will take, from what jobs like it took."""

from collections.abc import Mapping, Sequence
from typing import Any

from workbench.jobs.job import Cost, Job

TEXTS = ("prompt", "negative_prompt", "seed")
FILES = ("out", "csv", "parquet", "run", "mask", "student", "data", "image")
FREE = {*TEXTS, *FILES, "resume", "device"}
"""Arguments that say what is made and where, not how much work it is; devices are told apart by the jobs themselves."""
MOST = 5
"""How many jobs, the newest ones, are averaged."""


def expected_cost(finished: Sequence[Job], arguments: Mapping[str, Any], device: str) -> Cost | None:
    """The mean time of the newest finished jobs of a command whose other arguments are the same; None without one.

    Only a first attempt counts, since a resumed one finds a part of the work done.

    >>> job = Job("a", "generate", {"model": "demo", "seed": 1}, "cpu", "done", started=10.0, finished=14.0)
    >>> expected_cost([job], {"model": "demo", "seed": 2}, "cpu").seconds
    4.0
    """
    wanted = _work(arguments)
    took = [
        job.finished - job.started
        for job in finished
        if job.device == device
        and job.attempt == 1
        and job.started is not None
        and job.finished is not None
        and _work(job.arguments) == wanted
    ][:MOST]
    if not took:
        return None
    jobs = f"{len(took)} job{'s' if len(took) > 1 else ''} like it"
    return Cost(seconds=sum(took) / len(took), source=f"as {jobs} took")


def _work(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if name not in FREE}
