"""What a cut does to every block, on one probe: how far it is from masking, and how far from the dense block."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from pare.gates import Gates, gated
from pare.mask import Mask
from pare.transformer import BlockInputs, PareWanTransformer3DModel
from pare.width.compensation import mean_outputs
from pare.width.masked import mask_gates

# diffusers tells image from text tokens by this fixed number of text tokens.
TEXT_TOKENS = 512
IMAGE_TOKENS = 257
PROBE_GRID = (2, 4, 4)


@dataclass(frozen=True, eq=False)
class Probe:
    """What goes into one forward: latents, timestep, text embedding, and the image embedding of image-to-video."""

    hidden_states: torch.Tensor
    timestep: torch.Tensor
    encoder_hidden_states: torch.Tensor
    encoder_hidden_states_image: torch.Tensor | None = None

    def to(self, device: torch.device) -> tuple[Any, ...]:
        """The arguments of a forward, on a device."""
        tensors = (getattr(self, each.name) for each in dataclasses.fields(self))
        return tuple(each if each is None else each.to(device) for each in tensors)


@dataclass(frozen=True)
class BlockError:
    """One block of the cut model on the input that the dense block sees; norms over tokens x dim.

    `masking` = ‖cut(x) − masked(x)‖ / ‖masked(x)‖: what the treatment of the query/key norm costs (with bias
    compensation the masked units give their mean). `masking_update`: the same over ‖masked(x) − x‖, what the block
    adds. `dense` and `dense_update`: the same against the dense block, which is what the cut changes in all.
    """

    masking: float
    masking_update: float
    dense: float
    dense_update: float


def random_probe(config: Mapping[str, Any], seed: int = 0, dtype: torch.dtype = torch.float32) -> Probe:
    """A probe that needs no encoder: latents of 2 x 4 x 4 tokens, t = 500 and all embeddings standard normal.

    >>> tiny = dict(patch_size=(1, 2, 2), in_channels=4, text_dim=16, image_dim=None, pos_embed_seq_len=None)
    >>> random_probe(tiny).hidden_states.shape
    torch.Size([1, 4, 2, 8, 8])
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator).to(dtype)

    cells = [count * patch for count, patch in zip(PROBE_GRID, config["patch_size"], strict=True)]
    image = None
    if config.get("image_dim") is not None:
        tokens = config.get("pos_embed_seq_len")
        # Models of first and last frame take two images, which the embedder joins.
        shape = (1, IMAGE_TOKENS) if tokens is None else (2, tokens // 2)
        image = normal(*shape, config["image_dim"])
    latents, text = normal(1, config["in_channels"], *cells), normal(1, TEXT_TOKENS, config["text_dim"])
    return Probe(latents, torch.tensor([500]), text, image)


@torch.no_grad()
def cut_errors(
    transformer: Any,
    pruned: PareWanTransformer3DModel,
    mask: Mask,
    probe: Probe | None = None,
    moments: Mapping[str, np.ndarray] | None = None,
) -> list[BlockError]:
    """The error of every block, each on the input that the dense model gives it; `prune(transformer, mask)` made `pruned`.

    `probe` is a random one unless given; `moments` are those of a compensated model, which is compared with masked
    units that give their mean.

    >>> [error.masking for error in cut_errors(pipe.transformer, student, mask)]  # doctest: +SKIP
    """
    parameter = next(transformer.parameters())
    probe = probe or random_probe(transformer.config, dtype=parameter.dtype)
    _, inputs = pruned.embed(*probe.to(parameter.device))
    means, errors = None if moments is None else mean_outputs(moments, mask), []
    for index, (dense, cut) in enumerate(zip(transformer.blocks, pruned.blocks, strict=True)):
        output, error = block_error(dense, cut, gates_of_block(mask, index, means), transformer.config, inputs)
        errors.append(error)
        inputs = (output, *inputs[1:])
    return errors


def gates_of_block(mask: Mask, index: int, means: Mapping[str, np.ndarray] | None = None) -> Gates:
    """The gates of one block alone, as if it were the model's only one."""
    rows = {part: getattr(mask, part)[index : index + 1] for part in ("self_heads", "cross_heads", "neurons")}
    own = None if means is None else {name: values[index : index + 1] for name, values in means.items()}
    return mask_gates(Mask(**rows), own)


@torch.no_grad()
def block_error(
    dense: torch.nn.Module, cut: torch.nn.Module, gates: Gates, config: Any, inputs: BlockInputs
) -> tuple[Float[torch.Tensor, "batch tokens dim"], BlockError]:
    """The dense block's output, and the error of the cut block on the same input; `gates` are those of this block."""
    whole = dense(*inputs)
    model = SimpleNamespace(blocks=[dense], config=config, gradient_checkpointing=False)
    with gated(model, gates):
        reference = dense(*inputs)
    output, before = cut(*inputs).double(), inputs[0].double()
    from_masked, from_dense = output - reference.double(), output - whole.double()
    return whole, BlockError(
        masking=_ratio(from_masked, reference.double()),
        masking_update=_ratio(from_masked, reference.double() - before),
        dense=_ratio(from_dense, whole.double()),
        dense_update=_ratio(from_dense, whole.double() - before),
    )


def _ratio(difference: torch.Tensor, whole: torch.Tensor) -> float:
    return float(difference.norm() / whole.norm())
