"""The largest micro-batch: the same as by trying every one."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fitune.memory.estimate import estimate_training
from fitune.memory.micro_batch import (
    WORKING_SET_TOKENS,
    largest_batch,
    micro_batch_tokens,
    rough_bytes,
)
from fitune.models.architecture import Architecture, describe_config
from memory_kit import family, training


@pytest.mark.parametrize("name", ["llama", "bert"])
def test_one_row_more_would_not_fit(name: str) -> None:
    config = family(name, layers=2)
    asked = training(seq=40)

    def peak(rows: int) -> int:
        return estimate_training(config, replace(asked, batch=rows)).peak_bytes

    budget = peak(9) + 1000
    found = largest_batch(config, asked, budget)
    assert found.rows == 9
    assert found.peak_bytes == peak(9) <= budget < peak(10)
    assert largest_batch(config, asked, peak(1)).rows == 1
    assert largest_batch(config, asked, peak(1) - 1).rows == 0
    assert largest_batch(config, asked, 1 << 40, most=3).rows == 3


def architecture(parameters: int = 10**6, layers: int = 6, hidden: int = 384) -> Architecture:
    return Architecture("bert", "encoder", parameters, layers, hidden, 30_000, 512)


@given(lengths=st.lists(st.integers(1, 10_000), min_size=1, max_size=9), rows=st.integers(1, 64))
def test_with_plenty_the_working_set_is_filled(lengths: list[int], rows: int) -> None:
    tokens = micro_batch_tokens(
        None, training(batch=rows), lengths, 1 << 50, architecture=architecture()
    )
    assert tokens >= max(lengths)
    assert tokens <= max(max(lengths), WORKING_SET_TOKENS)


@pytest.mark.parametrize("name", ["llama", "gpt2", "bert", "distilbert", "mixtral"])
@pytest.mark.parametrize("seq", [16, 250, 600])
def test_the_rough_bound_is_above_what_is_needed(name: str, seq: int) -> None:
    config = family(name)
    asked = training(batch=4, seq=seq, padded=True)
    if seq > 512 and name in ("bert", "distilbert"):
        pytest.skip("more than the model's positions")
    needed = estimate_training(config, asked).peak_bytes
    assert rough_bytes(describe_config(config), 4 * seq, seq) >= needed


def test_scarce_memory_cuts_the_batch_at_both_ends() -> None:
    config = family("llama", layers=2)
    lengths = [12, 200]
    asked = training(batch=16, padded=True)
    sizes = []
    for budget in (6 << 20, 64 << 20):
        tokens = micro_batch_tokens(
            config, asked, lengths, budget, architecture=describe_config(config)
        )
        sizes.append(tokens)
        if tokens > 200:
            for seq in lengths:
                rows = min(16, tokens // seq)
                shape = replace(asked, batch=rows, seq=seq)
                assert estimate_training(config, shape).peak_bytes <= budget
    assert sizes == sorted(sizes) and sizes[0] == 200 and sizes[-1] > 200
