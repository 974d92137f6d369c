"""Packed attention against attention row by row, in float64."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from fitune.training.kernels import packed_attention as packed
from fitune.training.kernels.layout import Layout
from fitune.training.kernels.packed_attention import (
    OtherAttention,
    packed_attention,
    packed_layout,
)

SIZE = 4


def draw(heads: int, tokens: int, seed: int) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    shape = (1, tokens, heads, SIZE)
    made = torch.randn(shape, generator=random, dtype=torch.float64)
    return made.transpose(1, 2).requires_grad_()


def row_by_row(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    lengths: tuple[int, ...],
    *,
    causal: bool,
    window: int | None,
    scale: float,
) -> torch.Tensor:
    outputs, start = [], 0
    for length in lengths:
        part = slice(start, start + length)
        start += length
        at = torch.arange(length)
        distance = at[:, None] - at[None]
        readable = torch.ones(length, length, dtype=torch.bool)
        if causal:
            readable &= distance >= 0
        if window is not None:
            readable &= distance.abs() < window
        outputs.append(
            functional.scaled_dot_product_attention(
                q[:, :, part],
                k[:, :, part],
                v[:, :, part],
                attn_mask=readable,
                scale=scale,
                enable_gqa=True,
            )
        )
    return torch.cat(outputs, dim=2).transpose(1, 2)


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6).map(tuple),
    per=st.sampled_from((1, 3)),
    causal=st.booleans(),
    window=st.sampled_from((None, 2, 5)),
    kept=st.sampled_from((0, 4, 256)),
)
def test_outputs_and_gradients_are_those_of_each_row_alone(
    lengths: tuple[int, ...], per: int, causal: bool, window: int | None, kept: int
) -> None:
    tokens = sum(lengths)
    given_tensors = [draw(2 * per, tokens, 0), draw(2, tokens, 1), draw(2, tokens, 2)]
    twins = [tensor.detach().clone().requires_grad_() for tensor in given_tensors]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packed, "KEPT", kept)
        with packed_layout(Layout(lengths, torch.device("cpu"))):
            found, _ = packed_attention(
                SimpleNamespace(is_causal=causal),
                *given_tensors,
                None,
                scaling=0.3,
                sliding_window=window,
            )
            expected = row_by_row(*twins, lengths, causal=causal, window=window, scale=0.3)
            weights = torch.randn_like(found)
            (found * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(found, expected)
    for tensor, twin in zip(given_tensors, twins, strict=True):
        torch.testing.assert_close(tensor.grad, twin.grad)


def test_what_the_kernel_does_not_know_is_refused() -> None:
    q, k, v = (draw(2, 3, seed) for seed in range(3))
    module = SimpleNamespace(is_causal=True)
    with packed_layout(Layout((3,), torch.device("cpu"))):
        for more in ({"softcap": 30.0}, {"s_aux": q}, {"position_bias": q}, {"dropout": 0.1}):
            with pytest.raises(OtherAttention):
                packed_attention(module, q, k, v, None, **more)
        with pytest.raises(OtherAttention):
            packed_attention(module, q, k, v, torch.zeros(1, 1, 3, 3))
    with pytest.raises(RuntimeError):
        packed_attention(module, q, k, v, None)


@settings(max_examples=60, deadline=None)
@given(
    shared=st.integers(1, 9),
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6).map(tuple),
    per=st.sampled_from((1, 3)),
    window=st.sampled_from((None, 2, 5)),
    kept=st.sampled_from((0, 8, 256)),
)
def test_what_rows_share_is_read_and_learned_from_by_each(
    shared: int, lengths: tuple[int, ...], per: int, window: int | None, kept: int
) -> None:
    tokens = shared + sum(lengths)
    given_tensors = [draw(2 * per, tokens, 0), draw(2, tokens, 1), draw(2, tokens, 2)]
    twins = [tensor.detach().clone().requires_grad_() for tensor in given_tensors]
    starts = [shared + sum(lengths[:i]) for i in range(len(lengths))]
    parts = [slice(start, start + n) for start, n in zip(starts, lengths, strict=True)]
    whole = [
        torch.cat(
            [t[:, :, :shared], *(x for p in parts for x in (t[:, :, :shared], t[:, :, p]))], 2
        )
        for t in twins
    ]  # what they share by itself, and each row with it
    every = (shared, *(shared + n for n in lengths))
    apart = row_by_row(*whole, every, causal=True, window=window, scale=0.3)
    own = [part[:, shared:] for part in apart[:, shared:].split(every[1:], dim=1)]
    expected = torch.cat([apart[:, :shared], *own], dim=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packed, "KEPT", kept)
        with packed_layout(Layout(lengths, torch.device("cpu"), shared=shared)):
            found, _ = packed_attention(
                SimpleNamespace(is_causal=True),
                *given_tensors,
                None,
                scaling=0.3,
                sliding_window=window,
            )
            weights = torch.randn_like(found)
            (found * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(found, expected)
    for tensor, twin in zip(given_tensors, twins, strict=True):
        # What rows share learns from all of them in fp32.
        torch.testing.assert_close(tensor.grad, twin.grad, rtol=1e-5, atol=1e-5)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=20))
def test_groups_hold_every_row_once_and_little_padding(lengths: list[int]) -> None:
    layout = Layout(sorted(lengths), torch.device("cpu"))
    assert [n for group in layout.groups for n in group.lengths] == sorted(lengths)
    start = 0
    for group in layout.groups:
        assert group.start == start
        start += group.tokens
        assert group.rows == 1 or group.rows * group.longest <= 1.25 * group.tokens
