"""Which feed-forward neurons stay: importance from the weights (PARE, Eq. 6), diversity by cosine (Eq. 7)."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float

from pare.errors import InputError

TAU_FFN, RELAXATION = 0.90, 0.02
# Neurons visited together; kept ones per matrix product; rows converted and pairs looked at again in one go.
BLOCK, COLUMNS, ROWS, PAIRS = 512, 2048, 512, 256
# What inputs lose at the precisions that torch may be set to use for float32 products.
INPUT_ERROR = {"highest": 0.0, "high": 2.0**-9, "medium": 2.0**-6}


class Pass(NamedTuple):
    """One round of the greedy choice: its threshold, and how many neurons it skipped as too similar."""

    tau: float
    skipped: int


@dataclass(frozen=True, eq=False)
class NeuronChoice:
    """The neurons of one block that stay, `keep` bool [ffn], and the passes that it took."""

    keep: np.ndarray
    passes: tuple[Pass, ...] = ()


def neuron_importance(
    up: Float[torch.Tensor, "ffn dim"], down: Float[torch.Tensor, "dim ffn"]
) -> Float[torch.Tensor, " ffn"]:
    """s_k = ‖W_up[k,:]‖₂ · ‖W_down[:,k]‖₂ (PARE, Eq. 6), float64.

    `up` and `down` are the weights of the two linear layers. Raises InputError for weights that are not finite.

    >>> neuron_importance(torch.tensor([[3.0, 4.0], [0.0, 1.0]]), torch.tensor([[2.0, 1.0], [0.0, 0.0]])).tolist()
    [10.0, 1.0]
    """
    return (_squares(up).sqrt() * _squares(down.T).sqrt()).to("cpu")


def activation_importance(
    mean_square: Float[np.ndarray, " ffn"], down: Float[torch.Tensor, "dim ffn"]
) -> Float[torch.Tensor, " ffn"]:
    """sqrt(E[a_k²]) · ‖W_down[:,k]‖₂, float64: the root mean square of what neuron k adds to the residual stream.

    `mean_square` is the moment `ffn/activation_square` of a run. Raises InputError where it is missing (NaN).

    >>> activation_importance(np.array([4.0, 1.0]), torch.tensor([[3.0, 0.0], [4.0, 1.0]])).tolist()
    [10.0, 1.0]
    """
    size = torch.from_numpy(np.sqrt(np.asarray(mean_square, float)))
    if not size.isfinite().all():
        raise InputError("moments", got="a block that never ran", expected="every block", fix="capture it")
    return size * _squares(down.T).sqrt().to("cpu")


def highest(scores: Float[torch.Tensor, " ffn"], count: int) -> NeuronChoice:
    """The `count` highest scores; a tie goes to the lower index.

    >>> highest(torch.tensor([1.0, 3.0, 3.0, 2.0]), 2).keep.tolist()
    [False, True, True, False]
    """
    keep = np.zeros(len(scores), bool)
    keep[_order(scores)[:count].numpy()] = True
    return NeuronChoice(keep)


def diverse(
    up: Float[torch.Tensor, "ffn dim"],
    down: Float[torch.Tensor, "dim ffn"],
    count: int,
    *,
    scores: Float[torch.Tensor, " ffn"] | None = None,
    tau: float = TAU_FFN,
    relaxation: float = RELAXATION,
    block: int = BLOCK,
) -> NeuronChoice:
    """The greedy choice of PARE, Eq. 7: visit neurons by descending score, skip what resembles a kept one.

    With z_k = [W_up[k,:]; W_down[:,k]], neuron k is skipped when cos(z_k, z_j) > τ for a neuron j already kept. When
    all are visited and fewer than `count` are kept, τ grows by `relaxation`, up to 1, and the skipped are visited again
    in the same order; at τ = 1 nothing is skipped, so the budget is always met. A tie in the score goes to the lower
    index; a neuron without weights resembles none. `scores` are Eq. 6 unless given.

    The result is that of visiting one neuron after the other in float64, but the cosines come from float32 products of
    `block` neurons with all kept ones: pairs closer to τ than the rounding error can be are looked at again in float64.
    One pass costs up to count·ffn·2·dim multiply-adds. Raises InputError for a count above ffn and a τ outside (0, 1].

    >>> up = torch.tensor([[2.0, 0.0], [2.0, 0.0], [0.0, 1.0]])
    >>> chosen = diverse(up, up.T.clone(), 2)
    >>> chosen.keep.tolist(), chosen.passes
    ([True, False, True], (Pass(tau=0.9, skipped=1),))
    """
    if not 0 <= count <= len(up):
        raise InputError("neurons to keep", got=count, expected=f"0 to {len(up)}", fix="another --neuron-ratio")
    if not 0 < tau <= 1 or not relaxation > 0:
        raise InputError("--tau-ffn", got=tau, expected="above 0, up to 1", fix="--tau-ffn 0.9")
    order = _order(neuron_importance(up, down) if scores is None else scores)
    cosines = _Cosines(up, down, order)
    # Positions in the order of visits, not neurons, until the very end.
    waiting, kept, passes = np.arange(len(order)), np.empty(0, int), []
    while len(kept) < count:
        skipped = []
        for start in range(0, len(waiting), block):
            candidates = waiting[start : start + block]
            taken, passed_over = _visit(cosines, candidates, kept, tau, count - len(kept))
            kept = np.concatenate([kept, taken])
            skipped.append(passed_over)
            if len(kept) == count:
                break
        waiting = np.concatenate(skipped)
        passes.append(Pass(tau, len(waiting)))
        tau = min(round(tau + relaxation, 10), 1.0)
    keep = np.zeros(len(order), bool)
    keep[order.numpy()[kept]] = True
    return NeuronChoice(keep, tuple(passes))


def _visit(
    cosines: "_Cosines", candidates: np.ndarray, kept: np.ndarray, tau: float, room: int
) -> tuple[np.ndarray, np.ndarray]:
    """Visit the candidates one by one until `room` of them are taken: (taken, skipped), in the order of visits."""
    if tau >= 1:  # no cosine exceeds it
        return candidates[:room], candidates[:0]
    like_kept = cosines.any_above(candidates, kept, tau)
    alike = cosines.above(candidates, candidates, tau).cpu().numpy()
    taken, skipped = np.zeros(len(candidates), bool), np.zeros(len(candidates), bool)
    for at in range(len(candidates)):
        if room == 0:
            break
        if like_kept[at] or (alike[at] & taken).any():
            skipped[at] = True
        else:
            taken[at] = True
            room -= 1
    return candidates[taken], candidates[skipped]


class _Cosines:
    """Which neurons, by their place in the order of visits, have signatures whose cosine exceeds a threshold."""

    def __init__(self, up: torch.Tensor, down: torch.Tensor, order: torch.Tensor):
        self._up, self._down, self._order = up, down.T.contiguous(), order.to(up.device)
        norms = (_squares(self._up) + _squares(self._down)).sqrt()[self._order]
        # A neuron without weights has cosine 0 with every other.
        self._norms = torch.where(norms > 0, norms, torch.inf)
        self._unit = torch.empty(len(order), up.shape[1] + down.shape[0], device=up.device)
        for rows in torch.arange(len(order), device=up.device).split(ROWS):
            self._unit[rows] = (self._signatures(rows) / self._norms[rows, None]).float()
        # A float32 sum of n products, in any order, is off by at most n half units in the last place of Σ|x·y| <= 1.
        self._error = (self._unit.shape[1] + 8) * 2.0**-23 + INPUT_ERROR[torch.get_float32_matmul_precision()]

    def any_above(self, candidates: np.ndarray, kept: np.ndarray, tau: float) -> np.ndarray:
        """Whether each candidate resembles at least one kept neuron."""
        found = np.zeros(len(candidates), bool)
        for start in range(0, len(kept), COLUMNS):
            rest = np.flatnonzero(~found)
            if len(rest):
                above = self.above(candidates[rest], kept[start : start + COLUMNS], tau, any_will_do=True)
                found[rest] = above.any(dim=1).cpu().numpy()
        return found

    def above(self, a: np.ndarray, b: np.ndarray, tau: float, any_will_do: bool = False) -> torch.Tensor:
        """cos > τ of every pair [a, b]; `any_will_do`: a row with a certain one may leave its doubtful ones out."""
        cosine = self._rows(a) @ self._rows(b).T
        above = cosine > tau + self._error
        doubtful = (cosine - tau).abs() <= self._error
        if any_will_do:
            doubtful &= ~above.any(dim=1, keepdim=True)
        rows, columns = doubtful.nonzero(as_tuple=True)
        places_a, places_b = (torch.from_numpy(each).to(rows.device) for each in (a, b))
        for row, column in zip(rows.split(PAIRS), columns.split(PAIRS), strict=True):
            above[row, column] = self._exact(places_a[row], places_b[column]) > tau
        return above

    def _exact(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (self._signatures(a) * self._signatures(b)).sum(dim=1) / (self._norms[a] * self._norms[b])

    def _rows(self, places: np.ndarray) -> torch.Tensor:
        # Neighbours, as all candidates of the first pass are, need no copy.
        if len(places) and (np.diff(places) == 1).all():
            return self._unit[places[0] : places[-1] + 1]
        return self._unit[torch.from_numpy(places).to(self._unit.device)]

    def _signatures(self, places: torch.Tensor) -> torch.Tensor:
        neurons = self._order[places]
        return torch.cat([self._up[neurons], self._down[neurons]], dim=1).double()


def _order(scores: torch.Tensor) -> torch.Tensor:
    if not scores.isfinite().all():
        got = f"no finite score for neuron {int((~scores.isfinite()).nonzero()[0])}"
        raise InputError("neurons", got=got, expected="finite weights", fix="save or fetch the model again")
    return torch.argsort(scores.cpu(), descending=True, stable=True)


def _squares(rows: torch.Tensor) -> torch.Tensor:
    return torch.cat([part.double().square().sum(dim=1) for part in rows.split(ROWS)])
