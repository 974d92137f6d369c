"""The k highest of many scores, against sorting them all."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fitune.retrieval.best import best


@given(st.lists(st.integers(-3, 3), max_size=30), st.integers(1, 40))
def test_as_sorting_all_with_equals_in_order(scores: list[int], k: int) -> None:
    wanted = sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:k]
    assert best(np.array(scores, dtype=np.float32), k).tolist() == wanted
