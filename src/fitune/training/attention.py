"""Which attention kernel trains fastest for rows of a given length.

Knows transformers' names for kernels; knows nothing of what is trained.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

SHORT_ROWS = 256
"""Tokens: up to here a CPU trains faster with plain matrix products, whose backward pass beats the
fused kernel's (28 % of a step at 12 tokens a row, 14 % at 60); longer rows would hold
``[rows, heads, tokens, tokens]`` in memory."""


@contextmanager
def training_attention(model: Any, *, longest: int, device: str) -> Iterator[None]:
    """Inside the block, `model` computes attention by the kernel that suits its rows.

    Args:
        model: a classifier with a `trunk`, or a transformers (or PEFT) model.
        longest: tokens of the longest row.
    """
    inner = getattr(model, "trunk", model)
    before = inner.config._attn_implementation
    plain = device == "cpu" and longest <= SHORT_ROWS and before == "sdpa"
    if plain:
        inner.set_attn_implementation("eager")
    try:
        yield
    finally:
        if plain:
            inner.set_attn_implementation(before)
