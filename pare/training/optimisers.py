"""Which optimiser trains which parameter: Muon the weight matrices that are named for it, AdamW all others."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn


def optimisers(
    named: Mapping[str, nn.Parameter],
    settings: Any,
    rates: Callable[[str], float] = lambda name: 1.0,
    by_muon: Callable[[str], bool] = lambda name: False,
    rests: Callable[[str], bool] = lambda name: False,
) -> list[torch.optim.Optimizer]:
    """AdamW, and Muon before it where `by_muon` names matrices, over groups of parameters of one learning rate.

    Muon (Jordan et al. 2024, as in `torch.optim.Muon`) replaces a matrix's momentum by its nearest orthogonal matrix, scaled to
    the size of AdamW's updates, so that both go by `settings.learning_rate`; matrices by that times `settings.matrix_rate`. Each
    group holds its multiplier as `rate`, and as `rests` whether its parameters stop learning before the others. Parameters with
    a rate of their own have no weight decay.

    >>> from types import SimpleNamespace
    >>> layer = nn.Linear(2, 2)
    >>> settings = SimpleNamespace(learning_rate=0.1, weight_decay=0.0, betas=(0.9, 0.99), matrix_rate=2.0)
    >>> found = optimisers(dict(layer.named_parameters()), settings, by_muon=lambda name: name == "weight")
    >>> [(type(each).__name__, each.param_groups[0]["rate"]) for each in found]
    [('Muon', 2.0), ('AdamW', 1.0)]
    """
    matrices = {name: parameter for name, parameter in named.items() if by_muon(name)}
    made: list[torch.optim.Optimizer] = []
    if matrices:
        made.append(
            torch.optim.Muon(
                _groups(matrices, settings, rates, rests, settings.matrix_rate),
                lr=settings.learning_rate,
                adjust_lr_fn="match_rms_adamw",
            )
        )
    others = {name: parameter for name, parameter in named.items() if name not in matrices}
    if others:
        made.append(
            torch.optim.AdamW(
                _groups(others, settings, rates, rests, 1.0),
                lr=settings.learning_rate,
                betas=settings.betas,
                foreach=True,
            )
        )
    return made


def _groups(
    named: Mapping[str, nn.Parameter],
    settings: Any,
    rates: Callable[[str], float],
    rests: Callable[[str], bool],
    factor: float,
) -> list[dict[str, Any]]:
    alike: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in named.items():
        alike.setdefault((rates(name), rests(name)), []).append(parameter)
    return [
        {
            "params": parameters,
            "rate": rate * factor,
            "rests": resting,
            "weight_decay": settings.weight_decay * (rate == 1.0 and not resting),
        }
        for (rate, resting), parameters in alike.items()
    ]
