"""The product of an activated gate and a value, as in gated feed-forward layers.

Knows two tensors; knows nothing of models.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

Activation = tuple[
    Callable[[torch.Tensor], torch.Tensor], Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
]
"""A function, and its backward pass from a gradient and the function's input."""

ACTIVATIONS: dict[str, Activation] = {
    "silu": (functional.silu, torch.ops.aten.silu_backward),
    "gelu": (functional.gelu, torch.ops.aten.gelu_backward),
    "gelu_tanh": (
        lambda x: functional.gelu(x, approximate="tanh"),
        lambda grad, x: torch.ops.aten.gelu_backward(grad, x, approximate="tanh"),
    ),
}


def gated(gate: torch.Tensor, value: torch.Tensor, activation: str) -> torch.Tensor:
    """``activation(gate) * value`` (Shazeer, arXiv:2002.05202, equation 5).

    The activated gate is computed again in the backward pass instead of being kept.
    """
    return _Gated.apply(gate, value, ACTIVATIONS[activation])


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, gate: torch.Tensor, value: torch.Tensor, activation: Activation
    ) -> torch.Tensor:
        ctx.save_for_backward(gate, value)
        ctx.activation = activation
        return activation[0](gate).mul_(value)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        gate, value = ctx.saved_tensors
        activate, activate_backward = ctx.activation
        d_gate = activate_backward(grad * value, gate)
        return d_gate, activate(gate).mul_(grad), None
