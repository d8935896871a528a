"""Attention by xformers, with stand-ins for its two functions: no CUDA device is needed to see what capture makes of them.

The stand-ins return what xformers 0.0.35 documents and its own `_detect_lse_packed_or_raise` demands: tensors
[batch, tokens, heads, head_dim], a log-sum-exp [batch, heads, queries] that some kernels pad with infinity.
"""

import json
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers.models.attention_dispatch import AttentionBackendName

from analysis.attention_calls import NATIVE_CALL, OWN_CALL, SECOND_CALL, describe_attention
from analysis.capture import CaptureSpec, capture
from analysis.recording import record
from analysis.xformers_lse import log_sum_exp, xformers_attention
from pare.errors import InputError
from pare.models import load_pipeline
from tests.analysis.test_capture import float64_reference, hooks_of, image_transformer, inputs
from tests.analysis.test_recording import make
from tests.tiny import tiny_transformer


class Xformers:
    """Both functions, written out; `off` is what the log-sum-exp form adds to the output, `pad` to what it rounds up."""

    def __init__(self, off=0.0, pad=32, error=None):
        self.off, self.pad, self.error, self.plain, self.with_lse = off, pad, error, 0, 0

    def memory_efficient_attention(self, query, key, value, attn_bias=None, p=0.0, scale=None):
        assert attn_bias is None and p == 0.0
        self.plain += 1
        return self._compute(query, key, value, scale)[0]

    def memory_efficient_attention_forward_requires_grad(
        self, query, key, value, attn_bias=None, p=0.0, scale=None, *, op=None, output_dtype=None
    ):
        if self.error is not None:
            raise self.error
        self.with_lse += 1
        output, lse = self._compute(query.detach(), key.detach(), value.detach(), scale)
        more = -lse.shape[-1] % self.pad
        return output + self.off, torch.nn.functional.pad(lse, (0, more), value=float("inf"))

    @staticmethod
    def _compute(query, key, value, scale):
        logits = torch.einsum("bqhd,bkhd->bhqk", query, key) * (scale or query.shape[-1] ** -0.5)
        output = torch.einsum("bhqk,bkhd->bqhd", logits.softmax(-1), value)
        return output.contiguous(), logits.logsumexp(-1).float()


@pytest.fixture
def xformers(monkeypatch):
    """Installs a stand-in where diffusers and where capture look for xformers."""

    def install(**how):
        standin = Xformers(**how)
        module = ModuleType("xformers.ops")
        for name in ("memory_efficient_attention", "memory_efficient_attention_forward_requires_grad"):
            setattr(module, name, getattr(standin, name))
        monkeypatch.setitem(sys.modules, "xformers.ops", module)
        monkeypatch.setattr("diffusers.models.attention_dispatch.xops", SimpleNamespace(**vars(module)))
        return standin

    return install


def with_xformers(transformer):
    for processor in transformer.attn_processors.values():
        processor._attention_backend = AttentionBackendName.XFORMERS
    return transformer


@pytest.mark.parametrize("image", [False, True])
def test_the_log_sum_exp_is_that_of_xformers_own_call(xformers, image):
    transformer = with_xformers(image_transformer() if image else tiny_transformer())
    given, standin = inputs(channels=10 if image else 4, image=image), xformers()
    with torch.no_grad():
        plain = transformer(**given)[0]
        before = hooks_of(transformer)
        standin.plain = 0
        with capture(transformer) as recorder:
            measured = [transformer(**given)[0] for _ in range(2)]
        assert hooks_of(transformer) == before
        expected = float64_reference(transformer, given, 5)
    assert all(torch.equal(plain, each) for each in measured)
    # One more call for the comparison of bits, at the first shape that is seen; cross-attention runs as it would.
    assert recorder.kernels == {"xformers"} and recorder.extra_calls == 1
    assert standin.with_lse == 4 and standin.plain == (9 if image else 5)
    for each in recorder.take():
        for name in ("self/ratio", "self/value_norm", "cross/value_norm", "cross/projected_energy"):
            np.testing.assert_allclose(each.arrays[name], expected[name], rtol=3e-5, atol=3e-6, err_msg=name)


def test_where_bits_differ_the_model_keeps_its_own_and_the_extra_calls_are_counted(xformers):
    transformer, given, standin = with_xformers(tiny_transformer()), inputs(), xformers(off=1e-4)
    with torch.no_grad():
        plain = transformer(**given)[0]
        with capture(transformer, CaptureSpec(("self/ratio",), moments=False)) as recorder:
            measured = transformer(**given)[0]
            assert torch.equal(transformer(**given)[0], plain)
        expected = float64_reference(transformer, given, 5)["self/ratio"]
    assert torch.equal(plain, measured) and recorder.extra_calls == standin.with_lse == 4
    np.testing.assert_allclose(recorder.take()[1].arrays["self/ratio"], expected, rtol=2e-5)


def test_gradients_go_through_the_models_own_call(xformers):
    xformers()
    transformer, given = with_xformers(tiny_transformer()), inputs()
    plain = transformer(**given)[0]
    with capture(transformer) as recorder:
        measured = transformer(**given)[0]
    weight = transformer.blocks[0].attn1.to_q.weight
    (first,), (second,) = (torch.autograd.grad(each.sum(), weight) for each in (plain, measured))
    assert torch.equal(plain, measured) and torch.equal(first, second) and recorder.extra_calls == 2


@pytest.mark.parametrize(
    ("error", "raised"), [(KeyboardInterrupt(), KeyboardInterrupt), (NotImplementedError(), InputError)]
)
def test_the_backend_is_as_it_was_after_an_error(xformers, error, raised):
    transformer, given = with_xformers(tiny_transformer()), inputs()
    xformers(error=error)
    before = hooks_of(transformer)
    with torch.no_grad(), pytest.raises(raised), capture(transformer):
        transformer(**given)
    assert hooks_of(transformer) == before


def test_the_layout_of_the_log_sum_exp(xformers):
    xformers(pad=48)
    query, key, value = torch.randn(3, 2, 4, 20, 8, generator=torch.Generator().manual_seed(0))
    output, lse = xformers_attention(query, key, value)
    logits = query.double() @ key.double().mT / 8**0.5
    torch.testing.assert_close(lse.double(), logits.logsumexp(-1), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(output.double(), logits.softmax(-1) @ value.double(), rtol=1e-5, atol=1e-5)
    # Heads behind tokens, packed variable lengths, too short.
    for wrong in ((2, 20, 4), (4, 40), (2, 4, 19), (1, 4, 20)):
        with pytest.raises(InputError, match="--attention native"):
            log_sum_exp(torch.zeros(wrong), query.shape)


def test_the_manifest_says_where_the_log_sum_exp_comes_from(xformers):
    shape = {"heads": 4, "head_dim": 12, "tokens": 80, "device": torch.device("cpu")}
    transformer = tiny_transformer()
    assert describe_attention(transformer, **shape) == {
        "backend": "native", "kernel": "flash_cpu", "log_sum_exp": OWN_CALL, "dtype": "float32",
    }  # fmt: skip
    for off, source in ((0.0, OWN_CALL), (1e-3, SECOND_CALL)):
        xformers(off=off)
        found = describe_attention(with_xformers(transformer), **shape)
        assert (found["backend"], found["kernel"], found["log_sum_exp"]) == ("xformers", "xformers", source)
    for processor in transformer.attn_processors.values():
        processor._attention_backend = AttentionBackendName.FLEX
    assert describe_attention(transformer, **shape)["log_sum_exp"] == NATIVE_CALL


def test_a_run_says_what_it_paid(xformers, tiny_folder, tmp_path):
    pipe = load_pipeline(str(tiny_folder), device="cpu")
    with_xformers(pipe.transformer)
    xformers(off=1e-3)
    run = record(pipe, make(tiny_folder, pipe, samples=1), tmp_path / "run")
    assert run.manifest.attention["log_sum_exp"] == SECOND_CALL
    events = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
    # 10 timesteps of two blocks.
    assert [each["extra_calls"] for each in events if each["event"] == "sample"] == [20]
