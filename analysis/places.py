"""Where the heads and neurons of a pruned model stand in its base model: what every array of a run is indexed by.

A student's heads keep the numbers that they had, so that its run and its teacher's show the same head in the same
place. What was cut is NaN, like everything that was not measured.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from pare.student import kept

PARTS = {"self": "self_heads", "cross": "cross_heads", "ffn": "neurons"}


class Places:
    """The places of all heads and neurons of a transformer, by its config.

    >>> config = {"num_layers": 1, "num_attention_heads": 3, "ffn_dim": 8, "self_heads": [2], "kept_self_heads": [[0, 2]]}
    >>> Places(config).put("self/ratio", 0, torch.tensor([0.25, 0.75]))
    tensor([0.2500,    nan, 0.7500])
    """

    def __init__(self, config: Mapping[str, Any]):
        self.kept = {kind: rows for kind, rows in ((kind, kept(config)[part]) for kind, part in PARTS.items())}
        self._indices = {
            kind: [torch.from_numpy(np.flatnonzero(row)) for row in rows] for kind, rows in self.kept.items()
        }

    def units(self, name: str) -> int:
        """Heads or neurons of a block of the base model, by the name of what is measured of them."""
        return self.kept[name.partition("/")[0]].shape[1]

    def put(self, name: str, block: int, values: torch.Tensor) -> torch.Tensor:
        """Values of the kept units of a block, first axis unit, at their places; others (of blocks) as they are."""
        kind = name.partition("/")[0]
        if kind not in self.kept or len(values) == self.units(name):
            return values
        whole = values.new_full((self.units(name), *values.shape[1:]), torch.nan)
        whole[self._indices[kind][block].to(values.device)] = values
        return whole
