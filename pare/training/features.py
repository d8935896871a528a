"""Block outputs of a forward, taken by hooks that are gone afterwards; gradients flow through them."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn


@contextmanager
def block_outputs(transformer: Any, blocks: Iterable[int]) -> Iterator[dict[int, torch.Tensor]]:
    """Collect the outputs B(x) [batch, tokens, dim] of these blocks of the forwards inside, by block index.

    Of a block that is routed the output before its gate. Works under gradient checkpointing: what a recomputation in
    the backward pass gives again is not collected. Only references are kept.

    >>> with block_outputs(transformer, [0, 3]) as features:  # doctest: +SKIP
    ...     transformer(**inputs)
    """
    found: dict[int, torch.Tensor] = {}
    with ExitStack() as stack:
        for index in blocks:
            stack.callback(transformer.blocks[index].register_forward_hook(_keep(found, index)).remove)
        yield found


def _keep(found: dict[int, torch.Tensor], index: int) -> Any:
    def hook(_module: nn.Module, _args: Any, output: torch.Tensor) -> None:
        found[index] = output

    return hook
