"""The optimizer Lion.

Knows parameters and gradients. torch has none; bitsandbytes' needs the extra `quant`, and its
kernels take raw addresses, which fake tensors do not have.
"""

from __future__ import annotations

from typing import Any

import torch


class Lion(torch.optim.Optimizer):
    """Steps of one size in the direction of the sign of a momentum (Chen et al., arXiv:2302.06675,
    algorithm 2), with decay apart from the gradient: one state value per parameter, in its dtype.

    Args:
        groups: each with `params`, and `lr` and `weight_decay` where they differ from these.
        betas: of the momentum as it is stepped along, and as it is kept.
    """

    def __init__(
        self,
        groups: Any,
        *,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(groups, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            stepped, kept = group["betas"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["exp_avg"] = torch.zeros_like(parameter)
                momentum = state["exp_avg"]
                direction = momentum.lerp(parameter.grad, 1 - stepped).sign_()
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(direction, alpha=-group["lr"])
                momentum.lerp_(parameter.grad, 1 - kept)
