"""The numbers of every forward: what the hooks of `analysis.capture` hand over, and how it is computed."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from diffusers.hooks.hooks import BaseState, StateManager
from diffusers.models.attention_dispatch import AttentionBackendName

from analysis.attention import chunked_log_sum_exp, frame_log_sum_exp, fused_kernel, ratio_from_lse, run_kernel
from analysis.capture_spec import BLOCK_STATISTICS, HEAD_STATISTICS, CaptureSpec
from pare.errors import InputError


@dataclass
class Pass:
    """What one forward of the transformer gave: float32 [block, head] or [block]; NaN where a block did not run."""

    step: int
    branch: str
    timestep: float
    sigma: float
    num_frames: int
    arrays: dict[str, np.ndarray] = field(default_factory=dict)


class Recorder:
    """Collects one `Pass` per forward; `take` hands them over and starts a new sample."""

    def __init__(self, transformer: Any, spec: CaptureSpec):
        self.transformer, self.spec = transformer, spec
        self.names = spec.present(transformer.blocks[0].attn2.add_k_proj is not None)
        self.passes: list[Pass] = []
        self.kernels: set[str] = set()
        self.extra_calls = 0
        # Diffusers tells the guidance branch to hooks that hold a StateManager; only its context is used here.
        self.context = StateManager(BaseState)
        self._running: Pass | None = None
        self._found: dict[str, dict[int, torch.Tensor]] = {}
        self._attention: tuple[str, int] | None = None
        self._calls = 0
        self._same: dict[tuple[Any, ...], bool] = {}

    def take(self) -> list[Pass]:
        """The passes since the last call, in the order they ran."""
        passes, self.passes = self.passes, []
        return passes

    @contextmanager
    def forward(self, hidden_states: torch.Tensor, timestep: torch.Tensor) -> Iterator[None]:
        """Around one forward; a forward that does not come to its end leaves nothing behind."""
        self._begin(hidden_states, timestep)
        try:
            yield
            self._end()
        finally:
            self._running = self._attention = None

    def _begin(self, hidden_states: torch.Tensor, timestep: torch.Tensor) -> None:
        if hidden_states.shape[0] != 1:
            raise InputError(
                "capture", got=f"a batch of {hidden_states.shape[0]}", expected="one sample", fix="run one at a time"
            )
        try:
            context = self.context.context
        except ValueError:
            context = None
        branch = context.name if context else "cond"
        t = float(timestep.flatten().max())
        self._running = Pass(
            step=self._step(context.step_index if context else None, t, branch),
            branch=branch,
            timestep=t,
            sigma=context.sigma if context and context.sigma is not None else t / 1000,
            num_frames=hidden_states.shape[2] // self.transformer.config.patch_size[0],
        )
        self._found = {name: {} for name in self.names}

    def _end(self) -> None:
        assert self._running is not None
        blocks, heads = len(self.transformer.blocks), self.transformer.blocks[0].attn1.heads
        for name, found in self._found.items():
            values = np.full((blocks, heads) if name in HEAD_STATISTICS else (blocks,), np.nan, np.float32)
            for block, value in found.items():
                values[block] = value.float().cpu().numpy()
            self._running.arrays[name] = values
        self.passes.append(self._running)

    def enter_attention(self, kind: str, block: int) -> None:
        """Called before an attention module runs."""
        self._attention, self._calls = (kind, block), 0

    def leave_attention(
        self, module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: torch.Tensor | None
    ) -> None:
        """Called after it ran (no output: it failed). A backend that bypasses torch's function pays one more call."""
        try:
            if self._running is not None and self._attention is not None and self._calls == 0 and output is not None:
                self.extra_calls += 1
                with torch.no_grad(), _native(module.processor):
                    module.forward(*args, **kwargs)
                if self._calls == 0:
                    raise InputError(
                        "attention",
                        got=f"{type(module.processor).__name__}, which never calls scaled_dot_product_attention",
                        expected="a processor that goes through diffusers' dispatch",
                        fix="transformer.set_attn_processor(WanAttnProcessor())",
                    )
        finally:
            self._attention = None

    def leave_block(self, block: int, before: torch.Tensor, after: torch.Tensor) -> None:
        """Called after a block ran: norms of its input and of what it adds."""
        if self._running is None or not any(name in BLOCK_STATISTICS for name in self.names):
            return
        with torch.no_grad():
            x, y = before.to(after.device).flatten().float(), after.flatten().float()
            norm = torch.linalg.vector_norm
            self._keep("block/residual_norm", block, norm(y - x))
            self._keep("block/input_norm", block, norm(x))
            self._keep("block/cosine", block, torch.dot(x, y) / (norm(x) * norm(y)))

    def attend(self, call: Callable[..., torch.Tensor], *args: Any, **kwargs: Any) -> torch.Tensor:
        """Stands for one call of `scaled_dot_product_attention` inside an attention module; returns its output."""
        if self._running is None or self._attention is None:
            return call(*args, **kwargs)
        kind, block = self._attention
        query, key, value, plain, scale = _arguments(*args, **kwargs)
        self._calls += 1
        if kind == "cross":
            output = call(*args, **kwargs)
            # Image keys and values come first where there are any, then the text.
            first = self._calls == 1 and "cross/image_value_norm" in self.names
            self._keep(f"cross/{'image_' if first else ''}value_norm", block, _head_norms(output))
            return output
        if not plain:
            raise InputError(
                "self-attention", got="a mask, dropout or causal attention", expected="full attention", fix="remove it"
            )
        if "self/ratio" not in self.names:
            output = call(*args, **kwargs)
        else:
            output, lse_all = self._with_lse(call, args, kwargs, query, key, value, scale)
            with torch.no_grad():
                lse_frame = frame_log_sum_exp(query.detach(), key.detach(), self._running.num_frames, scale)
                self._keep("self/ratio", block, ratio_from_lse(lse_frame, lse_all.detach())[0])
        self._keep("self/value_norm", block, _head_norms(output))
        return output

    def _with_lse(
        self,
        call: Callable[..., torch.Tensor],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scale: float | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        kernel = fused_kernel(query, key, value, scale)
        if kernel is None:
            self.kernels.add("chunked")
            with torch.no_grad():
                lse = chunked_log_sum_exp(query, key, scale)
            return call(*args, **kwargs), lse
        self.kernels.add(kernel)
        output, lse = run_kernel(kernel, query, key, value, scale)
        if query.device.type == "cpu":
            return output, lse
        # On the CPU torch calls this very operator. Elsewhere it may set other flags: look once per shape, and where
        # a single bit differs the model keeps its own output and capture pays for a second call.
        shape = (kernel, query.device, query.dtype, query.shape, key.shape, torch.is_grad_enabled())
        if not self._same.get(shape, False):
            own = call(*args, **kwargs)
            self._same[shape] = torch.equal(output, own)
            self.extra_calls += 1
            return own, lse
        return output, lse

    def _keep(self, name: str, block: int, value: torch.Tensor) -> None:
        if name in self._found:
            self._found[name][block] = value

    def _step(self, announced: int | None, timestep: float, branch: str) -> int:
        if announced is not None:
            return announced
        if not self.passes:
            return 0
        # Not every pipeline announces the step: a new one begins with another timestep, or when a branch comes again.
        last = self.passes[-1]
        again = any(each.step == last.step and each.branch == branch for each in self.passes)
        return last.step + 1 if again or last.timestep != timestep else last.step


def stack_passes(passes: list[Pass], steps: int, branches: tuple[str, ...]) -> dict[str, np.ndarray]:
    """One sample's arrays [step, branch, block(, head)] from its passes; NaN where a pass is missing."""
    arrays: dict[str, np.ndarray] = {}
    for each in passes:
        for name, values in each.arrays.items():
            whole = arrays.setdefault(name, np.full((steps, len(branches), *values.shape), np.nan, np.float32))
            whole[each.step, branches.index(each.branch)] = values
    return arrays


@contextmanager
def _native(processor: Any) -> Iterator[None]:
    chosen = processor._attention_backend
    processor._attention_backend = AttentionBackendName.NATIVE
    try:
        yield
    finally:
        processor._attention_backend = chosen


def _arguments(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, bool, float | None]:
    device = query.device.type
    if torch.is_autocast_enabled(device) and query.dtype != torch.float64:
        # Autocast would cast inside the call that the kernel takes the place of.
        query, key, value = (each.to(torch.get_autocast_dtype(device)) for each in (query, key, value))
    return query, key, value, attn_mask is None and dropout_p == 0.0 and not is_causal, scale


def _head_norms(output: torch.Tensor) -> torch.Tensor:
    """‖ṽ‖_F per head of [1, heads, tokens, head_dim], summed in float32."""
    return torch.linalg.vector_norm(output.detach()[0], dim=(1, 2), dtype=torch.float32)
