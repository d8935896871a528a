"""Which of several processes this is, as launchers (accelerate, torchrun, mpirun with a wrapper) say it."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from pare.errors import InputError


@dataclass(frozen=True)
class Process:
    """One of `count` processes that do the same command together; `local_rank` counts those of one machine."""

    rank: int = 0
    count: int = 1
    local_rank: int = 0

    @property
    def leads(self) -> bool:
        """Whether this is the one that speaks, and that begins and ends what all of them write."""
        return self.rank == 0


THE_ONLY_ONE = Process()


def this_process(environment: Mapping[str, str] = os.environ) -> Process:
    """Read from RANK, WORLD_SIZE and LOCAL_RANK, which launchers set; without them this is the only process.

    >>> this_process({"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"})
    Process(rank=1, count=2, local_rank=1)
    >>> this_process({}).leads
    True
    """
    given = {name: environment.get(name, default) for name, default in (("RANK", "0"), ("WORLD_SIZE", "1"))}
    given["LOCAL_RANK"] = environment.get("LOCAL_RANK", "0")
    try:
        rank, count, local_rank = (int(value) for value in given.values())
    except ValueError:
        rank, count, local_rank = -1, 0, -1
    if not 0 <= rank < count or local_rank < 0:
        raise InputError(
            "RANK and WORLD_SIZE",
            got=" and ".join(f"{name}={value}" for name, value in given.items()),
            expected="what a launcher sets",
            fix="accelerate launch --multi_gpu --num_processes 2 -m workbench capture …",
        )
    return Process(rank, count, local_rank)
