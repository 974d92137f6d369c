"""Cross-entropy of an output head's predictions, with its gradient computed in the same pass.

Knows hidden states, a head's weight and targets; knows nothing of models. Logits exist for one
chunk of tokens at a time, and only once: the softmax and the gradient take their place.
"""

from __future__ import annotations

from typing import Any

import torch

CHUNK_VALUES = 1 << 24
"""Logits of one chunk: 32 MiB in bf16. Few tokens a chunk would read the head's weight anew for
each; many would not stay in a processor's cache."""


def head_loss_sum(
    hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, targets: torch.Tensor
) -> torch.Tensor:
    """The summed cross-entropy of ``hidden @ weight.T + bias``.

    Args:
        hidden: ``[learned, hidden]``.
        weight: ``[vocabulary, hidden]``, of the same dtype, or under autocast.
        bias: ``[vocabulary]``.
        targets: ``[learned]`` int64.

    Returns:
        A scalar, float32 at least. Its gradients are made now, and handed out once.
    """
    kind = hidden.device.type
    if torch.is_autocast_enabled(kind):  # said once, and not for each chunk
        dtype = torch.get_autocast_dtype(kind)
        hidden, weight = hidden.to(dtype), weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
    with torch.autocast(kind, enabled=False):
        return _HeadLoss.apply(hidden, weight, bias, targets)


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        targets: torch.Tensor,
    ) -> torch.Tensor:
        wants_hidden, wants_weight, wants_bias, _ = ctx.needs_input_grad
        d_hidden = torch.empty_like(hidden) if wants_hidden else None
        d_weight = d_bias = None
        losses = []
        # A head that trains sees all tokens at once: its gradient is one product then, and not a
        # sum, which would be read and written for each chunk.
        everything = wants_weight or wants_bias
        rows = len(hidden) if everything else max(1, CHUNK_VALUES // weight.shape[0])
        for start in range(0, len(hidden), rows):
            part = hidden[start : start + rows]
            loss, d_logits = _loss_and_gradient(part, weight, bias, targets[start : start + rows])
            losses.append(loss)
            if d_hidden is not None:
                torch.mm(d_logits, weight, out=d_hidden[start : start + rows])
            if wants_weight:
                d_weight = d_logits.T @ part
            if wants_bias:
                d_bias = d_logits.sum(dim=0)
            del d_logits  # before the next chunk's
        ctx.save_for_backward(d_hidden, d_weight, d_bias)
        return torch.stack(losses).sum()

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return (*(None if d is None else d.mul_(grad) for d in ctx.saved_tensors), None)


def _loss_and_gradient(
    hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, targets: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The summed loss, in float32 at least, and its gradient by the logits."""
    exact = torch.promote_types(hidden.dtype, torch.float32)
    target = targets[:, None]
    logits = hidden @ weight.T
    if bias is not None:
        logits += bias
    top, at = logits.max(dim=-1, keepdim=True)
    loss = (top.to(exact) - logits.gather(1, target).to(exact)).sum()
    probability = torch.softmax(logits, dim=-1)
    del logits
    # log p(target) by way of the likeliest token, whose p cannot vanish: p >= 1 / vocabulary.
    loss = loss - probability.gather(1, at).to(exact).log().sum()
    # Not scatter_, which in bf16 makes a copy in fp32.
    probability[torch.arange(len(targets), device=targets.device), targets] -= 1
    return loss, probability
