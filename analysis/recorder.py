"""The numbers of every forward: what the hooks of `analysis.capture` hand over, and how it is computed."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from diffusers.hooks.hooks import BaseState, StateManager
from diffusers.models.attention_dispatch import AttentionBackendName
from einops import reduce

from analysis.attention import (
    chunked_log_sum_exp,
    fused_kernel,
    mean_entropy,
    own_frame_share,
    run_kernel,
)
from analysis.capture_spec import CaptureSpec
from analysis.catalogue import BLOCK_STATISTICS, FRAME_MAP, ROW_STATISTICS
from analysis.measured_pass import Pass
from analysis.projection import output_weight, projected_energy
from analysis.residual import change
from analysis.rows import row_attention, row_statistics, sample_rows
from analysis.token_means import token_means
from pare.errors import InputError


class Recorder:
    """Collects one `Pass` per forward; `take` hands them over and starts a new sample."""

    def __init__(self, transformer: Any, spec: CaptureSpec):
        self.transformer, self.spec = transformer, spec
        image = transformer.blocks[0].attn2.add_k_proj is not None
        self.names, self.moments = frozenset(spec.present(image)), frozenset(spec.present_moments(image))
        self.passes: list[Pass] = []
        self.kernels: set[str] = set()
        self.extra_calls = 0
        # Diffusers tells the guidance branch to hooks that hold a StateManager; only its context is used here.
        self.context = StateManager(BaseState)
        self._running: Pass | None = None
        self._found: dict[str, dict[int, torch.Tensor]] = {}
        self._attention: tuple[str, int] | None = None
        self._calls = 0
        self._image_output: torch.Tensor | None = None
        self._stream: torch.Tensor | None = None
        self._rows: dict[tuple[int, int], torch.Tensor] = {}
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
            self._running = self._attention = self._image_output = self._stream = None

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
        self._found = {}

    def _end(self) -> None:
        assert self._running is not None
        blocks, heads = len(self.transformer.blocks), self.transformer.blocks[0].attn1.heads
        for name in (*self.names, *self.moments, *(f"{name}_error" for name in self.names & set(ROW_STATISTICS))):
            found = self._found.get(name, {})
            if name == FRAME_MAP and not found:
                continue
            shape = next((value.shape for value in found.values()), () if name in BLOCK_STATISTICS else (heads,))
            values = np.full((blocks, *shape), np.nan, np.float16 if name == FRAME_MAP else np.float32)
            if found:
                # One transfer for all blocks, which may be on several devices.
                device = next(iter(found.values())).device
                values[list(found)] = torch.stack([each.to(device).float() for each in found.values()]).cpu().numpy()
            (self._running.moments if name in self.moments else self._running.arrays)[name] = values
        self.passes.append(self._running)

    def enter_attention(self, kind: str, block: int) -> None:
        """Called before an attention module runs."""
        self._attention, self._calls, self._image_output = (kind, block), 0, None

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
            self._attention = self._image_output = None

    def enter_norm(self, name: str, block: int, heads: int, values: torch.Tensor) -> None:
        """Called with what goes into a query or key norm [1, tokens, heads·head_dim]: the mean square of every head."""
        if self._running is not None:
            with torch.no_grad():
                squares = token_means(values.detach().flatten(0, -2)).square
                self._keep(name, block, reduce(squares, "(head dim) -> head", "mean", head=heads))

    def enter_second_linear(self, block: int, values: torch.Tensor) -> None:
        """Called with the feed-forward activations [1, tokens, neurons]: the mean and mean square of every neuron."""
        if self._running is not None:
            with torch.no_grad():
                mean, square = token_means(values.detach().flatten(0, -2))
                self._keep("ffn/activation", block, mean)
                self._keep("ffn/activation_square", block, square)

    def enter_block(self, values: torch.Tensor) -> None:
        """Called with the residual stream [1, tokens, width] that goes into a block."""
        if self._running is not None:
            self._stream = values.detach()

    def inside_block(self, part: str, block: int, values: torch.Tensor) -> None:
        """Called with the residual stream after one `part` of a block; blocks hand it over in float32."""
        if self._running is not None and self._stream is not None:
            with torch.no_grad():
                # The cast brings back what the stream holds, and keeps no float32 copy of it alive.
                now = values.detach().to(self._stream.dtype)
                self._keep(f"block/{part}_norm", block, change(self._stream, now).residual_norm)
                self._stream = now

    def leave_block(self, block: int, before: torch.Tensor, after: torch.Tensor) -> None:
        """Called after a block ran: norms of its input and of what it adds."""
        if self._running is not None and self.names & set(BLOCK_STATISTICS):
            self.inside_block("ffn", block, after)
            with torch.no_grad():
                for name, value in change(before.detach(), after.detach())._asdict().items():
                    self._keep(f"block/{name}", block, value)
            self._stream = None

    def attend(self, call: Callable[..., torch.Tensor], *args: Any, **kwargs: Any) -> torch.Tensor:
        """Stands for one call of `scaled_dot_product_attention` inside an attention module; returns its output."""
        if self._running is None or self._attention is None:
            return call(*args, **kwargs)
        kind, block = self._attention
        query, key, value, plain, scale = _arguments(*args, **kwargs)
        self._calls += 1
        if kind == "cross":
            output = call(*args, **kwargs)
            with torch.no_grad():
                self._cross(block, output.detach())
            return output
        if not plain:
            raise InputError(
                "self-attention", got="a mask, dropout or causal attention", expected="full attention", fix="remove it"
            )
        if not self.names & {"self/ratio", "self/entropy_exact"}:
            output, lse_all = call(*args, **kwargs), None
        else:
            output, lse_all = self._with_lse(call, args, kwargs, query, key, value, scale)
        with torch.no_grad():
            if lse_all is not None:
                lse_all = lse_all.detach()
            self._self(block, query.detach(), key.detach(), output.detach(), lse_all, scale)
        return output

    def _self(
        self,
        block: int,
        query: torch.Tensor,
        key: torch.Tensor,
        output: torch.Tensor,
        lse_all: torch.Tensor | None,
        scale: float | None,
    ) -> None:
        assert self._running is not None
        frames = self._running.num_frames
        if lse_all is not None and "self/ratio" in self.names:
            self._keep("self/ratio", block, own_frame_share(query, key, lse_all, frames, scale)[0])
        if lse_all is not None and "self/entropy_exact" in self.names:
            self._keep("self/entropy_exact", block, mean_entropy(query, key, lse_all, scale)[0])
        keeps_map = self.spec.keeps_map(self._running.step, self._running.branch)
        if keeps_map or self.names & set(ROW_STATISTICS):
            lengths = (frames, query.shape[2] // frames)
            if lengths not in self._rows:
                self._rows[lengths] = sample_rows(*lengths, self.spec.rows, self.spec.seed)
            found = row_statistics(row_attention(query, key, self._rows[lengths], scale), lengths[1])
            for name, value in found.items():
                if name != FRAME_MAP or keeps_map:
                    self._keep(name, block, value)
        self._keep("self/value_norm", block, _head_norms(output))
        self._projected("self", block, output)

    def _cross(self, block: int, output: torch.Tensor) -> None:
        # Image keys and values come first where there are any, then the text.
        if self._calls == 1 and self.transformer.blocks[block].attn2.add_k_proj is not None:
            self._keep("cross/image_value_norm", block, _head_norms(output))
            self._image_output = output
            return
        self._keep("cross/value_norm", block, _head_norms(output))
        self._projected("cross", block, output if self._image_output is None else self._image_output + output)
        self._image_output = None

    def _projected(self, kind: str, block: int, output: torch.Tensor) -> None:
        """What enters the output projection, [1, heads, tokens, head_dim]."""
        if f"{kind}/output" in self.moments:
            self._keep(f"{kind}/output", block, output[0].mean(dim=1, dtype=torch.float32))
        if f"{kind}/projected_energy" in self.names:
            attention = getattr(self.transformer.blocks[block], "attn1" if kind == "self" else "attn2")
            self._keep(f"{kind}/projected_energy", block, projected_energy(output[0], output_weight(attention)))

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
        if name.removesuffix("_error") in self.names or name in self.moments:
            self._found.setdefault(name, {})[block] = value

    def _step(self, announced: int | None, timestep: float, branch: str) -> int:
        if announced is not None:
            return announced
        if not self.passes:
            return 0
        # Not every pipeline announces the step: a new one begins with another timestep, or when a branch comes again.
        last = self.passes[-1]
        again = any(each.step == last.step and each.branch == branch for each in self.passes)
        return last.step + 1 if again or last.timestep != timestep else last.step


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
