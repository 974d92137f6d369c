"""Low-rank adapters beside frozen weights, for layers that read the same input at once.

Knows matrices; how a model is changed to use it is `fused`'s matter. The frozen weights of the
layers lie one below the other in one matrix with their A's, so that one product gives all outputs
and all that the B's read (Hu et al., arXiv:2106.09685, equation 3). For the backward pass only the
input and what the B's read are kept, and no gradient of a frozen weight is computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Shape:
    """Attributes:
    sizes: outputs of each layer.
    ranks: of each adapter.
    scales: of each adapter: alpha / rank.
    """

    sizes: tuple[int, ...]
    ranks: tuple[int, ...]
    scales: tuple[float, ...]


def lora_outputs(
    x: torch.Tensor,
    joined: torch.Tensor,
    bias: torch.Tensor | None,
    shape: Shape,
    downs: Sequence[torch.Tensor],
    ups: Sequence[torch.Tensor],
) -> tuple[torch.Tensor, ...]:
    """Each layer's ``x @ W.T + bias + scale * (x @ A.T) @ B.T``.

    Args:
        x: ``[..., inputs]``, of the joined weights' dtype.
        joined: ``[outputs + ranks, inputs]``: all W, then room for all A; the latter is written.
        bias: ``[outputs]``.
        downs: each A ``[rank, inputs]``.
        ups: each B ``[size, rank]``.

    Returns:
        ``[..., size]`` of each layer: views of one tensor.
    """
    return _Lora.apply(x, joined, bias, shape, *downs, *ups)


class _Lora(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        joined: torch.Tensor,
        bias: torch.Tensor | None,
        shape: Shape,
        *adapters: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        downs, ups = adapters[: len(shape.sizes)], adapters[len(shape.sizes) :]
        width = sum(shape.sizes)
        at = width
        for down, rank in zip(downs, shape.ranks, strict=True):
            joined[at : at + rank].copy_(down)
            at += rank
        flat = x.reshape(-1, x.shape[-1])
        everything = flat @ joined.T
        if bias is not None:
            everything[:, :width] += bias
        inner = everything[:, width:].contiguous()
        scaled = [(up * scale).to(x.dtype) for up, scale in zip(ups, shape.scales, strict=True)]
        outputs = everything[:, :width].split(shape.sizes, dim=1)
        for output, read, up in zip(outputs, inner.split(shape.ranks, 1), scaled, strict=True):
            output.addmm_(read, up.T)
        ctx.save_for_backward(flat, inner, joined, *scaled)
        ctx.shape, ctx.x_shape = shape, x.shape
        ctx.adapter_dtype = downs[0].dtype
        return tuple(output.view(*x.shape[:-1], -1) for output in outputs)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        flat, inner, joined, *scaled = ctx.saved_tensors
        shape: Shape = ctx.shape
        width, dtype = sum(shape.sizes), ctx.adapter_dtype
        d_everything = flat.new_empty((len(flat), joined.shape[0]))
        d_outputs = d_everything[:, :width].split(shape.sizes, dim=1)
        d_inner = d_everything[:, width:].split(shape.ranks, dim=1)
        d_ups = []
        for grad, d_output, d_read, read, up, scale in zip(
            grads,
            d_outputs,
            d_inner,
            inner.split(shape.ranks, 1),
            scaled,
            shape.scales,
            strict=True,
        ):
            d_output.copy_(grad.reshape(d_output.shape))
            torch.mm(d_output, up, out=d_read)
            d_ups.append((d_output.T @ read).to(dtype) * scale)
        d_downs = (d_everything[:, width:].T @ flat).to(dtype).split(shape.ranks)
        # The last rows of `joined` hold the A's of the forward pass: no update comes in between.
        d_x = (d_everything @ joined).view(ctx.x_shape) if ctx.needs_input_grad[0] else None
        return (d_x, None, None, None, *d_downs, *d_ups)
