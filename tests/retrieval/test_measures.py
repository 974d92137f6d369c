"""Measures of rankings, by hand and against other libraries."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fitune.errors import ConfigError, DataError
from fitune.retrieval.measures import measure

ALL = ("recall@1", "recall@3", "precision@1", "precision@3", "mrr@3", "ndcg@3", "ndcg@10")


def values(rankings, relevant, names=ALL) -> dict[str, list[float]]:
    return {m.name: m.values.tolist() for m in measure(rankings, relevant, names)}


def test_by_hand() -> None:
    got = values([[5, 2, 9, 1], [7], []], [{2, 1}, {7}, {3}])
    log3 = np.log2(3)
    assert got["recall@1"] == [0.0, 1.0, 0.0]
    assert got["recall@3"] == [0.5, 1.0, 0.0]
    assert got["precision@1"] == [0.0, 1.0, 0.0]
    assert got["precision@3"] == pytest.approx([1 / 3, 1 / 3, 0.0])
    assert got["mrr@3"] == [0.5, 1.0, 0.0]
    assert got["ndcg@3"] == pytest.approx([(1 / log3) / (1 + 1 / log3), 1.0, 0.0])
    whole = (1 / log3 + 1 / np.log2(5)) / (1 + 1 / log3)
    assert got["ndcg@10"] == pytest.approx([whole, 1.0, 0.0])


@settings(deadline=None)  # the first call imports scikit-learn
@given(st.permutations(range(8)), st.lists(st.integers(0, 3), min_size=8, max_size=8))
def test_ndcg_is_that_of_scikit_learn(order: list[int], gains: list[int]) -> None:
    from sklearn.metrics import ndcg_score

    if not any(gains):
        return
    scores = np.empty(8)
    scores[order] = np.arange(8, 0, -1)
    known = {i: float(gain) for i, gain in enumerate(gains) if gain}
    for k in (1, 3, 8):
        [measured] = measure([order], [known], [f"ndcg@{k}"])
        assert measured.mean == pytest.approx(ndcg_score([gains], [scores], k=k), abs=1e-12)


def test_means_and_intervals() -> None:
    rng = np.random.default_rng(0)
    rankings = [rng.permutation(10).tolist() for _ in range(200)]
    [measured] = measure(rankings, [{0}] * 200, ["mrr@10"])
    assert measured.mean == pytest.approx(measured.values.mean())
    error = measured.values.std() / np.sqrt(200)
    assert measured.interval.low == pytest.approx(measured.mean - 1.96 * error, abs=0.3 * error)
    assert measured.interval.high == pytest.approx(measured.mean + 1.96 * error, abs=0.3 * error)


def test_always_right_is_not_certain() -> None:
    [measured] = measure([[1]] * 20, [{1}] * 20, ["recall@1"])
    assert measured.interval.high == 1.0 and measured.interval.low < 0.9


@pytest.mark.parametrize(
    ("rankings", "relevant", "names", "error", "said"),
    [
        ([[1]], [set()], ["mrr@1"], DataError, "query 0 has no relevant passage"),
        ([[1]], [{1: 0.0}], ["mrr@1"], DataError, "gain of 0"),
        ([[1, 1]], [{1}], ["mrr@1"], DataError, "a passage twice"),
        ([[1]], [], ["mrr@1"], DataError, "of 0 queries"),
        ([], [], ["mrr@1"], DataError, "0 rankings"),
        ([[1]], [{1}], ["mrr"], ConfigError, "no measure 'mrr'"),
        ([[1]], [{1}], ["recall@0"], ConfigError, "no measure 'recall@0'"),
        ([[1]], [{1}], ["map@3"], ConfigError, "no measure 'map@3'"),
    ],
)
def test_what_cannot_be_measured(rankings, relevant, names, error, said: str) -> None:
    with pytest.raises(error, match=said):
        measure(rankings, relevant, names)
