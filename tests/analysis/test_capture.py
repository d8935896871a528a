"""Capture: the model's own bits, every statistic against float64 written out, nothing left behind."""

import copy
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from diffusers.models.transformers.transformer_wan import WanAttnProcessor
from torch.nn.attention import SDPBackend, sdpa_kernel

from analysis.capture import CaptureSpec, capture, output_weight_norms, stack_passes
from pare.errors import InputError
from tests.tiny import BLOCKS, HEADS, tiny_image_pipeline, tiny_pipeline, tiny_transformer

SIZE = {"height": 32, "width": 32, "num_frames": 9}


def inputs(dtype=torch.float32, channels=4, frames=5, seed=0, image=False):
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape):
        return torch.randn(shape, generator=generator).to(dtype)

    given = {
        "hidden_states": noise(1, channels, frames, 8, 8),
        "timestep": torch.tensor([500.0]),
        "encoder_hidden_states": noise(1, 512, 16),
        "return_dict": False,
    }
    return given | ({"encoder_hidden_states_image": noise(1, 17, 24)} if image else {})


def image_transformer():
    return tiny_transformer(in_channels=10, image_dim=24, added_kv_proj_dim=48)


class Float64Processor(WanAttnProcessor):
    """Attention written out in float64, head by head; keeps the ratio and the head outputs it meets."""

    def __init__(self, num_frames):
        super().__init__()
        self.num_frames, self.ratio, self.text, self.image = num_frames, None, None, None

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, rotary_emb=None):
        source = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        picture = None
        if attn.add_k_proj is not None:
            picture, source = source[:, :-512], source[:, -512:]
        query, key = attn.norm_q(attn.to_q(hidden_states)), attn.norm_k(attn.to_k(source))
        query, key, value = (each.unflatten(2, (attn.heads, -1)) for each in (query, key, attn.to_v(source)))
        if rotary_emb is not None:
            query, key = (self.rotate(each, *rotary_emb) for each in (query, key))
        output, norms, weights = self.attend(query, key, value)
        if rotary_emb is not None:
            per_frame = query.shape[1] // self.num_frames
            frame = torch.arange(query.shape[1]) // per_frame
            self.ratio = (weights * (frame[:, None] == frame[None])).sum(-1).mean(-1)
        self.text = norms
        if picture is not None:
            key, value = attn.norm_added_k(attn.add_k_proj(picture)), attn.add_v_proj(picture)
            more, self.image, _ = self.attend(query, *(each.unflatten(2, (attn.heads, -1)) for each in (key, value)))
            output = output + more
        return attn.to_out[0](output.flatten(2))

    @staticmethod
    def rotate(x, cos, sin):
        pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
        turn = torch.complex(cos[..., 0::2].double(), sin[..., 1::2].double())
        return torch.view_as_real(pairs * turn).flatten(-2)

    @staticmethod
    def attend(query, key, value):
        weights = torch.softmax(torch.einsum("bqhd,bkhd->bhqk", query, key) / query.shape[-1] ** 0.5, -1)
        output = torch.einsum("bhqk,bkhd->bqhd", weights, value)
        return output, output[0].pow(2).sum((0, 2)).sqrt(), weights[0]


def float64_reference(transformer, given, num_frames):
    """Every statistic of every block from a float64 copy of the model with attention written out."""
    model = copy.deepcopy(transformer).double()
    found = {name: [] for name in ("self/ratio", "self/value_norm", "cross/value_norm", "cross/image_value_norm")}
    found |= {name: [] for name in ("block/residual_norm", "block/input_norm", "block/cosine")}
    for block in model.blocks:
        block.attn1.set_processor(Float64Processor(num_frames))
        block.attn2.set_processor(Float64Processor(num_frames))
    rotary = model.rope(given["hidden_states"])
    doubled = {name: value.double() if torch.is_tensor(value) else value for name, value in given.items()}
    x = model.patch_embedding(doubled["hidden_states"]).flatten(2).transpose(1, 2)
    _, projection, text, image = model.condition_embedder(
        doubled["timestep"], doubled["encoder_hidden_states"], doubled.get("encoder_hidden_states_image")
    )
    text = text if image is None else torch.cat([image, text], 1)
    for block in model.blocks:
        y = block(x, text, projection.unflatten(1, (6, -1)), rotary)
        own, cross = block.attn1.processor, block.attn2.processor
        found["self/ratio"].append(own.ratio)
        found["self/value_norm"].append(own.text)
        found["cross/value_norm"].append(cross.text)
        found["cross/image_value_norm"].append(cross.image)
        found["block/residual_norm"].append((y - x).norm())
        found["block/input_norm"].append(x.norm())
        found["block/cosine"].append((x * y).sum() / (x.norm() * y.norm()))
        x = y
    return {name: torch.stack(values).numpy() for name, values in found.items() if values[0] is not None}


def hooks_of(model):
    """Everything by which a hook can stay: torch's hook tables, instance forwards, diffusers' registries, modes."""
    tables = [
        (name, table, len(value))
        for name, module in model.named_modules()
        for table, value in vars(module).items()
        if table.endswith("_hooks") or "hooks_" in table
        if hasattr(value, "__len__")
    ]
    added = [
        (n, key) for n, module in model.named_modules() for key in ("forward", "_diffusers_hook") if key in vars(module)
    ]
    processors = [(n, module._attention_backend) for n, module in model.attn_processors.items()]
    return tables, added, processors, torch.overrides._len_torch_function_stack()


@pytest.mark.parametrize("image", [False, True])
@pytest.mark.parametrize("frames", [1, 3, 5])
def test_every_statistic_matches_float64_written_out(image, frames):
    transformer = image_transformer() if image else tiny_transformer()
    given = inputs(channels=10 if image else 4, frames=frames, image=image)
    with torch.no_grad(), capture(transformer) as recorder:
        transformer(**given)
    with torch.no_grad():
        expected = float64_reference(transformer, given, frames)
    (only,) = recorder.take()
    assert set(only.arrays) == set(expected)
    assert len(expected) == (7 if image else 6)
    for name, values in expected.items():
        assert only.arrays[name].shape == values.shape and only.arrays[name].dtype == np.float32
        np.testing.assert_allclose(only.arrays[name], values, rtol=2e-5, atol=2e-6, err_msg=name)
    assert (only.step, only.branch, only.timestep, only.num_frames) == (0, "cond", 500.0, frames)
    assert recorder.kernels == {"flash_cpu"} and recorder.extra_calls == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("image", [False, True])
@pytest.mark.parametrize("grad", [False, True])
def test_output_is_bit_identical(dtype, image, grad):
    transformer = (image_transformer() if image else tiny_transformer()).to(dtype)
    given = inputs(dtype, channels=10 if image else 4, image=image)
    with nullcontext() if grad else torch.no_grad():
        plain = transformer(**given)[0]
        with capture(transformer) as recorder:
            measured = transformer(**given)[0]
    assert torch.equal(plain, measured) and measured.isfinite().all()
    assert recorder.take()[0].arrays["self/ratio"].shape == (BLOCKS, HEADS)
    if grad:
        parameter = transformer.blocks[0].attn1.to_q.weight
        (first,), (second,) = (torch.autograd.grad(out.float().sum(), parameter) for out in (plain, measured))
        assert torch.equal(first, second)


def test_bits_and_numbers_under_autocast():
    transformer, given = tiny_transformer(), inputs()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        plain = transformer(**given)[0]
        with capture(transformer) as recorder:
            measured = transformer(**given)[0]
    assert torch.equal(plain, measured)
    with torch.no_grad(), capture(transformer) as exact:
        transformer(**given)
    np.testing.assert_allclose(recorder.take()[0].arrays["self/ratio"], exact.take()[0].arrays["self/ratio"], atol=0.01)


def test_where_torch_computes_the_softmax_itself_chunks_give_the_ratio_and_the_bits_stay():
    transformer, given = tiny_transformer(), inputs()
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        plain = transformer(**given)[0]
        with capture(transformer) as recorder:
            measured = transformer(**given)[0]
    assert torch.equal(plain, measured) and recorder.kernels == {"chunked"}
    with torch.no_grad():
        expected = float64_reference(transformer, given, 5)["self/ratio"]
    np.testing.assert_allclose(recorder.take()[0].arrays["self/ratio"], expected, rtol=2e-5)


def test_fused_projections():
    transformer, given = tiny_transformer(), inputs()
    with torch.no_grad(), capture(transformer) as recorder:
        transformer(**given)
        transformer.fuse_qkv_projections()
        fused = transformer(**given)[0]
    with torch.no_grad():
        assert torch.equal(fused, transformer(**given)[0])
    apart, together = recorder.take()
    np.testing.assert_allclose(apart.arrays["self/ratio"], together.arrays["self/ratio"], rtol=1e-4)


class Bypass(WanAttnProcessor):
    """A backend that never calls torch's attention function until diffusers' native backend is chosen."""

    def __call__(self, attn, hidden_states, *args, **kwargs):
        if getattr(self._attention_backend, "value", None) == "native":
            return super().__call__(attn, hidden_states, *args, **kwargs)
        return torch.zeros_like(hidden_states)


class Silent(WanAttnProcessor):
    def __call__(self, attn, hidden_states, *args, **kwargs):
        return hidden_states


def test_a_backend_that_bypasses_torch_pays_one_extra_call_and_keeps_its_output():
    transformer, given = tiny_transformer(), inputs()
    transformer.blocks[0].attn1.set_processor(Bypass())
    with torch.no_grad():
        plain = transformer(**given)[0]
        before = hooks_of(transformer)
        with capture(transformer) as recorder:
            measured = transformer(**given)[0]
    assert torch.equal(plain, measured) and recorder.extra_calls == 1
    assert hooks_of(transformer) == before
    stock = tiny_transformer()
    with torch.no_grad(), capture(stock) as reference:
        stock(**given)
    assert (recorder.take()[0].arrays["self/ratio"][0] == reference.take()[0].arrays["self/ratio"][0]).all()


def test_weights_that_come_and_go():
    """Accelerate's offload wraps every forward and drops the weights after it; capture stands around that."""
    from accelerate import cpu_offload

    transformer, given = tiny_transformer(), inputs()
    with torch.no_grad():
        plain = transformer(**given)[0]
        cpu_offload(transformer, execution_device=torch.device("cpu"))
        before = hooks_of(transformer)
        with capture(transformer) as recorder:
            measured = transformer(**given)[0]
        assert torch.equal(plain, measured) and hooks_of(transformer) == before
        with capture(tiny_transformer()) as reference:
            reference.transformer(**given)
        with pytest.raises(InputError, match="not loaded"):
            output_weight_norms(transformer)
    for name, values in reference.take()[0].arrays.items():
        np.testing.assert_array_equal(recorder.passes[0].arrays[name], values)


def test_a_processor_without_attention_is_refused():
    transformer = tiny_transformer()
    transformer.blocks[1].attn1.set_processor(Silent())
    before = hooks_of(transformer)
    with pytest.raises(InputError, match="Silent"), torch.no_grad(), capture(transformer):
        transformer(**inputs())
    assert hooks_of(transformer) == before


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("place", ["blocks.1.attn1.to_k", "blocks.0.ffn", "blocks.1.attn2", "proj_out"])
def test_no_hook_is_left_after_an_error_or_ctrl_c(error, place):
    transformer, given = tiny_transformer(), inputs()
    before = hooks_of(transformer)

    def fail(*_):
        raise error

    with torch.no_grad():
        plain = transformer(**given)[0]
        handle = transformer.get_submodule(place).register_forward_pre_hook(fail)
        with pytest.raises(error), capture(transformer):
            transformer(**given)
        handle.remove()
        assert hooks_of(transformer) == before
        assert torch.equal(transformer(**given)[0], plain)


def test_a_failed_forward_leaves_nothing_in_the_sample():
    transformer, given = tiny_transformer(), inputs()

    def fail(*_):
        raise KeyboardInterrupt

    with torch.no_grad(), capture(transformer) as recorder:
        handle = transformer.blocks[1].attn1.to_q.register_forward_pre_hook(fail)
        with pytest.raises(KeyboardInterrupt):
            transformer(**given)
        handle.remove()
        # Attention outside of the transformer, such as a text encoder's, is not the model's.
        mask = torch.zeros(1, 1, 3, 3)
        torch.nn.functional.scaled_dot_product_attention(*[torch.zeros(1, 1, 3, 8)] * 3, attn_mask=mask)
        transformer(**given)
    assert len(recorder.take()) == 1


def test_hooks_go_after_a_normal_end_and_the_model_can_be_measured_again():
    pipe = tiny_pipeline()
    before = hooks_of(pipe.transformer)
    for _ in range(2):
        with capture(pipe) as recorder, torch.no_grad():
            pipe.transformer(**inputs())
            pipe.transformer(**inputs())
        assert len(recorder.take()) == 2 and recorder.take() == []
        assert hooks_of(pipe.transformer) == before


@pytest.mark.parametrize("make", [tiny_pipeline, tiny_image_pipeline])
@pytest.mark.parametrize("scheduler", ["unipc", "euler"])
@pytest.mark.parametrize("guidance, branches", [(3.0, ("cond", "uncond")), (1.0, ("cond",))])
def test_steps_and_branches_of_a_generation(make, scheduler, guidance, branches):
    """Text-to-video announces step and sigma, image-to-video only the branch; both are told apart."""
    from PIL import Image

    pipe = make(scheduler=scheduler)
    extra = {"image": Image.new("RGB", (32, 32), "red")} if make is tiny_image_pipeline else {}

    def run():
        return pipe(
            prompt="a red 7", num_inference_steps=3, guidance_scale=guidance, output_type="latent",
            generator=torch.Generator().manual_seed(1), **SIZE, **extra,
        ).frames  # fmt: skip

    plain = run()
    with capture(pipe) as recorder:
        measured = run()
    assert torch.equal(plain, measured)
    passes = recorder.take()
    assert [(each.step, each.branch) for each in passes] == [(s, b) for s in range(3) for b in branches]
    for each in passes:
        assert each.timestep == pytest.approx(float(pipe.scheduler.timesteps[each.step]))
        assert each.sigma == pytest.approx(float(pipe.scheduler.sigmas[each.step]), abs=1e-3)
    arrays = stack_passes(passes, 3, branches)
    assert arrays["self/ratio"].shape == (3, len(branches), BLOCKS, HEADS)
    assert arrays["block/cosine"].shape == (3, len(branches), BLOCKS)
    assert not any(np.isnan(values).any() for values in arrays.values())
    assert ("cross/image_value_norm" in arrays) == (make is tiny_image_pipeline)
    if len(branches) == 2:
        assert (arrays["cross/value_norm"][:, 0] != arrays["cross/value_norm"][:, 1]).all()


def test_a_missing_pass_is_absent_not_zero():
    transformer = tiny_transformer()
    second = transformer.cache_context("uncond", step_index=1, sigma=0.5)
    with torch.no_grad(), capture(transformer) as recorder, second:
        transformer(**inputs())
    arrays = stack_passes(recorder.take(), 2, ("cond", "uncond"))
    assert not np.isnan(arrays["self/ratio"][1, 1]).any()
    assert np.isnan(arrays["self/ratio"][0]).all() and np.isnan(arrays["self/ratio"][1, 0]).all()


def test_only_what_was_asked_for():
    transformer = tiny_transformer()
    with torch.no_grad(), capture(transformer, CaptureSpec(("cross/value_norm",))) as recorder:
        transformer(**inputs())
    assert set(recorder.take()[0].arrays) == {"cross/value_norm"} and recorder.kernels == set()
    with pytest.raises(InputError, match="self/ratio"):
        CaptureSpec(("self/rato",))


def test_output_weight_norms_are_those_of_the_slices():
    transformer = tiny_transformer()
    norms = output_weight_norms(transformer)
    for kind, name in (("self", "attn1"), ("cross", "attn2")):
        for block in range(BLOCKS):
            weight = getattr(transformer.blocks[block], name).to_out[0].weight.double()
            for head in range(HEADS):
                expected = weight[:, head * 12 : (head + 1) * 12].norm().item()
                assert norms[f"{kind}/output_weight_norm"][block, head] == pytest.approx(expected, rel=1e-6)


def test_what_cannot_be_measured_is_refused():
    with pytest.raises(InputError, match="Linear"), capture(torch.nn.Linear(2, 2)):
        pass
    transformer = tiny_transformer()
    two = inputs()
    two = {name: torch.cat([v, v]) if torch.is_tensor(v) else v for name, v in two.items()}
    with pytest.raises(InputError, match="batch of 2"), torch.no_grad(), capture(transformer):
        transformer(**two)
    transformer.blocks[0].compile(backend="eager")
    with pytest.raises(InputError, match="compiled"), capture(transformer):
        pass


def test_two_captures_at_once_are_refused_and_the_first_goes_on():
    transformer = tiny_transformer()
    before = hooks_of(transformer)
    with torch.no_grad(), capture(transformer) as recorder:
        with pytest.raises(InputError, match="already"), capture(transformer):
            pass
        transformer(**inputs())
    assert len(recorder.take()) == 1 and hooks_of(transformer) == before


class _Sizes(torch.utils._python_dispatch.TorchDispatchMode):
    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for each in result if isinstance(result, tuple | list) else [result]:
            if isinstance(each, torch.Tensor):
                self.largest = max(self.largest, each.untyped_storage().nbytes() // each.element_size())
        return result


def test_no_tensor_is_larger_than_without_capture():
    transformer = tiny_transformer(num_layers=1)
    given = inputs() | {"hidden_states": torch.randn(1, 4, 12, 32, 32)}
    sizes = []
    for context in (nullcontext(), capture(transformer)):
        with torch.no_grad(), context, _Sizes() as watch:
            transformer(**given)
        sizes.append(watch.largest)
    assert sizes[1] == sizes[0] < 3072 * 3072
