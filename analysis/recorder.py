"""The numbers of every forward: what the hooks of `analysis.capture` hand over, and how it is computed."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from diffusers.models.attention_dispatch import AttentionBackendName
from einops import reduce

from analysis.attention import mean_entropy, own_frame_share
from analysis.attention_calls import AttentionCall, LogSumExps, attention_call, backend_of, native_backend
from analysis.capture_spec import CaptureSpec
from analysis.catalogue import BLOCK_STATISTICS, FRAME_MAP, ROW_STATISTICS
from analysis.measured_pass import Pass
from analysis.moments import MeanOfPasses
from analysis.places import Places
from analysis.projection import output_weight, projected_energy
from analysis.residual import change
from analysis.rows import row_attention, row_statistics, sample_rows
from analysis.token_means import token_means
from pare.attention import TEXT_TOKENS
from pare.errors import InputError
from pare.passes import ForwardPass


class Recorder:
    """Collects one `Pass` per forward and running means of the moments; `take` and `take_moments` hand them over."""

    def __init__(self, transformer: Any, spec: CaptureSpec):
        self.transformer, self.spec = transformer, spec
        image = transformer.blocks[0].attn2.add_k_proj is not None
        self.names, self.moments = frozenset(spec.present(image)), frozenset(spec.present_moments(image))
        self._places = Places(transformer.config)
        self.passes: list[Pass] = []
        # Of a new sample the pass counter wants to know.
        self.restart: Callable[[], None] | None = None
        self._means = MeanOfPasses()
        self._calls = LogSumExps()
        self._running: Pass | None = None
        self._found: dict[str, dict[int, torch.Tensor]] = {}
        self._attention: _Module | None = None
        self._stream: torch.Tensor | None = None
        self._rows: dict[tuple[int, int], torch.Tensor] = {}

    @property
    def kernels(self) -> set[str]:
        """The kernels that gave log-sum-exps."""
        return self._calls.kernels

    @property
    def extra_calls(self) -> int:
        """Attention calls that the model did not ask for."""
        return self._calls.extra_calls

    def take(self) -> list[Pass]:
        """The passes since the last call, in the order they ran; steps that nobody announces are counted anew."""
        passes, self.passes = self.passes, []
        if self.restart is not None:
            self.restart()
        return passes

    def take_moments(self) -> dict[str, np.ndarray]:
        """The moments since the last call: means over tokens and forwards, float32, first axis block, by name."""
        means, self._means = self._means, MeanOfPasses()
        return means.arrays()

    @contextmanager
    def forward(self, this: ForwardPass, hidden_states: torch.Tensor) -> Iterator[None]:
        """Around one forward; a forward that does not come to its end leaves nothing behind."""
        if hidden_states.shape[0] != 1:
            raise InputError(
                "capture", got=f"a batch of {hidden_states.shape[0]}", expected="one sample", fix="run one at a time"
            )
        sigma = this.timestep / 1000 if this.sigma is None else this.sigma
        num_frames = hidden_states.shape[2] // self.transformer.config.patch_size[0]
        self._running, self._found = Pass(this.step, this.branch, this.timestep, sigma, num_frames), {}
        try:
            yield
            self._end()
        finally:
            self._leave()
            self._running = self._stream = None
            self._found = {}

    def _end(self) -> None:
        assert self._running is not None
        moments: dict[str, np.ndarray] = {}
        blocks, heads = len(self.transformer.blocks), self._places.units("self")
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
            (moments if name in self.moments else self._running.arrays)[name] = values
        self._means.add(moments)
        self.passes.append(self._running)

    def enter_attention(self, kind: str, block: int, processor: Any) -> None:
        """Called before an attention module runs. xformers' calls are sent here through torch's own function."""
        if self._running is None:
            return
        self._leave()
        self._attention = _Module(kind, block, backend_of(processor) is AttentionBackendName.XFORMERS)
        if self._attention.xformers:
            self._attention.stack.enter_context(native_backend(processor))

    def leave_attention(
        self, module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: torch.Tensor | None
    ) -> None:
        """Called after it ran (no output: it failed). A backend that bypasses torch's function pays one more call."""
        running = self._attention
        try:
            if running is not None and running.calls == 0 and output is not None:
                self._calls.extra_calls += 1
                with torch.no_grad(), native_backend(module.processor):
                    module.forward(*args, **kwargs)
                if running.calls == 0:
                    raise InputError(
                        "attention",
                        got=f"{type(module.processor).__name__}, which never calls scaled_dot_product_attention",
                        expected="a processor that goes through diffusers' dispatch",
                        fix="transformer.set_attn_processor(WanAttnProcessor())",
                    )
        finally:
            self._leave()

    def _leave(self) -> None:
        if self._attention is not None:
            self._attention.stack.close()
        self._attention = None

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
        module = self._attention
        if self._running is None or module is None:
            return call(*args, **kwargs)
        seen = attention_call(call, module.xformers, *args, **kwargs)
        module.calls += 1
        if module.kind == "cross":
            output, lse_all = seen.own(), None
        elif not seen.plain:
            raise InputError(
                "self-attention", got="a mask, dropout or causal attention", expected="full attention", fix="remove it"
            )
        elif self.names & {"self/ratio", "self/entropy_exact"}:
            output, lse_all = self._calls.attend(seen)
        else:
            output, lse_all = seen.own(), None
        with torch.no_grad():
            if module.kind == "cross":
                self._cross(module, seen.key.shape[2], output.detach())
            else:
                self._self(module.block, seen, output.detach(), None if lse_all is None else lse_all.detach())
        return output

    def _self(self, block: int, call: AttentionCall, output: torch.Tensor, lse_all: torch.Tensor | None) -> None:
        assert self._running is not None
        frames, scale = self._running.num_frames, call.scale
        query, key = call.query.detach(), call.key.detach()
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

    def _cross(self, module: "_Module", keys: int, output: torch.Tensor) -> None:
        added = self.transformer.blocks[module.block].attn2.add_k_proj is not None
        # With image keys, in either order, diffusers leaves exactly so many for the text.
        image = added and keys != TEXT_TOKENS
        self._keep("cross/image_value_norm" if image else "cross/value_norm", module.block, _head_norms(output))
        if added and module.other_output is None:
            module.other_output = output
            return
        whole = output if module.other_output is None else module.other_output + output
        self._projected("cross", module.block, whole)
        module.other_output = None

    def _projected(self, kind: str, block: int, output: torch.Tensor) -> None:
        """What enters the output projection, [1, heads, tokens, head_dim]."""
        if f"{kind}/output" in self.moments:
            self._keep(f"{kind}/output", block, output[0].mean(dim=1, dtype=torch.float32))
        if f"{kind}/projected_energy" in self.names:
            attention = getattr(self.transformer.blocks[block], "attn1" if kind == "self" else "attn2")
            self._keep(f"{kind}/projected_energy", block, projected_energy(output[0], output_weight(attention)))

    def _keep(self, name: str, block: int, value: torch.Tensor) -> None:
        if name.removesuffix("_error") in self.names or name in self.moments:
            self._found.setdefault(name, {})[block] = self._places.put(name, block, value)


@dataclass
class _Module:
    """The attention module that is running: whose it is, the calls seen in it, and what ends with it."""

    kind: str
    block: int
    xformers: bool
    calls: int = 0
    other_output: torch.Tensor | None = None
    stack: ExitStack = field(default_factory=ExitStack)


def _head_norms(output: torch.Tensor) -> torch.Tensor:
    """‖ṽ‖_F per head of [1, heads, tokens, head_dim], summed in float32."""
    return torch.linalg.vector_norm(output.detach()[0], dim=(1, 2), dtype=torch.float32)
