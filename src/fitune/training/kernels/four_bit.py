"""Low-rank adapters beside weights in four bits, for layers that read the same input at once.

Knows matrices; how a model is changed to use it is `adapted`'s matter. All frozen weights are
restored into one matrix for one product, and again for the backward pass (Dettmers et al.,
arXiv:2305.14314, equation 5): between the two only their bytes, the input and what the B's read are
kept. The A's are no rows of that matrix as they are beside weights that stay (see `lora`): each
time, the matrix would have to be copied to where there is room for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from fitune.quantization.joined import JoinedLayers
from fitune.training.kernels.lora import Adapters


@dataclass(frozen=True)
class Joined4bit(Adapters):
    """Layers that read the same input.

    Attributes:
        weights: all W, of which `restored` makes ``[outputs, inputs]``.
    """

    weights: JoinedLayers


def four_bit_outputs(
    x: torch.Tensor, joined: Joined4bit, downs: Sequence[torch.Tensor], ups: Sequence[torch.Tensor]
) -> tuple[torch.Tensor, ...]:
    """Each layer's ``x @ W.T + bias + scale * (x @ A.T) @ B.T``.

    Args:
        x: ``[..., inputs]``, of the dtype of products.
        joined: whose rooms hold what `downs` and `ups` say.
        downs: each A ``[rank, inputs]``.
        ups: each B ``[size, rank]``.

    Returns:
        ``[..., size]`` of each layer: views of one tensor.
    """
    return _Lora4bit.apply(x, joined.downs, joined.ups, joined, *downs, *ups)


class _Lora4bit(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        downs: torch.Tensor,
        ups: torch.Tensor,
        joined: Joined4bit,
        *adapters: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        flat = x.reshape(-1, x.shape[-1])
        inner = (flat @ downs.T).mul_(joined.scale)
        outputs = functional.linear(flat, joined.weights.restored(), joined.bias)
        outputs.addmm_(inner, ups.T)
        ctx.save_for_backward(flat, inner, downs, ups)
        ctx.joined, ctx.x_shape, ctx.adapter_dtype = joined, x.shape, adapters[0].dtype
        return joined.apart(outputs, x.shape)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        flat, inner, downs, ups = ctx.saved_tensors
        joined: Joined4bit = ctx.joined
        each = [grad.reshape(len(flat), -1) for grad in grads]
        d_outputs = torch.cat(each, dim=1) if len(each) > 1 else each[0]
        d_inner = (d_outputs @ ups).mul_(joined.scale)
        d_adapters = joined.gradients(flat, inner, d_outputs, d_inner, ctx.adapter_dtype)
        d_x = None
        if ctx.needs_input_grad[0]:
            d_x = d_outputs @ joined.weights.restored()
            d_x = d_x.addmm_(d_inner, downs).view(ctx.x_shape)
        return (d_x, None, None, None, *d_adapters)
