"""Capture: the model's own bits, every statistic against float64 written out, nothing left behind."""

import copy
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from diffusers.models.transformers.transformer_wan import WanAttnProcessor
from torch.nn.attention import SDPBackend, sdpa_kernel

from analysis.capture import CaptureSpec, capture, output_weight_norms, stack_passes
from analysis.catalogue import BASIC, STATISTICS
from analysis.rows import sample_rows
from pare.errors import InputError
from tests.largest import LargestTensor
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


def image_transformer(**config):
    return tiny_transformer(in_channels=10, image_dim=24, added_kv_proj_dim=48, **config)


class Float64Processor(WanAttnProcessor):
    """Attention written out in float64, head by head; keeps in `found` what a run keeps of it."""

    def __init__(self, kind, num_frames):
        super().__init__()
        self.kind, self.num_frames, self.found = kind, num_frames, {}

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, rotary_emb=None):
        source = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        picture, found = None, self.found
        if attn.add_k_proj is not None:
            picture, source = source[:, :-512], source[:, -512:]
        query, key = attn.to_q(hidden_states), attn.to_k(source)
        for name, each in (("query", query), ("key", key)):
            found[f"{self.kind}/{name}_square"] = each.unflatten(2, (attn.heads, -1)).pow(2).mean((0, 1, 3))
        query, key = attn.norm_q(query), attn.norm_k(key)
        query, key, value = (each.unflatten(2, (attn.heads, -1)) for each in (query, key, attn.to_v(source)))
        if rotary_emb is not None:
            query, key = (self.rotate(each, *rotary_emb) for each in (query, key))
        output, weights = self.attend(query, key, value)
        found[f"{self.kind}/value_norm"] = output[0].pow(2).sum((0, 2)).sqrt()
        if rotary_emb is not None:
            self.look_at(weights)
        if picture is not None:
            key, value = attn.add_k_proj(picture), attn.add_v_proj(picture)
            found["cross/added_key_square"] = key.unflatten(2, (attn.heads, -1)).pow(2).mean((0, 1, 3))
            key = attn.norm_added_k(key)
            more, _ = self.attend(query, *(each.unflatten(2, (attn.heads, -1)) for each in (key, value)))
            found["cross/image_value_norm"] = more[0].pow(2).sum((0, 2)).sqrt()
            output = output + more
        found[f"{self.kind}/output"] = output[0].mean(0)
        slices = attn.to_out[0].weight.split(output.shape[-1], dim=1)
        projected = [(output[0, :, head] @ slices[head].T).norm() for head in range(attn.heads)]
        found[f"{self.kind}/projected_energy"] = torch.stack(projected)
        return attn.to_out[0](output.flatten(2))

    def look_at(self, weights):
        """Everything about self-attention's [heads, queries, keys], from all queries and from the sampled ones."""
        tokens, frames = weights.shape[1], self.num_frames
        frame = torch.arange(tokens) // (tokens // frames)
        own = frame[:, None] == frame[None]
        self.found["self/ratio"] = (weights * own).sum(-1).mean(-1)
        of_query = {
            "self/entropy": torch.special.entr(weights).sum(-1),
            "self/temporal_distance": (weights * (frame[:, None] - frame).abs()).sum(-1),
            "self/first_frame_share": weights[:, :, frame == 0].sum(-1),
        }
        self.found["self/entropy_exact"] = of_query["self/entropy"].mean(-1)
        rows = sample_rows(frames, tokens // frames)
        for name, values in of_query.items():
            variance = torch.zeros(len(weights), dtype=torch.float64)
            for picked in rows:
                spread = values[:, picked].var(-1) if len(picked) > 1 else 0
                variance += (1 - len(picked) * frames / tokens) * spread / len(picked) / frames**2
            self.found[name] = torch.stack([values[:, picked].mean(-1) for picked in rows]).mean(0)
            self.found[f"{name}_error"] = variance**0.5
        self.found["self/frame_map"] = torch.zeros(len(weights), frames, frames, dtype=torch.float64)
        for query_frame, picked in enumerate(rows):
            for key_frame in range(frames):
                mass = weights[:, picked][:, :, frame == key_frame].sum(-1).mean(-1)
                self.found["self/frame_map"][:, query_frame, key_frame] = mass

    @staticmethod
    def rotate(x, cos, sin):
        pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
        turn = torch.complex(cos[..., 0::2].double(), sin[..., 1::2].double())
        return torch.view_as_real(pairs * turn).flatten(-2)

    @staticmethod
    def attend(query, key, value):
        weights = torch.softmax(torch.einsum("bqhd,bkhd->bhqk", query, key) / query.shape[-1] ** 0.5, -1)
        return torch.einsum("bhqk,bkhd->bqhd", weights, value), weights[0]


def norm64(x, module):
    """Layer norm in the input's own precision: diffusers' modules go through float32."""
    if isinstance(module, torch.nn.Identity):
        return x
    return torch.nn.functional.layer_norm(x, x.shape[-1:], module.weight, module.bias, module.eps)


def block64(block, x, text, projection, rotary):
    """A block written out in float64: its output and what a run keeps of it."""
    shift, scale, gate, c_shift, c_scale, c_gate = (block.scale_shift_table + projection).unbind(1)
    after_self = x + gate * block.attn1(norm64(x, block.norm1) * (1 + scale) + shift, None, None, rotary)
    after_cross = after_self + block.attn2(norm64(after_self, block.norm2), text, None, None)
    normed = norm64(after_cross, block.norm3) * (1 + c_scale) + c_shift
    neurons = torch.nn.functional.gelu(block.ffn.net[0].proj(normed), approximate="tanh")
    y = after_cross + c_gate * (neurons @ block.ffn.net[2].weight.T + block.ffn.net[2].bias)
    return y, block.attn1.processor.found | block.attn2.processor.found | {
        "block/residual_norm": (y - x).norm(),
        "block/input_norm": x.norm(),
        "block/cosine": (x * y).sum() / (x.norm() * y.norm()),
        "block/self_norm": (after_self - x).norm(),
        "block/cross_norm": (after_cross - after_self).norm(),
        "block/ffn_norm": (y - after_cross).norm(),
        "ffn/activation": neurons[0].mean(0),
        "ffn/activation_square": neurons[0].pow(2).mean(0),
    }


def float64_reference(transformer, given, num_frames):
    """Every statistic and moment of every block from a float64 copy of the model with everything written out."""
    model = copy.deepcopy(transformer).double()
    found = {}
    for block in model.blocks:
        block.attn1.set_processor(Float64Processor("self", num_frames))
        block.attn2.set_processor(Float64Processor("cross", num_frames))
    rotary = model.rope(given["hidden_states"])
    doubled = {name: value.double() if torch.is_tensor(value) else value for name, value in given.items()}
    x = model.patch_embedding(doubled["hidden_states"]).flatten(2).transpose(1, 2)
    _, projection, text, image = model.condition_embedder(
        doubled["timestep"], doubled["encoder_hidden_states"], doubled.get("encoder_hidden_states_image")
    )
    text = text if image is None else torch.cat([image, text], 1)
    for block in model.blocks:
        x, statistics = block64(block, x, text, projection.unflatten(1, (6, -1)), rotary)
        for name, value in statistics.items():
            found.setdefault(name, []).append(value)
    return {name: torch.stack(values).numpy() for name, values in found.items()}


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


EVERYTHING = CaptureSpec(tuple(STATISTICS))


@pytest.mark.parametrize("image", [False, True])
@pytest.mark.parametrize("cross_norm", [False, True])
@pytest.mark.parametrize("frames", [1, 3, 5, 70])
def test_every_statistic_and_moment_matches_float64_written_out(image, cross_norm, frames):
    config = {"cross_attn_norm": cross_norm, "rope_max_seq_len": 128}
    transformer = image_transformer(**config) if image else tiny_transformer(**config)
    given = inputs(channels=10 if image else 4, frames=frames, image=image)
    with torch.no_grad(), capture(transformer, EVERYTHING) as recorder:
        transformer(**given)
    with torch.no_grad():
        expected = float64_reference(transformer, given, frames)
    (only,) = recorder.take()
    moments = recorder.take_moments()
    assert not set(only.arrays) & set(moments)
    found = only.arrays | moments
    assert set(found) == set(expected)
    assert len(only.arrays) == (20 if image else 19) and len(moments) == (9 if image else 8)
    for name, values in expected.items():
        half = name == "self/frame_map"
        assert found[name].shape == values.shape and found[name].dtype == (np.float16 if half else np.float32)
        if name.endswith("_error") and frames == 70:
            # One row a frame: the spread inside a frame is not known, that of all rows stands in for it.
            assert (found[name] > 0).all()
            continue
        close = {"rtol": 6e-4, "atol": 1e-6} if half else {"rtol": 3e-5, "atol": 3e-6}
        np.testing.assert_allclose(found[name], values, err_msg=name, **close)
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
        for name, values in output_weight_norms(reference.transformer).items():
            np.testing.assert_array_equal(output_weight_norms(transformer)[name], values)
        assert transformer.blocks[0].attn1.to_out[0].weight.is_meta
    with pytest.raises(InputError, match="not loaded"):
        output_weight_norms(tiny_transformer().to("meta"))
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
    maps = arrays.pop("self/frame_map")
    assert maps.shape == (3, len(branches), BLOCKS, HEADS, 5, 5) and np.isnan(maps[:, 1:]).all()
    assert not any(np.isnan(values).any() for values in (*arrays.values(), maps[:, 0]))
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
    with torch.no_grad(), capture(transformer, CaptureSpec(("cross/value_norm",), moments=False)) as recorder:
        transformer(**inputs())
    (only,) = recorder.take()
    assert set(only.arrays) == {"cross/value_norm"} and recorder.take_moments() == {} and recorder.kernels == set()
    with pytest.raises(InputError, match="self/ratio"):
        CaptureSpec(("self/rato",))


@pytest.mark.parametrize("kind", ["self", "cross"])
def test_a_lora_is_part_of_what_runs(kind):
    """The energy of a head and its output norm are those of the weight with its adapter, as the merged model has it."""
    from peft import LoraConfig

    def measured(model):
        with torch.no_grad(), capture(model, CaptureSpec(("self/projected_energy", "cross/projected_energy"))) as found:
            model(**inputs())
        return found.take()[0].arrays[f"{kind}/projected_energy"], output_weight_norms(model)[
            f"{kind}/output_weight_norm"
        ]

    transformer = tiny_transformer()
    without = measured(transformer)
    transformer.add_adapter(LoraConfig(r=2, lora_alpha=8, target_modules=["to_out.0"], init_lora_weights=False))
    adapted = measured(transformer)
    transformer.fuse_lora()
    for plain, added, fused in zip(without, adapted, measured(transformer), strict=True):
        np.testing.assert_allclose(added, fused, rtol=1e-5)
        assert abs(added / plain - 1).max() > 0.01


def test_the_seed_draws_the_rows():
    transformer = tiny_transformer()
    found = []
    for seed in (0, 0, 1):
        spec = CaptureSpec(("self/entropy",), moments=False, rows=10, seed=seed)
        with torch.no_grad(), capture(transformer, spec) as recorder:
            transformer(**inputs())
        found.append(recorder.take()[0].arrays["self/entropy"])
    np.testing.assert_array_equal(found[0], found[1])
    assert (found[0] != found[2]).any()


def test_moments_are_means_over_passes_in_their_order():
    transformer, each, seeds = tiny_transformer(), [], range(3)
    with torch.no_grad(), capture(transformer) as recorder:
        for seed in seeds:
            transformer(**inputs(seed=seed))
            each.append(recorder.take_moments())
        for seed in seeds:
            transformer(**inputs(seed=seed))
    means = recorder.take_moments()
    assert recorder.take_moments() == {} and set(means) == set(each[0])
    for name, values in means.items():
        apart = [one[name] for one in each]
        assert (apart[0] != apart[1]).any() and values.dtype == np.float32
        total = apart[0].astype(np.float64) + apart[1] + apart[2]
        np.testing.assert_array_equal(values, (total / 3).astype(np.float32))


def held_bytes(value):
    """Bytes of all arrays and tensors that a recorder keeps, the model's own left out."""
    if isinstance(value, np.ndarray | torch.Tensor):
        return value.nbytes
    if isinstance(value, torch.nn.Module) or callable(value):
        return 0
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return sum(map(held_bytes, [*inside, *getattr(value, "__dict__", {}).values()]))


def test_memory_held_for_moments_is_the_same_after_4_and_after_40_passes():
    transformer, given, held = tiny_transformer(num_layers=1), inputs(frames=1), {}
    with torch.no_grad(), capture(transformer, CaptureSpec(moments=True)) as recorder:
        for number in range(1, 41):
            transformer(**given)
            held[number] = held_bytes(recorder)
    (one, *_) = passes = recorder.take()
    assert len(passes) == 40
    # The statistics of every pass stay until the sample's file is written: what a run is for.
    of_one_pass = held_bytes(one)
    assert held[40] - held[4] == 36 * of_one_pass
    assert 0 < held[4] - 4 * of_one_pass == held[40] - 40 * of_one_pass


def test_gates_do_not_reach_what_is_measured_of_a_head_or_neuron_in_their_own_block():
    from pare.gates import Gates, gated

    transformer = tiny_transformer(num_layers=1)
    gates = Gates(self_heads=torch.ones(1, HEADS), neurons=torch.zeros(1, 32))
    found = []
    with torch.no_grad():
        with capture(transformer) as recorder:
            transformer(**inputs())
            found.append((recorder.take()[0].arrays, recorder.take_moments()))
            with gated(transformer, gates):
                transformer(**inputs())
            found.append((recorder.take()[0].arrays, recorder.take_moments()))
        with gated(transformer, gates), capture(transformer) as recorder:
            transformer(**inputs())
        found.append((recorder.take()[0].arrays, recorder.take_moments()))
    (plain, activations), *gated_ones = found
    for arrays, moments in gated_ones:
        np.testing.assert_array_equal(moments["ffn/activation"], activations["ffn/activation"])
        # Only the bias of the second layer is left.
        assert arrays["block/ffn_norm"][0] < plain["block/ffn_norm"][0]


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


def largest_tensor(frames, context):
    transformer = tiny_transformer(num_layers=1)
    given = inputs() | {"hidden_states": torch.randn(1, 4, frames, 32, 32)}
    with torch.no_grad(), context(transformer), LargestTensor() as watch:
        transformer(**given)
    return watch.largest


def test_no_tensor_is_larger_than_without_capture():
    plain = largest_tensor(12, nullcontext)
    assert largest_tensor(12, lambda model: capture(model, CaptureSpec(BASIC, moments=False))) == plain < 3072 * 3072


def test_with_everything_the_largest_tensor_is_rows_by_tokens():
    """64 rows of one head at a time; wider models than this one of 48 have larger tensors of their own."""
    sizes = [largest_tensor(frames, lambda model: capture(model, EVERYTHING)) for frames in (12, 24)]
    assert sizes[0] <= 64 * 3072 and sizes[1] <= 64 * 6144
