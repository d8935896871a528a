"""What diffusers' own testers ask of a transformer, asked of ours: dense and pruned, text and image to video."""

import copy
import shutil

import pytest
import torch
from diffusers import FirstBlockCacheConfig, MagCacheConfig
from diffusers.hooks import apply_group_offloading
from diffusers.models.transformers.transformer_wan import WanAttnProcessor
from diffusers.training_utils import EMAModel
from peft import LoraConfig

from pare.attention import SelectedHeadsProcessor
from pare.errors import InputError
from pare.transformer import PareWanTransformer3DModel
from tests.students import BLOCKS, inputs, student, velocity
from tests.tiny import LATENT_CHANNELS, PROMPT, tiny_image_pipeline, tiny_pipeline

HOWS = ("dense", "fold", "exact")


@pytest.fixture(scope="module")
def students():
    return {(kind, how): student(kind, how) for kind in ("t2v", "i2v") for how in HOWS}


@pytest.fixture(params=[(kind, how) for kind in ("t2v", "i2v") for how in HOWS], ids="-".join)
def case(request, students):
    """A student of its own for the test, and the arguments of a forward of two samples."""
    kind, how = request.param
    return copy.deepcopy(students[request.param]), inputs(kind, batch=2), kind, how


def test_it_is_deterministic_and_a_tuple_is_the_dict(case):
    model, given, _, _ = case
    first = velocity(model, given)
    assert torch.equal(first, velocity(model, given)) and torch.isfinite(first).all()
    with torch.no_grad():
        assert torch.equal(model(**given).sample, first)
    assert first.shape == (2, LATENT_CHANNELS, *given["hidden_states"].shape[2:])


def test_a_batch_is_its_samples(case):
    model, given, _, _ = case
    single = torch.cat([velocity(model, {name: value[i : i + 1] for name, value in given.items()}) for i in range(2)])
    assert torch.allclose(velocity(model, given), single, atol=1e-5)


def loss(model, given):
    return model(**given, return_dict=False)[0].square().mean()


def test_a_training_step_reaches_every_parameter(case):
    model, given, _, _ = case
    model.train()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    first = loss(model, given)
    first.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
    optimizer.step()
    assert all(not torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())
    with torch.no_grad():
        assert loss(model, given) < first


def test_gradient_checkpointing_changes_nothing(case):
    model, given, _, _ = case
    grads = []
    for checkpointing in (False, True):
        model.zero_grad()
        if checkpointing:
            model.enable_gradient_checkpointing()
            assert model.is_gradient_checkpointing
        value = loss(model, given)
        value.backward()
        grads.append([value.detach(), *(parameter.grad.clone() for parameter in model.parameters())])
    assert all(torch.equal(one, other) for one, other in zip(*grads, strict=True))


def test_an_average_of_the_weights(case, tmp_path):
    model, given, _, _ = case
    average = EMAModel(model.parameters(), model_cls=PareWanTransformer3DModel, model_config=model.config, decay=0.5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1)
    average.step(model.parameters())
    average.save_pretrained(tmp_path)
    again = EMAModel.from_pretrained(tmp_path, PareWanTransformer3DModel)
    for other in (average, again):
        target = PareWanTransformer3DModel.from_config(model.config).eval()
        other.copy_to(target.parameters())
        assert torch.equal(velocity(target, given), velocity(target, given))
        assert torch.equal(target.proj_out.bias, average.shadow_params[-1])


def test_mixed_and_half_precision(case):
    model, given, _, _ = case
    plain = velocity(model, given)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = velocity(model, given)
    half = {name: value.to(torch.bfloat16) if value.ndim > 1 else value for name, value in given.items()}
    low = velocity(model.to(torch.bfloat16), half)
    for found in (mixed, low):
        assert (found.float() - plain).norm() / plain.norm() < 0.05


def test_fused_projections(case):
    model, given, _, how = case
    plain = velocity(model, given)
    if how == "exact":
        with pytest.raises(InputError, match="fuse_projections"):
            model.fuse_qkv_projections()
        assert not any(getattr(module, "fused_projections", False) for module in model.modules())
        return
    model.fuse_qkv_projections()
    assert hasattr(model.blocks[0].attn1, "to_qkv")
    assert torch.allclose(velocity(model, given), plain, atol=1e-5)
    model.unfuse_qkv_projections()
    assert torch.equal(velocity(model, given), plain)


def test_attention_processors(case):
    model, given, _, how = case
    plain, processors = velocity(model, given), model.attn_processors
    # In exact mode one block keeps all cross heads of none: every attention of the mask lost a head.
    kind = SelectedHeadsProcessor if how == "exact" else WanAttnProcessor
    assert len(processors) == 2 * BLOCKS and all(type(each) is kind for each in processors.values())
    model.set_attn_processor({name: kind() for name in processors})
    assert torch.equal(velocity(model, given), plain)
    model.set_attention_backend("native")
    assert all(each._attention_backend == "native" for each in model.attn_processors.values())
    assert torch.equal(velocity(model, given), plain)


LAYERS = ["to_q", "to_k", "to_v", "to_out.0", "ffn.net.0.proj", "ffn.net.2"]


def test_a_lora_is_trained_saved_loaded_and_merged(case, tmp_path):
    model, given, kind, how = case
    plain = velocity(model, given)
    model.add_adapter(LoraConfig(r=2, lora_alpha=4, target_modules=LAYERS, init_lora_weights=False), "own")
    adapted = velocity(model, given)
    assert not torch.allclose(adapted, plain, atol=1e-3)
    loss(model, given).backward()
    trained = [name for name, parameter in model.named_parameters() if parameter.grad is not None]
    assert trained and all("lora_" in name for name in trained)
    model.save_lora_adapter(tmp_path, adapter_name="own")
    model.disable_adapters()
    assert torch.equal(velocity(model, given), plain)
    other = student(kind, how)
    other.load_lora_adapter(tmp_path, prefix=None)
    assert torch.allclose(velocity(other, given), adapted, atol=1e-5)
    other.fuse_lora()
    other.unload_lora()
    assert torch.allclose(velocity(other, given), adapted, atol=1e-4)


def test_weights_stored_in_eight_bits(case):
    model, given, _, _ = case
    plain = velocity(model, given)
    model.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
    stored = {parameter.dtype for parameter in model.blocks[0].attn1.to_v.parameters()}
    assert stored == {torch.float8_e4m3fn} and model.blocks[0].attn1.norm_q.weight.dtype == torch.float32
    found = velocity(model, given)
    assert (found - plain).norm() / plain.norm() < 0.2


@pytest.mark.parametrize(
    "how_much", [{"offload_type": "leaf_level"}, {"offload_type": "block_level", "num_blocks_per_group": 1}]
)
def test_group_offload(case, how_much):
    model, given, _, _ = case
    plain = velocity(model, given)
    device = torch.device("cpu")
    apply_group_offloading(model, onload_device=device, offload_device=device, use_stream=False, **how_much)
    assert torch.equal(velocity(model, given), plain)
    assert torch.equal(velocity(model, given), plain)


def test_the_first_block_cache(case):
    model, given, _, _ = case
    plain, calls = velocity(model, given), []
    model.blocks[1].attn1.register_forward_hook(lambda *_: calls.append(1))
    model.enable_cache(FirstBlockCacheConfig(threshold=0.5))
    assert model.is_cache_enabled
    with model.cache_context("cond"):
        assert torch.equal(velocity(model, given), plain)
        again = velocity(model, given)
    # The second forward reused what the first left.
    assert len(calls) == 1 and torch.allclose(again, plain, atol=1e-5)
    model._reset_stateful_cache()
    with model.cache_context("cond"):
        assert torch.equal(velocity(model, given), plain)
    assert len(calls) == 2
    model.disable_cache()
    assert torch.equal(velocity(model, given), plain)


def test_the_magnitude_cache(case):
    model, given, _, _ = case
    plain, calls = velocity(model, given), []
    model.blocks[1].attn1.register_forward_hook(lambda *_: calls.append(1))
    config = MagCacheConfig(num_inference_steps=4, retention_ratio=0.25, threshold=1.0, mag_ratios=torch.ones(4))
    model.enable_cache(config)
    with model.cache_context("cond"):
        found = [velocity(model, given) for _ in range(4)]
    assert torch.equal(found[0], plain) and len(calls) < 4
    model._reset_stateful_cache()
    with model.cache_context("cond"):
        assert torch.equal(velocity(model, given), plain)
    model.disable_cache()
    assert torch.equal(velocity(model, given), plain)


@pytest.mark.parametrize(("kind", "how"), [("i2v", "dense"), ("t2v", "fold"), ("i2v", "exact")])
def test_compiled_blocks(kind, how):
    model, given = student(kind, how), inputs(kind)
    plain = velocity(model, given)
    torch.compiler.reset()
    model.compile_repeated_blocks(backend="aot_eager", fullgraph=True)
    assert torch.allclose(velocity(model, given), plain, atol=1e-5)
    torch.compiler.reset()


def pipeline(kind, how):
    pipe = tiny_pipeline() if kind == "t2v" else tiny_image_pipeline()
    pipe.register_modules(transformer=student(kind, how))
    pipe.set_progress_bar_config(disable=True)
    return pipe


def generated(pipe, **changes):
    from PIL import Image

    given = {
        "prompt": PROMPT,
        "height": 32,
        "width": 32,
        "num_frames": 5,
        "num_inference_steps": 2,
        "guidance_scale": 2.0,
        "output_type": "pt",
        "generator": torch.Generator().manual_seed(0),
    }
    if "image_encoder" in pipe.components:
        given["image"] = Image.new("RGB", (32, 32), (200, 30, 30))
    return pipe(**(given | changes)).frames


@pytest.mark.parametrize(("kind", "how"), [("t2v", "fold"), ("i2v", "exact")])
def test_pipelines(kind, how, tmp_path):
    pipe, seen = pipeline(kind, how), []

    def note(_pipe, step, _timestep, tensors):
        seen.append(step)
        return tensors

    plain = generated(pipe, callback_on_step_end=note)
    assert seen == [0, 1] and torch.isfinite(plain).all()
    assert torch.equal(generated(pipe), plain)
    assert not torch.allclose(generated(pipe, guidance_scale=1.0), plain)
    generators = [torch.Generator().manual_seed(seed) for seed in (0, 1)]
    both = generated(pipe, prompt=[PROMPT, PROMPT], generator=generators)
    assert torch.allclose(both[:1], plain, atol=1e-3)
    pipe.save_pretrained(tmp_path)
    again = type(pipe).from_pretrained(tmp_path)
    again.set_progress_bar_config(disable=True)
    assert isinstance(again.transformer, PareWanTransformer3DModel)
    assert torch.equal(generated(again), plain)
    # The second transformer of Wan2.2 is optional and stays away.
    assert again.transformer_2 is None


@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="inductor needs a C++ compiler")
def test_one_layer_through_inductor():
    model, given = student("t2v", "exact"), inputs("t2v")
    plain = velocity(model, given)
    torch.compiler.reset()
    # Its own code: the selection of heads, rotary embedding and attention.
    model.blocks[0].attn1.compile(fullgraph=True)
    assert torch.allclose(velocity(model, given), plain, atol=1e-4)
    torch.compiler.reset()
