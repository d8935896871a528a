"""The routed transformer: what runs, when it is decided, batches, budgets in flight, saving and loading."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from diffusers import WanPipeline

from pare.depth.budget import BudgetSchedule
from pare.depth.decision import choose_blocks
from pare.depth.learned import LearnedRouter
from pare.depth.routers import ImportanceRouter, RandomRouter, StaticRouter
from pare.depth.routing import RoutingConfig
from pare.errors import InputError
from pare.models import load_pipeline
from pare.transformer import PareWanTransformer3DModel
from tests.tiny import PROMPT, tiny_image_pipeline, tiny_pipeline, tiny_transformer

BLOCKS = 6
ALL = BudgetSchedule.constant(BLOCKS)
HALF = BudgetSchedule.linear(3, 5)


def content_router(seed: int = 0, **settings) -> LearnedRouter:
    """A router of random weights, whose decisions change with the content."""
    torch.manual_seed(seed)
    router = LearnedRouter(BLOCKS, **({"channels": 4, "frequencies": 16, "hidden": 32} | settings))
    torch.nn.init.normal_(router.last.weight, std=4.0)
    return router


@pytest.fixture(scope="module")
def pipe():
    made = tiny_pipeline(num_layers=BLOCKS)
    made.transformer = PareWanTransformer3DModel.from_stock(made.transformer)
    return made


@pytest.fixture(autouse=True)
def off_afterwards(pipe):
    yield
    pipe.transformer.disable_routing()


def generate(pipe, prompt=PROMPT, seed=0, steps=4, guidance=2.0, **more):
    return pipe(
        prompt=prompt, height=32, width=32, num_frames=9, num_inference_steps=steps, guidance_scale=guidance,
        generator=torch.Generator().manual_seed(seed), output_type="latent", **more,
    ).frames  # fmt: skip


def inputs(batch=1, seed=0, t=700.0):
    generator = torch.Generator().manual_seed(seed)
    return {
        "hidden_states": torch.randn(batch, 4, 5, 8, 8, generator=generator),
        "timestep": torch.full((batch,), t),
        "encoder_hidden_states": torch.randn(batch, 7, 16, generator=generator),
    }


@contextmanager
def counted(transformer) -> Iterator[list[tuple[int, int]]]:
    """(block, batch) of every call of a block."""
    calls: list[tuple[int, int]] = []
    handles = [
        block.register_forward_pre_hook(lambda module, args, index=index: calls.append((index, len(args[0]))))
        for index, block in enumerate(transformer.blocks)
    ]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def test_all_blocks_is_the_unrouted_model_bit_for_bit(pipe):
    dense = generate(pipe)
    for router in (RandomRouter(BLOCKS), content_router()):
        pipe.transformer.enable_routing(RoutingConfig(router, ALL))
        assert torch.equal(generate(pipe), dense)
    pipe.transformer.disable_routing()
    assert torch.equal(generate(pipe), dense)
    assert not pipe.transformer.is_routing_enabled and pipe.transformer.routing_summary() == []


def test_skipped_blocks_are_not_called_and_both_branches_run_the_same(pipe):
    pipe.transformer.enable_routing(RoutingConfig(content_router(), HALF))
    with counted(pipe.transformer) as calls:
        generate(pipe)
    summary = pipe.transformer.routing_summary()
    expected = []
    for route in summary:
        assert route.blocks_run.tolist() == [HALF.count(float(route.timestep[0]), route.step, BLOCKS)]
        expected += 2 * np.flatnonzero(route.ran[0]).tolist()
    assert [block for block, _ in calls] == expected
    assert [route.step for route in summary] == [0, 1, 2, 3]
    assert min(len(set(route.ran[0].tolist())) for route in summary) == 2


def test_routing_equals_a_model_of_the_blocks_that_ran(pipe):
    transformer, values = pipe.transformer, inputs()
    transformer.enable_routing(RoutingConfig(StaticRouter.of_blocks([0, 2, 5], BLOCKS)))
    routed = transformer(**values).sample
    transformer.disable_routing()
    kept = torch.nn.ModuleList(transformer.blocks[index] for index in (0, 2, 5))
    whole, transformer.blocks = transformer.blocks, kept
    try:
        assert torch.equal(transformer(**values).sample, routed)
    finally:
        transformer.blocks = whole


def test_the_summary_says_what_was_decided(pipe):
    router = content_router()
    pipe.transformer.enable_routing(RoutingConfig(router, HALF))
    generate(pipe)
    for route in pipe.transformer.routing_summary():
        t = float(route.timestep[0])
        assert (route.ran == choose_blocks(route.scores, route.blocks_run)).all()
        assert route.asked[0] == pytest.approx(HALF.asked(t) / BLOCKS)
        assert route.achieved[0] == pytest.approx(route.blocks_run[0] / BLOCKS)
        assert np.isnan(route.distance[:, [0, -1]]).all() and (route.distance[:, 1:-1] > 0).all()
        assert route.milliseconds > 0
        as_json = route.to_dict()
        assert as_json["distance"][0][0] is None and as_json["ran"] == route.ran.tolist()


def test_the_router_is_asked_once_per_step(pipe):
    asked = []

    class Asked(RandomRouter):
        def __call__(self, timestep, latents, image=None):
            asked.append(float(timestep[0]))
            return super().__call__(timestep, latents, image)

    pipe.transformer.enable_routing(RoutingConfig(Asked(BLOCKS), HALF))
    generate(pipe)
    assert len(asked) == len(set(asked)) == 4


def test_nothing_is_left_between_calls_and_prompts(pipe):
    transformer = pipe.transformer
    transformer.enable_routing(RoutingConfig(content_router(), HALF))
    first = generate(pipe)
    routes = [route.to_dict() | {"milliseconds": 0} for route in transformer.routing_summary()]
    generate(pipe, prompt="a blue 3 standing still", seed=1, steps=3)
    assert len(transformer.routing_summary()) == 3

    def stop(pipe, step, timestep, values):
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError):
        generate(pipe, seed=2, callback_on_step_end=stop)
    assert torch.equal(generate(pipe), first)
    assert [route.to_dict() | {"milliseconds": 0} for route in transformer.routing_summary()] == routes


def test_a_budget_changes_in_mid_generation_from_the_next_step_on(pipe):
    pipe.transformer.enable_routing(RoutingConfig(RandomRouter(BLOCKS), ALL))

    def lower(pipe, step, timestep, values):
        if step == 1:
            pipe.transformer.set_budget(BudgetSchedule.constant(3))
        return values

    generate(pipe, callback_on_step_end=lower)
    assert [int(route.blocks_run[0]) for route in pipe.transformer.routing_summary()] == [6, 6, 3, 3]


def test_a_step_without_a_second_branch_and_without_a_context(pipe):
    transformer = pipe.transformer
    transformer.enable_routing(RoutingConfig(content_router(), BudgetSchedule.by_step([6, 5, 4])))
    generate(pipe, steps=3, guidance=1.0)
    assert [route.step for route in transformer.routing_summary()] == [0, 1, 2]
    for t in (900.0, 900.0, 500.0, 500.0, 100.0):
        transformer(**inputs(t=t))
    assert [(route.step, int(route.blocks_run[0])) for route in transformer.routing_summary()] == [
        (0, 6),
        (1, 5),
        (2, 4),
    ]
    transformer(**inputs(t=950.0))
    assert [route.step for route in transformer.routing_summary()] == [0]


def test_a_batch_is_routed_sample_by_sample(pipe):
    transformer, router = pipe.transformer, content_router(seed=3)
    transformer.enable_routing(RoutingConfig(router, HALF))
    batch = inputs(4, seed=5)
    batch["hidden_states"] *= torch.tensor([0.2, 1.0, 2.0, 4.0])[:, None, None, None, None]
    batch["timestep"] = torch.tensor([900.0, 700.0, 300.0, 700.0])
    with counted(transformer) as calls:
        together = transformer(**batch).sample
    route = transformer.routing_summary()[-1]
    assert not route.unanimous
    assert sum(count for _, count in calls) == route.ran.sum()
    assert [(block, count) for block, count in calls] == [
        (block, int(count)) for block, count in enumerate(route.ran.sum(axis=0)) if count
    ]
    for index in range(4):
        alone = transformer(**{name: value[index : index + 1] for name, value in batch.items()}).sample
        assert (transformer.routing_summary()[-1].ran == route.ran[index : index + 1]).all()
        torch.testing.assert_close(together[index : index + 1], alone, rtol=1e-4, atol=1e-5)


def test_a_batch_generates_what_its_samples_generate_alone(pipe):
    pipe.transformer.enable_routing(RoutingConfig(content_router(seed=3), HALF))
    prompts = [PROMPT, "a blue 3 standing still"]
    generators = [torch.Generator().manual_seed(seed) for seed in (0, 1)]
    settings = {"height": 32, "width": 32, "num_frames": 9, "num_inference_steps": 3, "guidance_scale": 2.0}
    together = pipe(prompts, generator=generators, output_type="latent", **settings).frames
    for index, prompt in enumerate(prompts):
        alone = generate(pipe, prompt, seed=index, steps=3)
        torch.testing.assert_close(together[index : index + 1], alone, rtol=1e-3, atol=1e-3)


def test_a_batch_that_agrees_is_called_as_a_whole(pipe):
    pipe.transformer.enable_routing(RoutingConfig(RandomRouter(BLOCKS), HALF))
    with counted(pipe.transformer) as calls:
        pipe.transformer(**inputs(3))
    assert {count for _, count in calls} == {3}


def test_image_to_video_is_routed_by_the_class_token_once_per_step():
    pipe = tiny_image_pipeline(num_layers=BLOCKS)
    pipe.transformer = PareWanTransformer3DModel.from_stock(pipe.transformer)
    router = content_router(content="image", content_width=24)
    seen = []
    router.register_forward_pre_hook(lambda module, args: seen.append(args))
    pipe.transformer.enable_routing(RoutingConfig(router, HALF))
    from PIL import Image

    image = Image.new("RGB", (32, 32), "red")
    with counted(pipe.transformer) as calls:
        generate(pipe, steps=3, image=image)
    summary = pipe.transformer.routing_summary()
    assert [route.step for route in summary] == [0, 1, 2] and len(seen) == 3
    assert len(calls) == 2 * sum(int(route.blocks_run[0]) for route in summary)
    expected = pipe.encode_image(image, "cpu")[:, 0]
    assert all(torch.equal(image, expected) for _, _, image in seen)
    # A blue image is another content.
    before = summary[0].scores
    generate(pipe, steps=3, image=Image.new("RGB", (32, 32), "blue"))
    assert not np.allclose(pipe.transformer.routing_summary()[0].scores, before)


def test_two_images_per_sample_give_the_first_ones_class_token():
    transformer = PareWanTransformer3DModel.from_stock(
        tiny_transformer(num_layers=BLOCKS, image_dim=24, added_kv_proj_dim=48, pos_embed_seq_len=34)
    )
    router, seen = content_router(content="image", content_width=24), []
    router.register_forward_pre_hook(lambda module, args: seen.append(args[2]))
    transformer.enable_routing(RoutingConfig(router, ALL))
    images = torch.randn(4, 17, 24)
    transformer(**inputs(2) | {"encoder_hidden_states": torch.randn(2, 512, 16)}, encoder_hidden_states_image=images)
    assert torch.equal(seen[0], images[[0, 2], 0])


def test_the_decision_reads_the_device_once(pipe):
    """Copies to the host while deciding: one, of timestep and scores together."""
    reads = []

    class Reads(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            if func in (
                torch.Tensor.cpu,
                torch.Tensor.item,
                torch.Tensor.tolist,
                torch.Tensor.__float__,
                torch.Tensor.__bool__,
            ):
                reads.append(func.__name__)
            return func(*args, **(kwargs or {}))

    pipe.transformer.enable_routing(RoutingConfig(content_router(), HALF))
    with Reads():
        pipe.transformer(**inputs(2))
    assert reads == ["cpu"]


def test_stock_and_routed_share_their_weights_and_nothing_else():
    stock = tiny_transformer(num_layers=BLOCKS)
    routed = PareWanTransformer3DModel.from_stock(stock)
    assert all(mine is theirs for mine, theirs in zip(routed.parameters(), stock.parameters(), strict=True))
    assert torch.equal(routed(**inputs()).sample, stock(**inputs()).sample)
    routed.attach_router(content_router(), HALF)
    assert not torch.equal(routed(**inputs()).sample, stock(**inputs()).sample)
    assert not hasattr(stock, "router") and "routing" not in stock.config
    assert PareWanTransformer3DModel.from_stock(routed) is routed
    routed.register_forward_hook(lambda module, args, output: None)
    assert not stock._forward_hooks


def test_a_loaded_pipeline_can_be_routed_and_is_the_stock_one_until_then(tiny_folder):
    loaded, stock = load_pipeline(str(tiny_folder)), WanPipeline.from_pretrained(tiny_folder)
    stock.set_progress_bar_config(disable=True)
    assert isinstance(loaded.transformer, PareWanTransformer3DModel)
    assert torch.equal(generate(loaded), generate(stock))


def test_a_transformer_with_hooks_of_its_own_is_not_taken_over():
    for hook in ("cache", "offload"):
        stock = tiny_transformer(num_layers=BLOCKS)
        if hook == "cache":
            stock.enable_layerwise_casting(torch.float16, torch.float32)
            stock.enable_group_offload(torch.device("cpu"), offload_type="leaf_level")
        else:
            from accelerate.hooks import AlignDevicesHook, add_hook_to_module

            add_hook_to_module(stock, AlignDevicesHook())
        with pytest.raises(InputError, match="from_stock"):
            PareWanTransformer3DModel.from_stock(stock)


@pytest.fixture(scope="module")
def student(pipe, tmp_path_factory):
    """A saved pipeline with a learned router."""
    made = tiny_pipeline(num_layers=BLOCKS)
    made.transformer = PareWanTransformer3DModel.from_stock(made.transformer)
    made.transformer.attach_router(content_router(), BudgetSchedule.linear(3, 5))
    folder = tmp_path_factory.mktemp("student")
    made.save_pretrained(folder)
    return folder, generate(made)


def test_a_routed_student_is_routed_when_a_plain_pipeline_loads_it(student):
    folder, expected = student
    loaded = WanPipeline.from_pretrained(folder)
    loaded.set_progress_bar_config(disable=True)
    assert type(loaded.transformer) is PareWanTransformer3DModel
    assert loaded.transformer.config.routing["k_min"] == 3 and loaded.transformer.config.routing["k_max"] == 5
    assert torch.equal(generate(loaded), expected)
    assert [int(route.blocks_run[0]) for route in loaded.transformer.routing_summary()] == [4, 4, 4, 4]
    loaded.transformer.disable_routing()
    dense = generate(loaded)
    assert not torch.equal(dense, expected)
    loaded.transformer.enable_routing()
    assert torch.equal(generate(loaded), expected)


def test_the_router_stays_float32_in_a_half_precision_student(student):
    folder, _ = student
    loaded = PareWanTransformer3DModel.from_pretrained(folder, subfolder="transformer", torch_dtype=torch.bfloat16)
    assert loaded.blocks[0].ffn.net[2].weight.dtype == torch.bfloat16
    assert {parameter.dtype for parameter in loaded.router.parameters()} == {torch.float32}


def test_the_gate_of_training_gives_every_block_a_gradient(pipe):
    transformer, router = pipe.transformer, content_router()
    transformer.enable_routing(RoutingConfig(router, HALF, dense=True))
    with counted(transformer) as calls:
        result = transformer(**inputs(2)).sample
    # All blocks run, and what comes out is what skipping gives.
    assert [block for block, _ in calls] == list(range(BLOCKS))
    transformer.enable_routing(RoutingConfig(router, HALF))
    torch.testing.assert_close(transformer(**inputs(2)).sample, result, rtol=1e-5, atol=1e-6)
    result.square().mean().backward()
    assert (router.last.bias.grad[:-1].abs() > 0).all()
    transformer.zero_grad()


def test_with_the_relative_gradient_the_same_runs_and_scores_never_rise_together(pipe):
    transformer, router = pipe.transformer, content_router()
    results = []
    for relative in (False, True):
        transformer.enable_routing(RoutingConfig(router, HALF, dense=True, relative=relative))
        router.zero_grad()
        result = transformer(**inputs(2)).sample
        result.square().mean().backward()
        results.append((result.detach(), router.last.bias.grad.clone()))
    (absolute, rises), (same, gradient) = results
    assert torch.equal(absolute, same)
    assert gradient[0] == gradient[-1] == 0 and (gradient[1:-1] != 0).all()
    assert abs(gradient.sum()) < 1e-5 * gradient.abs().max() < rises.abs().max()
    transformer.zero_grad()


def test_a_gradient_step_of_the_gate_is_that_of_finite_differences_in_the_gate(pipe):
    """∂loss/∂r_i = sigmoid'(r_i)·∂loss/∂m_i: the gates moved by hand, the blocks run by hand."""
    transformer, router = pipe.transformer, content_router()
    transformer.double()
    try:
        values = {name: value.double() for name, value in inputs().items()}
        router.double()
        transformer.enable_routing(RoutingConfig(router, HALF, dense=True))
        transformer(**values).sample.square().sum().backward()
        route = transformer.routing_summary()[-1]
        _, (tokens, *rest) = transformer.embed(
            values["hidden_states"], values["timestep"], values["encoder_hidden_states"]
        )
        gates = torch.from_numpy(route.ran[0].astype(float)).requires_grad_()
        embedded, _ = transformer.embed(values["hidden_states"], values["timestep"], values["encoder_hidden_states"])
        for index, block in enumerate(transformer.blocks):
            tokens = gates[index] * block(tokens, *rest) + (1 - gates[index]) * tokens
        transformer._velocity(tokens, embedded, (5, 4, 4)).square().sum().backward()
        soft = 1 / (1 + np.exp(-route.scores[0]))
        expected = gates.grad.numpy() * soft * (1 - soft)
        # The gate itself is float32.
        np.testing.assert_allclose(router.last.bias.grad.numpy(), expected, rtol=1e-4, atol=1e-6 * abs(expected).max())
    finally:
        transformer.float()
        transformer.zero_grad()


@pytest.mark.parametrize(
    ("config", "what"),
    [
        (None, "learned one"),
        (RoutingConfig(RandomRouter(5)), "scores of 5 blocks"),
        (RoutingConfig(RandomRouter(BLOCKS), BudgetSchedule.linear(1, 4)), "--k-min"),
        (RoutingConfig(RandomRouter(BLOCKS), BudgetSchedule.linear(2, 7)), "--k-max"),
    ],
)
def test_what_does_not_fit_is_refused(pipe, config, what):
    with pytest.raises(InputError, match=what):
        pipe.transformer.enable_routing(config)
    assert not pipe.transformer.is_routing_enabled
    with pytest.raises(InputError, match="enable_routing"):
        pipe.transformer.set_budget(ALL)


def test_scores_that_are_no_numbers_stop_the_step(pipe):
    router = content_router()
    torch.nn.init.constant_(router.last.bias, float("nan"))
    pipe.transformer.enable_routing(RoutingConfig(router, HALF))
    with pytest.raises(InputError, match="not a number"):
        pipe.transformer(**inputs())


def test_budgets_by_default(pipe):
    transformer = pipe.transformer
    transformer.enable_routing(RoutingConfig(RandomRouter(BLOCKS)))
    assert transformer._routing.budget == BudgetSchedule.paper(BLOCKS)
    transformer.enable_routing(RoutingConfig(ImportanceRouter([500.0], np.ones((1, BLOCKS))), HALF))
    assert transformer._routing.budget == HALF
