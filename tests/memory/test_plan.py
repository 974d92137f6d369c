"""The micro-batch: never less than a row, never more than memory or use allows."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fitune.memory.plan import (
    ACTIVATION_SHARE,
    WORKING_SET_TOKENS,
    activation_bytes_per_token,
    micro_batch_tokens,
)
from fitune.models.architecture import Architecture


def architecture(parameters: int = 10**6, layers: int = 6, hidden: int = 384) -> Architecture:
    return Architecture("bert", "encoder", parameters, layers, hidden, 30_000, 512)


@given(longest=st.integers(1, 10_000), memory=st.integers(0, 2**40))
def test_bounds(longest: int, memory: int) -> None:
    tokens = micro_batch_tokens(architecture(), longest=longest, memory_bytes=memory)
    assert tokens >= longest
    assert tokens <= max(longest, WORKING_SET_TOKENS)
    if tokens > longest:
        needed = tokens * activation_bytes_per_token(architecture())
        assert needed <= memory * ACTIVATION_SHARE


def test_more_memory_never_means_fewer_tokens() -> None:
    sizes = [
        micro_batch_tokens(architecture(), longest=1, memory_bytes=memory << 20)
        for memory in range(1, 2000, 50)
    ]
    assert sizes == sorted(sizes) and sizes[0] == 1 and sizes[-1] == WORKING_SET_TOKENS
