"""Which pass of a denoising loop a forward of the transformer is: step, guidance branch, timestep."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import count
from typing import Any, TypeAlias

import torch
from diffusers.hooks import HookRegistry, ModelHook
from diffusers.hooks.hooks import BaseState, StateManager

from pare.errors import InputError


@dataclass(frozen=True)
class ForwardPass:
    """One forward: index of its denoising step, guidance branch (`cond` or `uncond`), timestep in 0..1000.

    `sigma` is what the pipeline announced, None where it announces none.
    """

    step: int
    branch: str
    timestep: float
    sigma: float | None = None


Around: TypeAlias = Callable[[ForwardPass, Mapping[str, Any]], AbstractContextManager[object]]
"""A context for one forward, from the pass it is and from the forward's hidden states and timestep by name."""


class Passes:
    """Tells which pass each forward is, from what diffusers announces, else by counting (`next_pass`)."""

    def __init__(self) -> None:
        # Diffusers tells the guidance branch to hooks that hold a StateManager; only its context is used here.
        self.announced = StateManager(BaseState)
        self._seen: tuple[ForwardPass, ...] = ()

    def next(self, timestep: float) -> ForwardPass:
        """The pass of a forward that is about to run; it is not counted yet, since it may fail."""
        try:
            context = self.announced.context
        except ValueError:
            context = None
        branch = context.name if context else "cond"
        if context and context.step_index is not None:
            return ForwardPass(context.step_index, branch, timestep, context.sigma)
        return next_pass(self._seen, timestep, branch)

    def keep(self, this: ForwardPass) -> None:
        """Count a pass that ran."""
        last = self._seen[-1:]
        same_step = [(each.step, each.timestep) for each in last] == [(this.step, this.timestep)]
        self._seen = (*self._seen, this) if same_step else (this,)

    def restart(self) -> None:
        """The next forward begins a denoising."""
        self._seen = ()


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


@contextmanager
def each_pass(transformer: Any, begin: Callable[[ForwardPass], None]) -> Iterator[Passes]:
    """Call `begin` before every forward of the transformer inside the block; no hook stays afterwards.

    Branch and, where announced, step come from diffusers' `cache_context`; a forward outside of one counts as `cond`.
    Where the step is not announced (image-to-video pipelines) it is counted: see `next_pass`.
    """

    def around(this: ForwardPass, given: Mapping[str, Any]) -> AbstractContextManager[object]:
        begin(this)
        return nullcontext()

    with around_each_pass(transformer, around) as passes:
        yield passes


@contextmanager
def around_each_pass(transformer: Any, around: Around, only: str | None = None) -> Iterator[Passes]:
    """Run every forward of the transformer inside the block within `around` of its pass; no hook stays afterwards.

    Raises InputError where the model is already in a block of the same name `only`.
    """
    own_forward, own_registry = "forward" in vars(transformer), hasattr(transformer, "_diffusers_hook")
    registry = HookRegistry.check_if_exists_or_initialize(transformer)
    if only is not None and registry.get_hook(f"pare_{only}") is not None:
        raise InputError(only, got=f"a model already in a {only}", expected="one at a time", fix="end the first")
    names = (f"pare_{only}",) if only else (f"pare_passes_{number}" for number in count())
    name = next(name for name in names if registry.get_hook(name) is None)
    hook = _PassHook(around)
    registry.register_hook(hook, name)
    try:
        yield hook.passes
    finally:
        registry.remove_hook(name, recurse=False)
        if not own_forward:
            # The registry puts the class's own method back as an attribute of the module; the module had none.
            vars(transformer).pop("forward", None)
        if not own_registry and not registry.hooks:
            del transformer._diffusers_hook


def wan_transformer(model: Any, purpose: str = "gates") -> Any:
    """The transformer of a Wan pipeline, or the Wan transformer itself; InputError for anything else or compiled.

    `purpose` is what the error says the model is wanted for.
    """
    transformer = getattr(model, "transformer", model)
    blocks = getattr(transformer, "blocks", None)
    if not blocks or not all(hasattr(block, name) for block in blocks for name in ("attn1", "attn2", "ffn")):
        raise InputError(purpose, got=type(model).__name__, expected="a Wan pipeline or transformer", fix="load one")
    compiled = (getattr(module, "_compiled_call_impl", None) is not None for module in (transformer, *blocks))
    if hasattr(transformer, "_orig_mod") or any(compiled):
        raise InputError(
            purpose, got="a compiled model", expected="one that is not", fix=f"{purpose} first, compile afterwards"
        )
    return transformer


class _PassHook(ModelHook):
    """Diffusers' kind of hook, since only these are told the branch: `cache_context` looks for a StateManager."""

    _is_stateful = True

    def __init__(self, around: Around):
        super().__init__()
        self.around, self.passes = around, Passes()
        self.announced = self.passes.announced

    def new_forward(self, module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        given = dict(zip(("hidden_states", "timestep"), args, strict=False)) | kwargs
        this = self.passes.next(float(given["timestep"].flatten().max()))
        forward = self.fn_ref.original_forward
        assert forward is not None
        with self.around(this, given):
            output = forward(*args, **kwargs)
        self.passes.keep(this)
        return output

    def reset_state(self, module: torch.nn.Module) -> torch.nn.Module:
        # Pipelines do this when a generation has ended.
        self.announced.reset()
        self.passes.restart()
        return module
