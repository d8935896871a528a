"""What one kept head or neuron costs: every size of a model is a fixed part plus its units times these, exactly."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

from pare import cost
from pare.geometry import Clip, Geometry


@dataclass(frozen=True)
class UnitCost:
    """A size of the whole model with nothing kept in its blocks (`fixed`), and what each unit in any block adds.

    >>> UnitCost(fixed=100, self_head=10, cross_head=5, neuron=1).of(self_heads=2, cross_heads=2, neurons=7)
    137
    """

    fixed: int
    self_head: int
    cross_head: int
    neuron: int

    def of(self, self_heads: int, cross_heads: int, neurons: int) -> int:
        """The size with so many units kept, all blocks together: fixed + Σ units · cost of one."""
        return self.fixed + self_heads * self.self_head + cross_heads * self.cross_head + neurons * self.neuron


def unit_costs(geometry: Geometry, clip: Clip | None = None) -> Mapping[str, UnitCost]:
    """Parameters, parameters in the blocks and, with a clip, FLOPs of one forward, as unit costs.

    All three grow by the same amount with every head or neuron, whichever block it is in (`pare.cost`), so that a page
    can follow a slider without the formulas: the sums are those of `pare.width.budget.predict` to the last unit, below
    2⁵³.

    >>> from pare.geometry import PRESETS
    >>> found = unit_costs(PRESETS["wan2.1-t2v-14b"].geometry)["parameters"]
    >>> found.self_head, found.neuron, found.of(40 * 40, 40 * 40, 40 * 13824)
    (2622080, 10241, 14288491584)
    """
    return _unit_costs(geometry, clip)


# A page asks at every change of a slider, and shapes stay.
@lru_cache(maxsize=32)
def _unit_costs(geometry: Geometry, clip: Clip | None) -> Mapping[str, UnitCost]:
    sizes: dict[str, Callable[..., int]] = {
        "parameters": lambda **kept: cost.parameters(geometry, **kept).total,
        "block_parameters": lambda **kept: cost.parameters(geometry, **kept).in_blocks,
    }
    if clip is not None:
        sizes["flops"] = lambda **kept: round(cost.flops(geometry, clip, **kept).total)
    none = {"self_heads": 0, "cross_heads": 0, "neurons": 0}
    one = [1] + [0] * (geometry.blocks - 1)
    found = {}
    for name, size in sizes.items():
        fixed = size(**none)
        found[name] = UnitCost(fixed, *(size(**{**none, part: one}) - fixed for part in none))
    return MappingProxyType(found)


def head_alone(geometry: Geometry, clip: Clip | None = None) -> dict[str, dict[str, float]]:
    """What removing one self-attention head alone saves: of parameters and, with a clip, FLOPs, `saved` and its `share`.

    >>> from pare.geometry import PRESETS
    >>> head_alone(PRESETS["wan2.1-t2v-14b"].geometry)["parameters"]["saved"]
    2622080.0
    """
    heads = geometry.blocks * geometry.heads
    found = {}
    for name, costs in unit_costs(geometry, clip).items():
        if name != "block_parameters":
            whole = costs.of(heads, heads, geometry.blocks * geometry.ffn)
            found[name] = {"saved": float(costs.self_head), "share": costs.self_head / whole}
    return found
