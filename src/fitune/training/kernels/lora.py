"""Low-rank adapters beside frozen weights, for layers that read the same input at once.

Knows matrices; how a model is changed to use it is `adapted`'s matter. The frozen weights of the
layers lie one below the other in one matrix with their A's, so that one product gives all outputs
and all that the B's read (Hu et al., arXiv:2106.09685, equation 3); the B's lie in one matrix, too,
each in its layer's rows and its A's columns. For the backward pass only the input and what the B's
read are kept, and no gradient of a frozen weight is computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Adapters:
    """Of layers that read the same input.

    Attributes:
        sizes: outputs of each layer.
        ranks: of each adapter; a last one of 1 that no adapter has where their sum would be odd:
            some families read neighbouring outputs as complex numbers, which torch has only where
            a token's outputs and ranks together are an even number.
        scale: of all adapters: alpha / rank.
        downs: ``[ranks, inputs]``: all A; zeros where there is none.
        ups: ``[outputs, ranks]``: each B where its layer's rows meet its A's; zeros elsewhere.
        bias: of all layers: ``[outputs]``.
    """

    sizes: tuple[int, ...]
    ranks: tuple[int, ...]
    scale: float
    downs: torch.Tensor
    ups: torch.Tensor
    bias: torch.Tensor | None

    def rooms(self) -> list[torch.Tensor]:
        """Where each A, then each B, is to be copied before it is used.

        They share their memory with `downs` and `ups`, and not autograd's count of changes: an
        adapter changes between a forward pass and its backward pass by nothing but itself, where
        checkpointing computes a layer again.
        """
        rows = self.ups.data.split(self.sizes)
        ups = [
            columns[number]
            for number, columns in enumerate(each.split(self.ranks, dim=1) for each in rows)
        ]
        return [*self.downs.data.split(self.ranks)[: len(ups)], *ups]

    def apart(self, outputs: torch.Tensor, shape: Sequence[int]) -> tuple[torch.Tensor, ...]:
        """``[tokens, outputs]`` → ``[..., size]`` of each layer, for an input of `shape`."""
        each = outputs.split(self.sizes, dim=1)
        return tuple(output.view(*shape[:-1], -1) for output in each)

    def gradients(
        self,
        flat: torch.Tensor,
        inner: torch.Tensor,
        d_outputs: torch.Tensor,
        d_inner: torch.Tensor,
        dtype: torch.dtype,
    ) -> list[torch.Tensor]:
        """Of each A, then each B.

        Args:
            flat: the input, ``[tokens, inputs]``.
            inner: what the B's read, ``[tokens, ranks]``; the scale is in it.
            d_outputs, d_inner: gradients of the outputs and of the A's products.
            dtype: of the adapters.
        """
        # The product whose rows are few is the faster one of two that say the same.
        d_ups = (inner.T.contiguous() @ d_outputs).T.to(
            dtype, memory_format=torch.contiguous_format
        )
        d_downs = (d_inner.T.contiguous() @ flat).to(dtype)
        each = enumerate(d_ups.split(self.sizes))
        return [
            *d_downs.split(self.ranks)[: len(self.sizes)],
            *(rows.split(self.ranks, dim=1)[number].contiguous() for number, rows in each),
        ]


@dataclass(frozen=True)
class Joined(Adapters):
    """Layers that read the same input.

    Attributes:
        weights: ``[outputs + ranks, inputs]``: all W, then all A, which are `downs`.
    """

    weights: torch.Tensor


def lora_outputs(
    x: torch.Tensor, joined: Joined, downs: Sequence[torch.Tensor], ups: Sequence[torch.Tensor]
) -> tuple[torch.Tensor, ...]:
    """Each layer's ``x @ W.T + bias + scale * (x @ A.T) @ B.T``.

    Args:
        x: ``[..., inputs]``, of the joined weights' dtype.
        joined: whose rooms hold what `downs` and `ups` say.
        downs: each A ``[rank, inputs]``.
        ups: each B ``[size, rank]``.

    Returns:
        ``[..., size]`` of each layer: views of one tensor.
    """
    return _Lora.apply(x, joined.weights, joined.ups, joined, *downs, *ups)


class _Lora(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weights: torch.Tensor,
        ups: torch.Tensor,
        joined: Joined,
        *adapters: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        width = len(ups)
        flat = x.reshape(-1, x.shape[-1])
        everything = flat @ weights.T
        outputs, inner = everything[:, :width], everything[:, width:] * joined.scale
        if joined.bias is not None:
            outputs += joined.bias
        outputs.addmm_(inner, ups.T)
        ctx.save_for_backward(flat, inner, weights, ups)
        ctx.joined, ctx.x_shape, ctx.adapter_dtype = joined, x.shape, adapters[0].dtype
        return joined.apart(outputs, x.shape)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        flat, inner, weights, ups = ctx.saved_tensors
        joined: Joined = ctx.joined
        width = len(ups)
        d_everything = flat.new_empty((len(flat), len(weights)))
        d_outputs, d_inner = d_everything[:, :width], d_everything[:, width:]
        for d_output, grad in zip(d_outputs.split(joined.sizes, dim=1), grads, strict=True):
            d_output.copy_(grad.reshape(d_output.shape))
        torch.mm(d_outputs, ups, out=d_inner)
        d_inner *= joined.scale
        d_adapters = joined.gradients(flat, inner, d_outputs, d_inner, ctx.adapter_dtype)
        d_x = (d_everything @ weights).view(ctx.x_shape) if ctx.needs_input_grad[0] else None
        return (d_x, None, None, None, *d_adapters)
