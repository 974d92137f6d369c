"""Root-mean-square normalization.

Knows values and a weight; knows nothing of models.
"""

from __future__ import annotations

from typing import Any

import torch


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float, offset: float) -> torch.Tensor:
    """``x / sqrt(mean(x²) + eps) * (offset + weight)`` over the last dimension (Zhang and Sennrich,
    arXiv:1910.07467, equation 4), computed in fp32
    at least.

    For the backward pass only `x` and one number a vector are kept.

    Args:
        x: ``[..., size]``.
        weight: ``[size]``.
        offset: what the weight is a difference to: 0, or 1 as in Gemma.
    """
    return _RmsNorm.apply(x, weight, eps, offset)


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, eps: float, offset: float
    ) -> torch.Tensor:
        exact = torch.promote_types(x.dtype, torch.float32)
        # Whole tensors are widened first: torch's products of two dtypes take three times as long.
        wide = x.to(exact, copy=True)
        length = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
        scale = length.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        ctx.offset = offset
        return wide.mul_(scale).mul_(weight.to(exact) + offset).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, scale = ctx.saved_tensors
        wants_x, wants_weight, _, _ = ctx.needs_input_grad
        d_x = d_weight = None
        wide = x.to(scale.dtype)
        if wants_weight:
            normalized = (wide * scale).mul_(grad)
            d_weight = normalized.flatten(0, -2).sum(0).to(weight.dtype)
        if wants_x:
            d = grad.to(scale.dtype, copy=True).mul_(weight.to(scale.dtype) + ctx.offset)
            along = (d * wide).sum(-1, keepdim=True).mul_(scale * scale).div_(-x.shape[-1])
            d_x = d.addcmul_(wide, along).mul_(scale).to(x.dtype)
        return d_x, d_weight, None, None
