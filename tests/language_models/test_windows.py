"""Windows over long sequences, and drawing."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from fitune.language_models.windows import drawn, last_window, score_in_windows, windows


@given(read=st.integers(1, 60), context=st.integers(1, 12))
def test_windows_cover_everything_with_half_a_context_before(read: int, context: int) -> None:
    found = windows(read, context)
    assert found[0][0] == 0 and found[-1][1] == read
    assert all(stop - begin <= context for begin, stop in found)
    reached = 0
    for begin, stop in found:
        assert begin <= reached and stop > reached  # no gap, and each one is needed
        assert begin == 0 or reached - begin >= context // 2
        reached = stop
    assert last_window(read, context) == found[-1][0]


@given(
    lengths=st.lists(st.integers(0, 40), min_size=1, max_size=6),
    context=st.integers(1, 9),
    at_once=st.integers(1, 40),
)
def test_each_token_is_judged_once_in_its_place(lengths, context, at_once) -> None:
    """A judge whose log-probability says what was read and what is to be said."""
    sequences = [np.arange(10 * i, 10 * i + n, dtype=np.int32) for i, n in enumerate(lengths)]

    def judge(ids: torch.Tensor, targets: torch.Tensor) -> np.ndarray:
        there = targets >= 0
        return (ids[there] * 1000 + targets[there]).numpy().astype(np.float64)

    found = score_in_windows(sequences, judge, start=97, end=98, context=context, at_once=at_once)
    for sequence, said in zip(sequences, found, strict=True):
        read, follows = [97, *sequence.tolist()], [*sequence.tolist(), 98]
        assert said.tolist() == [a * 1000 + b for a, b in zip(read, follows, strict=True)]


def test_drawing_stops_at_the_end() -> None:
    def distribution(prefix) -> np.ndarray:
        return np.eye(4)[min(3, len(prefix))]

    assert drawn(distribution, 10, seed=0, prefix=[]) == [0, 1, 2]
    assert drawn(distribution, 1, seed=0, prefix=[7]) == [1]
    assert drawn(distribution, 10, seed=0, prefix=[7, 7, 7]) == []
