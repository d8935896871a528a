"""Which pass of a denoising loop a forward of the transformer is: step, guidance branch, timestep."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any

import torch
from diffusers.hooks import HookRegistry, ModelHook
from diffusers.hooks.hooks import BaseState, StateManager


@dataclass(frozen=True)
class ForwardPass:
    """One forward: index of its denoising step, guidance branch (`cond` or `uncond`), timestep in 0..1000."""

    step: int
    branch: str
    timestep: float


@contextmanager
def each_pass(transformer: Any, begin: Callable[[ForwardPass], None]) -> Iterator[None]:
    """Call `begin` before every forward of the transformer inside the block; no hook stays afterwards.

    Branch and, where announced, step come from diffusers' `cache_context`; a forward outside of one counts as `cond`.
    Where the step is not announced (image-to-video pipelines) it is counted: see `next_pass`.
    """
    own_forward, own_registry = "forward" in vars(transformer), hasattr(transformer, "_diffusers_hook")
    registry = HookRegistry.check_if_exists_or_initialize(transformer)
    name = next(name for number in count() if registry.get_hook(name := f"pare_passes_{number}") is None)
    registry.register_hook(_PassHook(begin), name)
    try:
        yield
    finally:
        registry.remove_hook(name, recurse=False)
        if not own_forward:
            # The registry puts the class's own method back as an attribute of the module; the module had none.
            vars(transformer).pop("forward", None)
        if not own_registry and not registry.hooks:
            del transformer._diffusers_hook


def next_pass(seen: tuple[ForwardPass, ...], timestep: float, branch: str) -> ForwardPass:
    """The pass that follows those seen when nobody announces the step.

    The step advances with another timestep or when a branch comes again; a noisier timestep starts a new denoising.

    >>> first = next_pass((), 900.0, "cond")
    >>> second = next_pass((first,), 900.0, "uncond")
    >>> [next_pass((first, second), t, "cond").step for t in (900.0, 600.0, 950.0)]
    [1, 1, 0]
    """
    if not seen or timestep > seen[-1].timestep:
        return ForwardPass(0, branch, timestep)
    last = seen[-1]
    again = any(each.branch == branch for each in seen)
    return ForwardPass(last.step + int(again or timestep != last.timestep), branch, timestep)


class _PassHook(ModelHook):
    """Diffusers' kind of hook, since only these are told the branch: `cache_context` looks for a StateManager."""

    _is_stateful = True

    def __init__(self, begin: Callable[[ForwardPass], None]):
        super().__init__()
        self.begin = begin
        self.context = StateManager(BaseState)
        self.seen: tuple[ForwardPass, ...] = ()

    def pre_forward(self, module: torch.nn.Module, *args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        given = dict(zip(("hidden_states", "timestep"), args, strict=False)) | kwargs
        timestep = float(given["timestep"].flatten().max())
        try:
            context = self.context.context
        except ValueError:
            context = None
        branch = context.name if context else "cond"
        if context and context.step_index is not None:
            this = ForwardPass(context.step_index, branch, timestep)
        else:
            this = next_pass(self.seen, timestep, branch)
        same_step = self.seen and self.seen[-1].step == this.step and self.seen[-1].timestep == timestep
        self.seen = (*self.seen, this) if same_step else (this,)
        self.begin(this)
        return args, kwargs

    def reset_state(self, module: torch.nn.Module) -> torch.nn.Module:
        # Pipelines do this when a generation has ended.
        self.context.reset()
        self.seen = ()
        return module
