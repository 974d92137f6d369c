"""Measures of rankings, by hand and against other libraries."""

from __future__ import annotations

import string

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fitune.errors import ConfigError, DataError
from fitune.retrieval.measures import answer_mrr, answer_recall, measure

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


def has_answer(passage: str, answer: str) -> bool:
    """Brute force: the answer's words at every place of the passage's."""
    plain = [
        [
            word
            for word in "".join(c for c in text.lower() if c not in string.punctuation).split()
            if word not in ("a", "an", "the")
        ]
        for text in (passage, answer)
    ]
    words, wanted = plain
    places = range(len(words) - len(wanted) + 1)
    return bool(wanted) and any(words[at : at + len(wanted)] == wanted for at in places)


TEXTS = st.lists(
    st.sampled_from(["a", "the", "b", "c", "1952", "52", "B.", "the c", "'", "b-c"]), max_size=6
).map(" ".join)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.lists(TEXTS, max_size=4), TEXTS), min_size=1, max_size=6),
    st.integers(1, 5),
)
def test_answers_in_passages_against_brute_force(rows: list[tuple[list[str], str]], k: int) -> None:
    shown, answers = [its for its, _ in rows], [answer for _, answer in rows]
    found = [[has_answer(passage, answer) for passage in its[:k]] for its, answer in rows]
    recall = sum(any(its) for its in found) / len(rows)
    mrr = sum(1 / (1 + its.index(True)) if any(its) else 0 for its in found) / len(rows)
    assert answer_recall(shown, answers, k) == pytest.approx(recall)
    assert answer_mrr(shown, answers, k) == pytest.approx(mrr)


def test_answers_in_passages_by_hand() -> None:
    shown = [["In 1952.", "It was the 52 of May"], ["no", "The Sky, blue"], []]
    answers = ["52", "the sky", "x"]
    assert [answer_recall(shown, answers, k) for k in (1, 2)] == [0, pytest.approx(2 / 3)]
    assert answer_mrr(shown, answers, 2) == pytest.approx(1 / 3)


def test_answers_and_passages_must_belong_together() -> None:
    with pytest.raises(DataError, match="passages of 1 rows and answers of 2"):
        answer_recall([["a"]], ["a", "b"], 1)
    with pytest.raises(DataError, match="of 0 rows"):
        answer_mrr([], [], 1)
    with pytest.raises(ConfigError, match="k is 0"):
        answer_recall([["a"]], ["a"], 0)
