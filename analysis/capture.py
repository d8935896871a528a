"""Measure heads and blocks while a Wan transformer runs, without changing what it computes.

Hooks on every attention module say whose attention is running; a `TorchFunctionMode` sees the one call of
`scaled_dot_product_attention` that follows, after norm, rotary embedding, LoRA and fusion, and runs the same fused
kernel in the form that also returns the log-sum-exp. Its output is the model's own, bit for bit.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from analysis.capture_spec import CaptureSpec
from analysis.catalogue import GROUPS
from analysis.measured_pass import Pass, stack_passes
from analysis.places import Places
from analysis.projection import output_weight
from analysis.recorder import Recorder
from pare.errors import InputError
from pare.passes import Around, ForwardPass, around_each_pass, wan_transformer

__all__ = ["CaptureSpec", "Pass", "Recorder", "capture", "output_weight_norms", "stack_passes"]


@contextmanager
def capture(model: Any, spec: CaptureSpec | None = None) -> Iterator[Recorder]:
    """Measure every forward of a Wan pipeline's transformer (or a Wan transformer) inside the block.

    Yields a `Recorder`. Outputs are the same bits as without; no hook stays after a normal end, an exception or
    Ctrl-C. The guidance branch and, where announced, the step come from diffusers' `cache_context`, which its
    pipelines set around every forward; a forward outside of one counts as `cond`. One sample at a time.

    Heads and neurons of a pruned model stand at their places in its base model, and what it lacks is NaN.

    Raises InputError for compiled blocks, context parallelism, and a model that is no Wan transformer.
    """
    transformer = _transformer(model)
    recorder = Recorder(transformer, spec or CaptureSpec())
    with ExitStack() as stack:
        passes = stack.enter_context(around_each_pass(transformer, _measuring(recorder), "capture"))
        recorder.restart = passes.restart
        for index, block in enumerate(transformer.blocks):
            for kind, attention in (("self", block.attn1), ("cross", block.attn2)):
                _hook(stack, attention.register_forward_pre_hook, _entering(recorder, kind, index))
                _hook(stack, attention.register_forward_hook, _leaving(recorder), with_kwargs=True, always_call=True)
            _hook(stack, block.register_forward_hook, _leaving_block(recorder, index), with_kwargs=True)
            if recorder.names & set(GROUPS["parts"]):
                # The norms are called even where they are identities; their input is the residual stream.
                _hook(stack, block.register_forward_pre_hook, _entering_block(recorder), with_kwargs=True)
                for part, norm in (("self", block.norm2), ("cross", block.norm3)):
                    _hook(stack, norm.register_forward_pre_hook, _inside_block(recorder, part, index))
            if recorder.moments:
                _measure_inputs(stack, recorder, index, block)
        yield recorder


def output_weight_norms(transformer: Any) -> dict[str, np.ndarray]:
    """‖W_O^{i,j}‖_F of every head's slice of the output projections: {kind/output_weight_norm: [block, head]}.

    NaN for heads that a pruned model no longer has.
    """
    norms, places = {}, Places(transformer.config)
    for kind, name in (("self", "attn1"), ("cross", "attn2")):
        rows = [
            torch.linalg.vector_norm(output_weight(getattr(block, name)), dim=(1, 2), dtype=torch.float32)
            for block in transformer.blocks
        ]
        placed = [places.put(kind, index, row).cpu().numpy() for index, row in enumerate(rows)]
        norms[f"{kind}/output_weight_norm"] = np.stack(placed)
    return norms


def _measuring(recorder: Recorder) -> Around:
    @contextmanager
    def around(this: ForwardPass, given: Mapping[str, Any]) -> Iterator[None]:
        with recorder.forward(this, given["hidden_states"]), _AttentionCalls(recorder):
            yield

    return around


class _AttentionCalls(TorchFunctionMode):
    def __init__(self, recorder: Recorder):
        super().__init__()
        self.recorder = recorder

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is scaled_dot_product_attention:
            return self.recorder.attend(func, *args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _hook(stack: ExitStack, register: Callable[..., Any], function: Callable[..., None], **how: Any) -> None:
    stack.callback(register(function, **how).remove)


def _entering(recorder: Recorder, kind: str, block: int) -> Callable[..., None]:
    return lambda module, args: recorder.enter_attention(kind, block, module.processor)


def _leaving(recorder: Recorder) -> Callable[..., None]:
    return lambda module, args, kwargs, output: recorder.leave_attention(module, args, kwargs, output)


def _leaving_block(recorder: Recorder, block: int) -> Callable[..., None]:
    return lambda module, args, kwargs, output: recorder.leave_block(
        block, args[0] if args else kwargs["hidden_states"], output
    )


def _entering_block(recorder: Recorder) -> Callable[..., None]:
    return lambda module, args, kwargs: recorder.enter_block(args[0] if args else kwargs["hidden_states"])


def _inside_block(recorder: Recorder, part: str, block: int) -> Callable[..., None]:
    return lambda module, args: recorder.inside_block(part, block, args[0])


def _measure_inputs(stack: ExitStack, recorder: Recorder, index: int, block: Any) -> None:
    """Hooks for the moments: on the query and key norms, and on the second linear layer of the feed-forward network."""
    for kind, attention in (("self", block.attn1), ("cross", block.attn2)):
        for part in ("query", "key", "added_key"):
            norm = getattr(attention, {"query": "norm_q", "key": "norm_k"}.get(part, "norm_added_k"), None)
            if norm is not None and f"{kind}/{part}_square" in recorder.moments:
                # Students may keep all queries and keys, of which attention then takes some.
                heads = getattr(attention, "query_heads", attention.heads)
                hook = _entering_norm(recorder, f"{kind}/{part}_square", index, heads)
                _hook(stack, norm.register_forward_pre_hook, hook)
    # First in line: what gates do to the activations comes after.
    entering = _entering_second_linear(recorder, index)
    _hook(stack, block.ffn.net[2].register_forward_pre_hook, entering, prepend=True)


def _entering_norm(recorder: Recorder, name: str, block: int, heads: int) -> Callable[..., None]:
    return lambda module, args: recorder.enter_norm(name, block, heads, args[0])


def _entering_second_linear(recorder: Recorder, block: int) -> Callable[..., None]:
    return lambda module, args: recorder.enter_second_linear(block, args[0])


def _transformer(model: Any) -> Any:
    transformer = wan_transformer(model, "capture")
    if getattr(transformer, "_parallel_config", None) is not None:
        raise InputError(
            "capture",
            got="context or tensor parallelism, one forward spread over several devices",
            expected="a forward on one device",
            fix="capture before enable_parallelism(), or let several processes share the samples (accelerate launch)",
        )
    return transformer
