"""The processes of a training: alone, each with a whole copy of the model, or with the model in shards (FSDP2).

What accelerate knows of the launch decides which. Precision is ours: parameters that train stay in float32, forwards run in
autocast, so that timesteps are never rounded with them.
"""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor, distribute_tensor


class Parallel:
    """One process of a training; without an accelerator the only one.

    >>> alone = Parallel()
    >>> alone.count, alone.leads, alone.full(torch.ones(1)).item()
    (1, True, 1.0)
    """

    def __init__(self, accelerator: Any = None):
        self.accelerator = accelerator

    @property
    def count(self) -> int:
        """How many processes train together."""
        return 1 if self.accelerator is None else self.accelerator.num_processes

    @property
    def rank(self) -> int:
        """Which of them this is."""
        return 0 if self.accelerator is None else self.accelerator.process_index

    @property
    def leads(self) -> bool:
        """Whether this is the one that writes."""
        return self.rank == 0

    @property
    def sharded(self) -> bool:
        """Whether the model lies in shards."""
        return self.accelerator is not None and getattr(self.accelerator, "is_fsdp2", False)

    def place(self, model: Any, *, compute: torch.dtype, trains: bool, device: torch.device | None = None) -> Any:
        """The model on a device, in shards or wrapped as the launch says; `trains`: its gradients are shared.

        `compute` is the precision of the forward; what trains is kept in float32 beside it.
        """
        if trains:
            # Not the model's own method, which warns of every change of precision.
            nn.Module.to(model, torch.float32)
        if self.accelerator is None:
            return model if device is None else model.to(device)
        if self.sharded:
            # Still on the host: block by block it moves to the device and is cut there.
            from accelerate.utils.fsdp_utils import fsdp2_prepare_model
            from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

            # Inputs are not cast: t = 937.5 in bfloat16 is 936.
            policy = MixedPrecisionPolicy(param_dtype=compute, reduce_dtype=torch.float32, cast_forward_inputs=False)
            router = getattr(model, "router", None)
            if router is not None:
                # Scores decide by their order, which bfloat16 would coarsen; a saved router is float32, too.
                fully_shard(router, mp_policy=replace(policy, param_dtype=torch.float32))
            plugin = self.accelerator.state.fsdp_plugin
            plugin.mixed_precision_policy = policy
            # A shard is a block, whatever class it has.
            plugin.transformer_cls_names_to_wrap = [type(model.blocks[0]).__name__]
            return fsdp2_prepare_model(self.accelerator, model)
        model = model.to(self.accelerator.device)
        return self.accelerator.prepare_model(model) if trains else model

    def whole(self, model: Any) -> Any:
        """The model itself, out of a wrapper that only shares gradients."""
        return model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model

    def alone_until(self, model: Any, last: bool) -> AbstractContextManager[object]:
        """Backward passes inside share their gradients only where this is the last of a step."""
        if self.count == 1 or last:
            if self.sharded:
                model.set_requires_gradient_sync(True)
            return nullcontext()
        if self.sharded:
            model.set_requires_gradient_sync(False)
            return nullcontext()
        return model.no_sync()

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """The mean over processes of a tensor of numbers."""
        return values if self.count == 1 else self.accelerator.reduce(values, reduction="mean")

    def full(self, tensor: torch.Tensor) -> torch.Tensor:
        """A tensor out of its shards; all processes call this together."""
        return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor

    def copy_into(self, target: torch.Tensor, full: torch.Tensor) -> None:
        """Set a tensor, or this process's shard of it, from the whole one that every process has."""
        if isinstance(target, DTensor):
            whole = full.to(target.device, target.dtype)
            shard = distribute_tensor(whole, target.device_mesh, target.placements, src_data_rank=None)
            target.to_local().copy_(shard.to_local())
        else:
            target.copy_(full)

    def wait(self) -> None:
        """Until all processes are here."""
        if self.count > 1:
            self.accelerator.wait_for_everyone()

    def gathered(self, tensors: Iterable[tuple[str, torch.Tensor]]) -> Iterator[tuple[str, torch.Tensor]]:
        """The tensors out of their shards, one at a time, on the host of the leading process."""
        for name, tensor in tensors:
            whole = self.full(tensor.detach())
            if self.leads:
                yield name, whole.cpu()


@contextmanager
def computing(device: torch.device, compute: torch.dtype) -> Iterator[None]:
    """Autocast to the precision of the forward; nothing for float32."""
    with torch.autocast(device.type, compute, enabled=compute != torch.float32):
        yield
