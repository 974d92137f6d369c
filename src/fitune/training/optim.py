"""Optimizers and learning rates.

Knows parameters; knows nothing of losses or data. The learning rate is a pure function of the step,
so there is no scheduler state to save. To add an optimizer, write a function and a line in
`OPTIMIZERS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from fitune.config import Finetuned

Groups = list[dict[str, Any]]
OptimizerFactory = Callable[[Groups, Finetuned], torch.optim.Optimizer]


def adamw(groups: Groups, options: Finetuned) -> torch.optim.Optimizer:
    """AdamW (Loshchilov and Hutter, arXiv:1711.05101, algorithm 2), one fused kernel a step."""
    return torch.optim.AdamW(groups, lr=1.0, betas=(0.9, 0.999), eps=1e-8, fused=True)


def sgd(groups: Groups, options: Finetuned) -> torch.optim.Optimizer:
    """Plain stochastic gradient descent: no state."""
    return torch.optim.SGD(groups, lr=1.0)


def momentum(groups: Groups, options: Finetuned) -> torch.optim.Optimizer:
    """Stochastic gradient descent with momentum 0.9: one state value per parameter."""
    return torch.optim.SGD(groups, lr=1.0, momentum=0.9)


OPTIMIZERS: dict[str, OptimizerFactory] = {"adamw": adamw, "sgd": sgd, "momentum": momentum}


def parameter_groups(
    parameters: dict[str, nn.Parameter],
    *,
    head: Iterable[nn.Parameter],
    learning_rate: float,
    head_learning_rate: float,
    weight_decay: float,
) -> Groups:
    """Parameters by learning rate and decay: biases and norms (one dimension) do not decay.

    Each group carries ``peak``, its learning rate before the schedule's factor.
    """
    head_ids = {id(parameter) for parameter in head}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in parameters.values():
        rate = head_learning_rate if id(parameter) in head_ids else learning_rate
        decay = weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault((rate, decay), []).append(parameter)
    return [
        {"params": members, "lr": rate, "peak": rate, "weight_decay": decay}
        for (rate, decay), members in groups.items()
    ]


def schedule_factor(step: int, total: int, *, warmup: float, schedule: str) -> float:
    """What the peak learning rate is multiplied by at `step` (0-based) of `total`.

    Rises linearly over the first ``warmup * total`` steps, then falls to zero along a line or a
    half cosine (Loshchilov and Hutter, arXiv:1608.03983, equation 5), or stays.
    """
    rise = math.ceil(warmup * total)
    if step < rise:
        return (step + 1) / rise
    if schedule == "constant":
        return 1.0
    progress = (step - rise) / max(1, total - rise)
    if schedule == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * progress))
    return 1.0 - progress
