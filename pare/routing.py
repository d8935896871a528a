"""The switches of a routed Wan transformer, and the loop that runs only the blocks of a route."""

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from diffusers.hooks.hooks import CacheContext
from torch import nn

from pare.depth.budget import BudgetSchedule
from pare.depth.gate import gated_residual
from pare.depth.learned import LearnedRouter
from pare.depth.routing import Route, Routing, RoutingConfig, StepRoute
from pare.errors import InputError

if TYPE_CHECKING:
    Base: Any = object
else:
    Base = object

# Names of diffusers' hooks that move weights.
GROUP_OFFLOADING = "group_offloading"
# What of the config's routing entry is the budget; the rest describes the learned router.
BUDGET_KEYS = ("k_min", "k_max", "counts", "timesteps")


class RoutingMixin(Base):
    """Routing for a Wan transformer; the class that takes it calls `_init_routing` and `_route_of`.

    The route of a step is decided once, before the first block, and is the same for all guidance branches of the step,
    which the pipeline names through `cache_context`. Routing that is off costs nothing.
    """

    _routing: Routing | None
    _pass: CacheContext | None

    def enable_routing(self, config: RoutingConfig | None = None) -> None:
        """Run only the blocks that a router chooses, from the next forward on; without a config, as the model says.

        Raises InputError where the model has no router of its own and none is given, where router or budget do not fit
        its number of blocks, and for what routing cannot work with (see `docs/depth.md`).
        """
        config = config or RoutingConfig()
        own: Mapping[str, Any] | None = self.config.routing
        router = config.router if config.router is not None else self.router
        if router is None:
            raise InputError(
                "router",
                got="a model without a learned one",
                expected="a router",
                fix="RoutingConfig(ImportanceRouter(…)), or --router importance",
            )
        budget = config.budget or getattr(router, "budget", None)
        if budget is None:
            budget = BudgetSchedule.from_dict(own) if own is not None else BudgetSchedule.paper(len(self.blocks))
        self._check_composition()
        self._routing = Routing(router, budget, len(self.blocks), dense=config.dense, relative=config.relative)

    def disable_routing(self) -> None:
        """Run every block again; the learned router and the config stay."""
        self._routing = None

    @contextmanager
    def routed(self, config: RoutingConfig | None) -> Iterator[None]:
        """Route inside the block as this config says, or not at all for None; afterwards everything is as before."""
        before = self._routing
        try:
            if config is None:
                self.disable_routing()
            else:
                self.enable_routing(config)
            yield
        finally:
            self._routing = before

    @property
    def is_routing_enabled(self) -> bool:
        """Whether blocks are chosen by a router."""
        return self._routing is not None

    def set_budget(self, budget: BudgetSchedule) -> None:
        """From the next step on, also in the middle of a generation, this budget holds."""
        self._enabled().set_budget(budget)

    def routing_summary(self) -> list[StepRoute]:
        """What was decided, step by step, in the current generation or, after its end, the last one."""
        return [] if self._routing is None else list(self._routing.log)

    def attach_router(self, router: LearnedRouter, budget: BudgetSchedule | None = None) -> None:
        """Make a learned router a part of the model, saved and loaded with its weights, and enable it.

        A model loaded with a router is routed from the start, in any pipeline.
        """
        if router.blocks != len(self.blocks):
            raise InputError(
                "router", got=f"{router.blocks} blocks", expected=f"{len(self.blocks)}", fix="a router of this size"
            )
        budget = budget or BudgetSchedule.paper(len(self.blocks))
        budget.check(len(self.blocks))
        self.router = router.to(self.device)
        self.register_to_config(routing={**budget.to_dict(), **router.settings()})
        self.enable_routing()

    @classmethod
    def from_stock(cls, transformer: Any) -> "RoutingMixin":
        """A model that can be routed and shares all modules and weights with a stock one; nothing is copied.

        A model that can be routed already comes back as it is. Raises InputError for one that is hooked as a whole
        (offloaded, compiled, in parallel): such hooks are bound to the object they were put on.
        """
        if isinstance(transformer, cls):
            return transformer
        hooked = getattr(getattr(transformer, "_diffusers_hook", None), "hooks", None) or "forward" in vars(transformer)
        compiled = hasattr(transformer, "_orig_mod") or getattr(transformer, "_compiled_call_impl", None) is not None
        if hooked or compiled or hasattr(transformer, "_hf_hook") or getattr(transformer, "_parallel_config", None):
            raise InputError(
                "routing",
                got="a transformer that is already offloaded, compiled, cached or in parallel",
                expected="the plain one",
                fix="pipe.transformer = PareWanTransformer3DModel.from_stock(pipe.transformer) first, the rest after it",
            )
        model = cls.__new__(cls)
        # What a module is made of, the very modules and parameters included; the dicts that hold them, and hooks, are the
        # new model's own, so that a router or a hook on it does not touch the stock one.
        parts = {name: value for name, value in vars(transformer).items() if name != "_diffusers_hook"}
        owned = {name for name, value in parts.items() if isinstance(value, dict) and name != "_internal_dict"}
        model.__dict__ = {name: value.copy() if name in owned else value for name, value in parts.items()}
        own = inspect.signature(cls.__init__).parameters
        new = {name: each.default for name, each in own.items() if name not in model.config and name != "self"}
        model.register_to_config(**new)
        model._init_routing(None)
        return model

    @contextmanager
    def cache_context(self, name: str, **about: Any) -> Iterator[None]:
        """As diffusers' own; also tells the route which step and branch the pass belongs to."""
        self._pass = CacheContext(name, **about)
        try:
            with super().cache_context(name, **about):
                yield
        finally:
            self._pass = None

    def enable_parallelism(self, **how: Any) -> None:
        """As diffusers' own; raises InputError while routing is enabled, since the ranks would not decide alike."""
        if self._routing is not None:
            raise _in_parallel()
        super().enable_parallelism(**how)

    def _init_routing(self, routing: Mapping[str, Any] | None) -> None:
        self._routing = None
        self._pass = None
        self.register_module("router", None)
        if routing is None:
            return
        budget = BudgetSchedule.from_dict(routing)
        settings = {name: value for name, value in routing.items() if name not in BUDGET_KEYS}
        try:
            self.router = LearnedRouter(len(self.blocks), **settings)
        except TypeError as error:
            raise InputError(
                "transformer config, routing",
                got=sorted(settings),
                expected="settings of a router",
                fix="train it again",
            ) from error
        self._routing = Routing(self.router, budget, len(self.blocks))

    def _reset_stateful_cache(self, recurse: bool = True) -> None:
        super()._reset_stateful_cache(recurse)
        if self._routing is not None:
            self._routing.end()

    @torch.compiler.disable
    def _route_of(
        self, latents: torch.Tensor, timestep: torch.Tensor, image_states: torch.Tensor | None
    ) -> Route | None:
        """The route of this forward; None where routing is off."""
        routing, about = self._routing, self._pass
        if routing is None:
            return None
        branch, announced = (about.name, about.step_index) if about is not None else (None, None)
        batch = len(latents)
        if (known := routing.known(branch, announced, batch)) is not None:
            return known
        if timestep.ndim != 1:
            raise InputError("routing", got="a timestep per token", expected="one per sample", fix="a Wan2.1 model")
        self._check_composition()
        # With a first and a last image, each sample has two rows; the first one's class token is the content.
        image = None if image_states is None else image_states.reshape(batch, -1, image_states.shape[-1])[:, 0]
        return routing.decide(timestep.expand(batch), latents, image, branch, announced)

    def _run_routed_blocks(
        self, route: Route, tokens: torch.Tensor, context: torch.Tensor, modulation: torch.Tensor, rotary_emb: Any
    ) -> torch.Tensor:
        """The blocks of the route; of a batch whose samples differ, each block for the samples that run it."""
        if route.gate is not None:
            for block, gate in zip(self.blocks, route.gate.unbind(dim=1), strict=True):
                after = self._run_block(block, tokens, context, modulation, rotary_emb)
                tokens = gated_residual(tokens, after, gate)
            return tokens
        for block, rows in zip(self.blocks, route.rows(tokens.device), strict=True):
            if rows is True:
                tokens = self._run_block(block, tokens, context, modulation, rotary_emb)
            elif rows is not False:
                changed = self._run_block(block, tokens[rows], context[rows], modulation[rows], rotary_emb)
                # Not in place: block caches keep what went in.
                tokens = tokens.index_copy(0, rows, changed)
        return tokens

    def _enabled(self) -> Routing:
        if self._routing is None:
            raise InputError(
                "routing", got="a model that is not routed", expected="a routed one", fix="enable_routing()"
            )
        return self._routing

    def _check_composition(self) -> None:
        if getattr(self, "_parallel_config", None) is not None:
            raise _in_parallel()
        offload = _group_offloading(self.blocks[0])
        if offload is None:
            return
        if offload.config.stream is not None:
            raise InputError(
                "routing",
                got="group offload with use_stream=True, which loads each block while the one before it runs",
                expected="blocks loaded when they run",
                fix="enable_group_offload(…, use_stream=False)",
            )
        if len([each for each in offload.group.modules if any(each is block for block in self.blocks)]) > 1:
            raise InputError(
                "routing",
                got=f"group offload with num_blocks_per_group={len(offload.group.modules)}, loaded by the first of them",
                expected="groups of one block",
                fix="enable_group_offload(…, num_blocks_per_group=1)",
            )


def _group_offloading(block: nn.Module) -> Any:
    """The hook that loads this block's weights, or those of a layer inside; None where they stay."""
    for module in block.modules():
        registry = getattr(module, "_diffusers_hook", None)
        hook = registry.get_hook(GROUP_OFFLOADING) if registry is not None else None
        if hook is not None:
            return hook
    return None


def _in_parallel() -> InputError:
    return InputError(
        "routing", got="context parallelism", expected="one device per model", fix="disable_routing(), or one device"
    )
