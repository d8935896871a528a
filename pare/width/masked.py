"""The effect of a mask without cutting anything, for as long as a context lasts."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from pare import mask as masks
from pare.gates import Gates, gated, wan_transformer
from pare.geometry import Geometry
from pare.mask import Mask
from pare.width.compensation import mean_outputs


@contextmanager
def masked(model: Any, mask: Mask, moments: Mapping[str, np.ndarray] | None = None) -> Iterator[None]:
    """Run a Wan pipeline (or transformer) as if the heads and neurons that the mask removes gave nothing.

    With the `moments` of a run they give their mean instead, which is what bias compensation does. It is what `prune`
    with qk_norm exact computes, at the dense model's cost. No hook stays afterwards. Raises `InputError` for a mask of
    other shapes and for everything that `pare.gates.gated` refuses.

    >>> with masked(pipe, mask):  # doctest: +SKIP
    ...     video = pipe(prompt).frames
    """
    transformer = wan_transformer(model)
    masks.check(mask, Geometry.from_config(transformer.config), {})
    with gated(transformer, mask_gates(mask, None if moments is None else mean_outputs(moments, mask))):
        yield


def mask_gates(mask: Mask, means: Mapping[str, np.ndarray] | None = None) -> Gates:
    """The mask as gates; parts of which nothing is removed are left out, so that a full mask adds no hook.

    `means` are those of `pare.width.compensation.mean_outputs`.

    >>> everything = np.ones((2, 4), bool)
    >>> mask_gates(Mask(everything, everything, everything & (np.arange(4) > 0))).parts()
    ('neurons',)
    """
    layers = {"self_heads": "attn1.to_out.0", "cross_heads": "attn2.to_out.0", "neurons": "ffn.net.2"}
    names = {"self_heads": "self_means", "cross_heads": "cross_means", "neurons": "neuron_means"}
    given: dict[str, np.ndarray] = {}
    for part, layer in layers.items():
        if getattr(mask, part).all():
            continue
        given[part] = getattr(mask, part)
        if means is not None:
            values = means[layer]
            given[names[part]] = values[..., 0] if part == "neurons" else values
    return Gates(**given)
