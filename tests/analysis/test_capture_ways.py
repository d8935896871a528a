"""Capture however the model is loaded and adapted, and what it may cost in memory."""

import os

import numpy as np
import pytest
import torch
from accelerate import dispatch_model
from diffusers import ContextParallelConfig, WanTransformer3DModel
from diffusers.models._modeling_parallel import ParallelConfig
from peft import LoraConfig

from analysis.capture import CaptureSpec, capture, output_weight_norms
from benchmarks.measuring.memory import peak_bytes
from pare.errors import InputError
from tests.analysis.test_capture import EVERYTHING, float64_reference, hooks_of, image_transformer, inputs
from tests.tiny import tiny_transformer

# torch's profiler announces its start and end on standard error unless told not to.
os.environ.setdefault("KINETO_LOG_LEVEL", "99")


def with_everything(transformer, given):
    """Output and statistics of a forward without capture and of one with."""
    with torch.no_grad():
        plain = transformer(**given)[0]
        with capture(transformer, EVERYTHING) as recorder:
            measured = transformer(**given)[0]
    assert torch.equal(plain, measured)
    return recorder.take()[0].arrays | recorder.take_moments()


def peak(frames, side, spec):
    transformer = tiny_transformer(num_layers=1)
    given = inputs() | {"hidden_states": torch.randn(1, 4, frames, side, side)}
    with torch.no_grad(), capture(transformer, spec):
        return peak_bytes(lambda: transformer(**given), torch.device("cpu"))


@pytest.mark.parametrize("sizes", [((12, 32), (24, 32)), ((12, 32), (12, 64))], ids=["frames", "area"])
def test_peak_memory_with_everything_captured_is_linear_in_tokens(sizes):
    """3,072 tokens, then twice or four times as many: a tensor of tokens x tokens would grow by four or sixteen."""
    counts = [frames * (side // 2) ** 2 for frames, side in sizes]
    peaks = [peak(frames, side, EVERYTHING) for frames, side in sizes]
    assert peaks[1] <= 1.05 * counts[1] / counts[0] * peaks[0]
    plain = peak(*sizes[1], CaptureSpec((), moments=False))
    assert peaks[1] <= 1.5 * plain


@pytest.mark.parametrize("place", ["cpu", "disk"])
def test_under_a_device_map(place, tiny_folder, tmp_path):
    """Accelerate's hooks stand around every module; on disk the weights come and go with it."""
    folder, given = tiny_folder / "transformer", inputs()
    reference = with_everything(WanTransformer3DModel.from_pretrained(folder).eval(), given)
    if place == "cpu":
        mapped = WanTransformer3DModel.from_pretrained(folder, device_map={"": "cpu"}).eval()
    else:
        model = WanTransformer3DModel.from_pretrained(folder).eval()
        # The last block's weights on disk, all other modules and the one parameter beside them in memory.
        places = {name: "cpu" for name, _ in model.named_children() if name != "blocks"}
        places |= {"scale_shift_table": "cpu", "blocks.0": "cpu", "blocks.1": "disk"}
        mapped = dispatch_model(model, places, main_device="cpu", offload_dir=str(tmp_path), force_hooks=True)
        assert mapped.blocks[1].attn1.to_q.weight.is_meta
    before = hooks_of(mapped)
    for name, values in with_everything(mapped, given).items():
        np.testing.assert_array_equal(values, reference[name], err_msg=name)
    assert hooks_of(mapped) == before
    norms = output_weight_norms(WanTransformer3DModel.from_pretrained(folder))
    for name, values in output_weight_norms(mapped).items():
        np.testing.assert_array_equal(values, norms[name])


@pytest.mark.parametrize("image", [False, True])
def test_with_a_lora_on_queries_keys_and_values(image):
    transformer = image_transformer() if image else tiny_transformer()
    given = inputs(channels=10 if image else 4, image=image)
    without = with_everything(transformer, given)
    targets = ["to_q", "to_k", "to_v", *(["add_k_proj", "add_v_proj"] if image else [])]
    torch.manual_seed(0)
    transformer.add_adapter(LoraConfig(r=2, lora_alpha=16, target_modules=targets, init_lora_weights=False))
    found = with_everything(transformer, given)
    transformer.fuse_lora()
    with torch.no_grad():
        expected = float64_reference(transformer, given, 5)
    changed = ["self/ratio", "self/value_norm", "cross/value_norm", "self/query_square", "cross/key_square"]
    changed += ["cross/image_value_norm", "cross/added_key_square"] if image else []
    for name in changed:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-4, err_msg=name)
        assert abs(found[name] / without[name] - 1).max() > 1e-3, name


def test_context_parallelism_is_refused_in_one_line():
    transformer = tiny_transformer()
    before = hooks_of(transformer)
    # As `enable_parallelism` records it, which itself wants a group of processes.
    transformer._parallel_config = ParallelConfig(context_parallel_config=ContextParallelConfig(ulysses_degree=2))
    with pytest.raises(InputError, match=r"context .* parallelism.*accelerate launch") as refused, capture(transformer):
        pass
    assert "\n" not in str(refused.value) and hooks_of(transformer) == before
