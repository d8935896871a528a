"""The flags that say which blocks run: one definition of each, for Python, jobs and the command line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import pydantic
from pydantic import Field

from workbench.settings import input_error, with_flags, with_run_flags


class RoutingSettings(pydantic.BaseModel):
    """Which blocks run; None leaves the model as it is (a student with a router of its own is routed by that).

    >>> RoutingSettings.of(router="random", k_min=4, k_max=7).router
    'random'
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, defer_build=True, coerce_numbers_to_str=True)

    router: str | None = Field(None, description="importance, random, static, learned, none, or a decision table.")
    k_min: float | None = Field(
        None, ge=1, description="Blocks that run at timestep 0; default: 20 of 40 in proportion."
    )
    k_max: float | None = Field(None, ge=1, description="Blocks that run at timestep 1000; default: 35 of 40.")
    share: float | None = Field(None, gt=0, le=1, description="Share of block FLOPs to run, in place of k_min, k_max.")
    seconds: float | None = Field(None, gt=0, description="Seconds a video may take, by a cost table (--costs).")
    costs: str | None = Field(None, description="A cost table that benchmarks/depth.py measured here.")
    run: str | None = Field(None, description="A run whose block importance routes; demo has one.")

    @classmethod
    def of(cls, **values: Any) -> Self:
        """Settings from keyword arguments, paths as text; raises `InputError` that names the flag."""
        plain: dict[str, Any] = {name: str(each) if isinstance(each, Path) else each for name, each in values.items()}
        try:
            return cls(**plain)
        except pydantic.ValidationError as error:
            raise input_error(error, cls) from error


def with_routing_flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """Gives a typer command that takes `**settings` the flags of `RunSettings` and of `RoutingSettings`."""
    return with_run_flags(with_flags(command, RoutingSettings))
