"""Attention over rows laid end to end, each row reading only itself.

Knows query, key and value tensors and a layout; knows nothing of models. On a CPU, neighbouring
rows of about the same length are padded to the longest and multiplied together: torch's fused
kernel, called row by row, takes longer for its backward pass alone than these products do for both.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from fitune.training.kernels.layout import Group, Layout

NAME = "fitune-packed"
"""Among transformers' attention functions."""

KEPT = 256
"""Tokens: attention weights of longer rows are computed again in the backward pass, since they
would take ``[heads, longest, longest]`` a row and layer."""


class OtherAttention(ValueError):
    """A variant that packed attention is not; rows of such a model are padded."""


_layout: Layout | None = None


@contextmanager
def packed_layout(layout: Layout) -> Iterator[None]:
    """Inside the block, which has to hold the backward pass, too, `packed_attention` knows the
    rows.

    A variable and no argument: not every family of models hands unknown arguments on to its
    attention.
    """
    global _layout
    before, _layout = _layout, layout
    try:
        yield
    finally:
        _layout = before


def packed_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    position_bias: torch.Tensor | None = None,
    **unused: Any,
) -> tuple[torch.Tensor, None]:
    """Of the signature that transformers' models call.

    Args:
        query: ``[1, heads, tokens, size]``.
        key, value: ``[1, kv_heads, tokens, size]``; heads that are neighbours share one of them.

    Returns:
        ``[1, tokens, heads, size]``.

    Raises:
        OtherAttention: the model's attention is another.
    """
    if _layout is None:
        raise RuntimeError("packed attention is called inside packed_layout only")
    variants = (attention_mask, softcap, s_aux, position_bias)
    if dropout or any(variant is not None for variant in variants):
        raise OtherAttention("masks, dropout, soft caps, sinks and biases are not in packed rows")
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    if _layout.shared and not causal:
        raise OtherAttention("what rows share is not changed by what follows in causal models only")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    kind = query.device.type
    # Rotations may have left queries and keys in fp32.
    asked = torch.is_autocast_enabled(kind)
    dtype = torch.get_autocast_dtype(kind) if asked else value.dtype
    query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    with torch.autocast(kind, enabled=False):  # which has the softmax in fp32, inside and outside
        output = _Attend.apply(query, key, value, _layout, causal, sliding_window, scale)
    return output, None


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        layout: Layout,
        causal: bool,
        window: int | None,
        scale: float,
    ) -> torch.Tensor:
        ctx.layout, ctx.how, ctx.scale = layout, (causal, window), scale
        ctx.heads, ctx.kv_heads = query.shape[1], key.shape[1]
        outputs, saved = [], []
        for group in layout.groups:
            longest, keys = group.longest, group.keys(query.dtype)
            q = _gathered(query, group, layout, ctx.kv_heads, longest)
            k, v = (
                _gathered(each, group, layout, ctx.kv_heads, keys, before=group.shared)
                for each in (key, value)
            )
            weights = _weights(q, k, ctx, group)
            output = torch.bmm(weights, v)
            saved += [q, k, v, *([weights] if group.reach <= KEPT else [])]
            outputs.append(_scattered(output, group, layout, ctx.heads, longest))
        ctx.save_for_backward(*saved)
        return _joined(outputs)[None]

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        layout, saved = ctx.layout, iter(ctx.saved_tensors)
        grads: tuple[list[torch.Tensor], ...] = ([], [], [])
        for group in layout.groups:
            q, k, v = next(saved), next(saved), next(saved)
            longest, keys = group.longest, group.keys(q.dtype)
            weights = next(saved) if group.reach <= KEPT else _weights(q, k, ctx, group)
            d_output = _gathered(
                grad.transpose(1, 2), group, layout, ctx.kv_heads, longest, zeros=True
            )
            d_v = torch.bmm(weights.transpose(1, 2), d_output)
            d_weights = torch.bmm(d_output, v.transpose(1, 2))
            d_scores = torch._softmax_backward_data(d_weights, weights, -1, weights.dtype)
            del weights, d_weights
            d_q = torch.bmm(d_scores, k).mul_(ctx.scale)
            d_k = torch.bmm(d_scores.transpose(1, 2), q).mul_(ctx.scale)
            d_query, d_key, d_value = grads
            d_query.append(_scattered(d_q, group, layout, ctx.heads, longest))
            for d_own, found in ((d_k, d_key), (d_v, d_value)):
                if group.shared:  # the first group is what all rows share
                    found[0] += _shared(d_own, group, ctx.kv_heads)
                found.append(
                    _scattered(d_own, group, layout, ctx.kv_heads, keys, before=group.shared)
                )
        joined = (_joined(each).transpose(0, 1)[None] for each in grads)
        return (*joined, None, None, None, None)


def _weights(q: torch.Tensor, k: torch.Tensor, ctx: Any, group: Group) -> torch.Tensor:
    """Attention weights ``[rows * kv_heads, heads per kv_head * longest, keys]``."""
    causal, window = ctx.how
    mask = ctx.layout.mask(group, causal=causal, window=window, dtype=q.dtype)
    per = ctx.heads // ctx.kv_heads
    if per > 1 and mask.shape[1] > 1:
        mask = mask.repeat(1, per, 1)
    if mask.shape[0] > 1:
        mask = mask.repeat_interleave(ctx.kv_heads, 0)
    scores = torch.baddbmm(mask, q, k.transpose(1, 2), alpha=ctx.scale)
    return torch.softmax(scores, -1)


def _gathered(
    vectors: torch.Tensor,
    group: Group,
    layout: Layout,
    kv_heads: int,
    padded: int,
    *,
    zeros: bool = False,
    before: int = 0,
) -> torch.Tensor:
    """``[1, heads, tokens, size]`` → ``[rows * kv_heads, heads per kv_head * padded, size]``.

    Args:
        zeros: what padding is: zeros, or anything finite.
        before: how many of the padded are what all rows share; not with zeros.
    """
    _, heads, tokens, size = vectors.shape
    flat = vectors[0].transpose(0, 1).reshape(tokens * heads, size)
    places = layout.places(group, heads, padded, before=before)
    if zeros and group.ragged(padded):
        part = flat[group.start * heads : (group.start + group.tokens) * heads]
        apart = flat.new_zeros((len(places.gather), size)).index_copy_(0, places.scatter, part)
    else:
        apart = flat.index_select(0, places.gather)
    return apart.view(group.rows * kv_heads, -1, size)


def _scattered(
    vectors: torch.Tensor,
    group: Group,
    layout: Layout,
    heads: int,
    padded: int,
    *,
    before: int = 0,
) -> torch.Tensor:
    """The way back: ``[group's tokens, heads, size]``."""
    size = vectors.shape[-1]
    places = layout.places(group, heads, padded, before=before)
    flat = vectors.reshape(-1, size).index_select(0, places.scatter)
    return flat.view(group.tokens, heads, size)


def _shared(vectors: torch.Tensor, group: Group, heads: int) -> torch.Tensor:
    """What the rows' gradients ``[rows * heads, keys, size]`` come to at the tokens that all rows
    share: ``[shared, heads, size]``. Added up in fp32: there may be hundreds of rows."""
    rows = vectors.view(group.rows, heads, -1, vectors.shape[-1])[:, :, : group.shared]
    return rows.sum(0, dtype=torch.float32).transpose(0, 1).to(vectors.dtype)


def _joined(parts: list[torch.Tensor]) -> torch.Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)
