"""Routing together with what else acts on a transformer: caches, compiling, LoRA, offload, casting, gates, capture."""

import numpy as np
import pytest
import torch
from diffusers import ContextParallelConfig, FirstBlockCacheConfig, MagCacheConfig
from diffusers.hooks.group_offloading import ModuleGroup
from peft import LoraConfig

from analysis.capture import CaptureSpec, capture
from pare.depth.budget import BudgetSchedule
from pare.depth.learned import LearnedRouter
from pare.depth.routers import RandomRouter, StaticRouter
from pare.depth.routing import RoutingConfig
from pare.errors import InputError
from pare.gates import Gates, gated
from pare.transformer import PareWanTransformer3DModel
from tests.tiny import PROMPT, tiny_pipeline, tiny_transformer

BLOCKS = 6
LIST = (0, 2, 5)
BATCHED = {"batch": 2, "seed": 5}


def routed(**config) -> PareWanTransformer3DModel:
    return PareWanTransformer3DModel.from_stock(tiny_transformer(num_layers=BLOCKS, **config))


def routed_pipeline():
    pipe = tiny_pipeline(num_layers=BLOCKS)
    pipe.transformer = PareWanTransformer3DModel.from_stock(pipe.transformer)
    return pipe


def static() -> RoutingConfig:
    return RoutingConfig(StaticRouter.of_blocks(LIST, BLOCKS))


def by_content() -> RoutingConfig:
    """Routes that differ between the samples of `inputs(**BATCHED)`."""
    torch.manual_seed(0)
    router = LearnedRouter(BLOCKS, channels=4, frequencies=16, hidden=32)
    with torch.no_grad():
        # The content speaks louder than the timestep.
        router.first.weight[:, 16:] *= 8
    torch.nn.init.normal_(router.last.weight, std=4.0)
    return RoutingConfig(router, BudgetSchedule.constant(4))


def inputs(batch=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(batch, 4, 5, 8, 8, generator=generator)
    # Nothing moves in every second sample.
    latents[1::2] = latents[1::2, :, :1]
    return {
        "hidden_states": latents,
        "timestep": torch.full((batch,), 700.0),
        "encoder_hidden_states": torch.randn(batch, 7, 16, generator=generator),
    }


def generate(pipe, steps=6, seed=0):
    return pipe(
        prompt=PROMPT, height=32, width=32, num_frames=9, num_inference_steps=steps, guidance_scale=2.0,
        generator=torch.Generator().manual_seed(seed), output_type="latent",
    ).frames  # fmt: skip


def executions(transformer):
    """Counts the blocks whose layers really ran, in a list of one number."""
    count = [0]

    def ran(module, args):
        count[0] += 1

    for block in transformer.blocks:
        block.ffn.register_forward_pre_hook(ran)
    return count


CACHES = {
    "first block cache": FirstBlockCacheConfig(threshold=0.5),
    "mag cache": MagCacheConfig(threshold=10.0, num_inference_steps=6, retention_ratio=0.2, mag_ratios=[1.0] * 6),
}


@pytest.mark.parametrize("cache", CACHES.values(), ids=CACHES)
def test_caches_of_steps_compose(cache):
    pipe = routed_pipeline()
    count = executions(pipe.transformer)

    def work(enabled, config):
        pipe.transformer.disable_routing()
        if config is not None:
            pipe.transformer.enable_routing(config)
        if enabled:
            pipe.transformer.enable_cache(cache)
        count[0] = 0
        result = generate(pipe)
        if enabled:
            pipe.transformer.disable_cache()
        return result, count[0]

    cached, of_cache = work(True, None)
    whole, of_whole = work(True, RoutingConfig(RandomRouter(BLOCKS), BudgetSchedule.constant(BLOCKS)))
    assert torch.equal(cached, whole) and of_cache == of_whole < 12 * BLOCKS
    _, of_routing = work(False, static())
    both, of_both = work(True, static())
    assert of_routing == 12 * len(LIST)
    assert of_both < min(of_cache, of_routing) and torch.isfinite(both).all()
    # A second time gives the same: neither keeps anything.
    assert torch.equal(work(True, static())[0], both)


def test_a_cache_serves_a_batch_whose_routes_differ():
    transformer = routed()
    transformer.enable_routing(by_content())
    plain = transformer(**inputs(**BATCHED)).sample
    transformer.enable_cache(FirstBlockCacheConfig(threshold=0.5))
    for expected in ("computed", "cached"):
        with transformer.cache_context("cond"):
            result = transformer(**inputs(**BATCHED)).sample
        assert torch.isfinite(result).all()
        if expected == "computed":
            assert torch.equal(result, plain)
    assert not transformer.routing_summary()[-1].unanimous
    torch.testing.assert_close(result, plain, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("stock", [True, False], ids=["stock blocks", "own blocks"])
def test_repeated_blocks_are_compiled(stock):
    transformer = routed() if stock else PareWanTransformer3DModel(**dict(routed().config.items())).eval()
    for config in (static(), by_content()):
        transformer.enable_routing(config)
        expected = transformer(**inputs(**BATCHED)).sample
        transformer.compile_repeated_blocks(backend="eager", fullgraph=True)
        try:
            torch.testing.assert_close(transformer(**inputs(**BATCHED)).sample, expected)
        finally:
            for block in transformer.blocks:
                block._compiled_call_impl = None
    torch._dynamo.reset()


def test_lora_acts_on_the_blocks_that_run():
    transformer = routed()
    transformer.enable_routing(static())
    plain = transformer(**inputs()).sample
    transformer.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False))
    with_lora = transformer(**inputs()).sample
    assert not torch.equal(with_lora, plain)
    # The adapters of skipped blocks do nothing.
    with torch.no_grad():
        for name, parameter in transformer.named_parameters():
            if "lora_" in name and not name.startswith(tuple(f"blocks.{index}." for index in LIST)):
                parameter.fill_(7.0)
    assert torch.equal(transformer(**inputs()).sample, with_lora)
    transformer.disable_adapters()
    assert torch.equal(transformer(**inputs()).sample, plain)


@pytest.mark.parametrize("config", [static, by_content], ids=["one route", "a route each"])
def test_gradient_checkpointing_recomputes_the_route_that_was_decided(config):
    transformer = routed()
    asked = []
    chosen = config()
    transformer.enable_routing(chosen)
    transformer._routing.router = _Counting(chosen.router, asked)
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            transformer.enable_gradient_checkpointing()
        asked.clear()
        transformer.zero_grad()
        transformer(**inputs(**BATCHED)).sample.square().mean().backward()
        assert len(asked) == 1
        gradients.append([each.grad for each in transformer.blocks.parameters()])
    for one, other in zip(*gradients, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other)
    if config is static:
        skipped = [index for index in range(BLOCKS) if index not in LIST]
        assert all(each.grad is None for index in skipped for each in transformer.blocks[index].parameters())


class _Counting:
    def __init__(self, router, asked):
        self.router, self.asked = router, asked
        self.blocks, self.on_host, self.name = router.blocks, router.on_host, router.name

    def __call__(self, timestep, latents, image=None):
        self.asked.append(len(latents))
        return self.router(timestep, latents, image)


def test_layerwise_casting_leaves_the_router_alone():
    transformer = routed()
    transformer.attach_router(by_content().router, BudgetSchedule.constant(4))
    before = transformer(**inputs()).sample
    scores = transformer.routing_summary()[-1].scores
    transformer.enable_layerwise_casting(torch.float8_e4m3fn, torch.float32)
    assert transformer.blocks[0].ffn.net[2].weight.dtype == torch.float8_e4m3fn
    assert {parameter.dtype for parameter in transformer.router.parameters()} == {torch.float32}
    after = transformer(**inputs()).sample
    assert np.array_equal(transformer.routing_summary()[-1].scores, scores)
    assert not torch.equal(before, after) and torch.isfinite(after).all()


@pytest.mark.parametrize("kind", ["block_level", "leaf_level"])
def test_a_skipped_block_is_not_loaded(kind, monkeypatch):
    loaded = []
    onload = ModuleGroup.onload_

    def counting(self):
        loaded.append(self.onload_leader)
        return onload(self)

    transformer = routed()
    transformer.attach_router(by_content().router, BudgetSchedule.constant(4))
    expected = transformer(**inputs()).sample
    monkeypatch.setattr(ModuleGroup, "onload_", counting)
    transformer.enable_group_offload(torch.device("cpu"), offload_type=kind, num_blocks_per_group=1)
    loaded.clear()
    assert torch.equal(transformer(**inputs()).sample, expected)
    ran = np.flatnonzero(transformer.routing_summary()[-1].ran[0]).tolist()
    parts = {id(part): index for index, block in enumerate(transformer.blocks) for part in block.modules()}
    touched = [parts[id(leader)] for leader in loaded if id(leader) in parts]
    assert sorted(set(touched)) == ran and len(ran) == 4
    if kind == "block_level":
        assert touched == ran


def test_offload_that_prefetches_or_groups_blocks_is_refused():
    transformer = routed()
    transformer.enable_group_offload(torch.device("cpu"), offload_type="block_level", num_blocks_per_group=2)
    with pytest.raises(InputError, match="num_blocks_per_group=1"):
        transformer.enable_routing(static())
    # Streams need another device than a CPU, so what their presence leaves behind stands in for them.
    transformer = routed()
    transformer.enable_routing(static())
    transformer.enable_group_offload(torch.device("cpu"), offload_type="leaf_level")
    for module in transformer.modules():
        if hasattr(module, "_diffusers_hook"):
            module._diffusers_hook.get_hook("group_offloading").config.stream = object()
    with pytest.raises(InputError, match="use_stream=False"):
        transformer(**inputs())


def test_context_parallelism_is_refused():
    transformer = routed()
    transformer.enable_routing(static())
    with pytest.raises(InputError, match="context parallelism"):
        transformer.enable_parallelism(config=ContextParallelConfig(ulysses_degree=2))
    transformer.disable_routing()
    transformer._parallel_config = ContextParallelConfig(ulysses_degree=2)
    with pytest.raises(InputError, match="context parallelism"):
        transformer.enable_routing(static())


def test_blocks_of_different_widths_are_routed():
    widths = {"self_heads": [4, 3, 2, 4, 1, 3], "cross_heads": [2] * 6, "neurons": [32, 16, 8, 24, 32, 16]}
    config = {name: value for name, value in routed().config.items() if not name.startswith("_")}
    torch.manual_seed(0)
    transformer = PareWanTransformer3DModel(**(config | widths)).eval()
    dense = transformer(**inputs(**BATCHED)).sample
    transformer.enable_routing(RoutingConfig(RandomRouter(BLOCKS), BudgetSchedule.constant(BLOCKS)))
    assert torch.equal(transformer(**inputs(**BATCHED)).sample, dense)
    transformer.enable_routing(by_content())
    together = transformer(**inputs(**BATCHED)).sample
    assert not transformer.routing_summary()[-1].unanimous
    for index in range(2):
        alone = {name: value[index : index + 1] for name, value in inputs(**BATCHED).items()}
        torch.testing.assert_close(together[index : index + 1], transformer(**alone).sample, rtol=1e-4, atol=1e-5)


def test_gates_act_on_the_blocks_that_run():
    transformer = routed()
    transformer.enable_routing(static())
    plain = transformer(**inputs()).sample
    factors = torch.ones(BLOCKS, 4)
    factors[1] = 0.0
    with gated(transformer, Gates(self_heads=factors)):
        # Block 1 is skipped.
        assert torch.equal(transformer(**inputs()).sample, plain)
    factors[2] = 0.0
    with gated(transformer, Gates(self_heads=factors)):
        assert not torch.equal(transformer(**inputs()).sample, plain)
    assert torch.equal(transformer(**inputs()).sample, plain)


def test_capture_sees_the_blocks_that_ran_and_changes_nothing():
    pipe = routed_pipeline()
    pipe.transformer.enable_routing(static())
    plain = generate(pipe, steps=2)
    with capture(pipe, CaptureSpec(("block/residual_norm", "self/ratio"), moments=False)) as recorder:
        assert torch.equal(generate(pipe, steps=2), plain)
    passes = recorder.take()
    assert [(each.step, each.branch) for each in passes] == [(0, "cond"), (0, "uncond"), (1, "cond"), (1, "uncond")]
    for each in passes:
        assert np.flatnonzero(~np.isnan(each.arrays["block/residual_norm"])).tolist() == list(LIST)
        assert np.flatnonzero(~np.isnan(each.arrays["self/ratio"]).all(axis=1)).tolist() == list(LIST)
