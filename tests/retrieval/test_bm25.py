"""BM25, against the formula in float64 by brute force and against another library."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fitune.errors import ConfigError, RunError
from fitune.retrieval.bm25 import Bm25
from fitune.retrieval.terms import terms

WORDS = ["card", "bank", "late", "fee", "pin", "help", "cash", "stolen"]
TEXTS = st.lists(st.sampled_from(WORDS), min_size=1, max_size=12).map(" ".join)


def by_the_formula(passages: list[list[str]], query: list[str], k1: float, b: float) -> list[float]:
    """As Lucene's documentation writes it, one passage and one term at a time."""
    mean = sum(map(len, passages)) / len(passages)
    scores = []
    for passage in passages:
        score = 0.0
        for term in query:
            df = sum(term in other for other in passages)
            tf = passage.count(term)
            idf = math.log(1 + (len(passages) - df + 0.5) / (df + 0.5))
            if tf:
                score += idf * tf / (tf + k1 * (1 - b + b * len(passage) / mean))
        scores.append(score)
    return scores


@settings(deadline=None)
@given(
    st.lists(TEXTS, min_size=1, max_size=12),
    TEXTS,
    st.sampled_from([(1.5, 0.75), (0.9, 0.4), (0.0, 0.0), (2.0, 1.0)]),
)
def test_scores_are_those_of_the_formula(
    passages: list[str], query: str, options: tuple[float, float]
) -> None:
    k1, b = options
    wanted = by_the_formula([text.split() for text in passages], query.split(), k1, b)
    retriever = Bm25(k1=k1, b=b)
    retriever.build(passages)
    [hits] = retriever.search([query], len(passages))
    assert {hit.passage for hit in hits} == {i for i, score in enumerate(wanted) if score}
    for hit in hits:
        assert hit.score == pytest.approx(wanted[hit.passage], rel=2e-6)
    scores = [hit.score for hit in hits]
    assert scores == sorted(scores, reverse=True)


def test_scores_are_those_of_bm25s() -> None:
    bm25s = pytest.importorskip("bm25s")
    rng = np.random.default_rng(0)
    weights = 1 / np.arange(1, 301)
    passages = [
        " ".join(f"w{i}" for i in rng.choice(300, size=size, p=weights / weights.sum()))
        for size in rng.integers(1, 60, size=400)
    ]
    other = bm25s.BM25(method="lucene", k1=1.5, b=0.75)
    other.index([terms(text) for text in passages], show_progress=False)
    mine = Bm25()
    mine.build(passages)
    for query in ("w0 w7 w120", "w299 w299 w1", "w3 unknown"):
        wanted = other.get_scores(terms(query))
        [hits] = mine.search([query], 400)
        scores = np.zeros(400)
        scores[[hit.passage for hit in hits]] = [hit.score for hit in hits]
        np.testing.assert_allclose(scores, wanted, rtol=1e-5)


def test_stop_words_count_neither_in_queries_nor_in_lengths() -> None:
    plain, stopped = Bm25(), Bm25(stopwords="english")
    plain.build(["card stolen", "bank late fee"])
    stopped.build(["the card was stolen", "the bank is late with a fee"])
    assert stopped.search(["the stolen card"], 2) == plain.search(["stolen card"], 2)
    assert stopped.search(["the"], 2) == [[]]


def test_stemming_joins_forms_of_a_word() -> None:
    pytest.importorskip("Stemmer")
    retriever = Bm25(stem="english")
    retriever.build(["cards were stolen", "my card", "the fee"])
    [hits] = retriever.search(["card"], 3)
    assert [hit.passage for hit in hits] == [1, 0]  # the shorter one first
    assert retriever.search(["card"], 3) == retriever.search(["cards"], 3)


def test_a_saved_one_answers_as_before(tmp_path: Path, passages: list[str]) -> None:
    made = Bm25(k1=1.2, b=0.5, stopwords=["the"])
    made.build(passages)
    made.save(tmp_path / "words")
    loaded = Bm25.load(tmp_path / "words")
    queries = ["the card", "late transfer fee", "盗まれ", ""]
    assert loaded.search(queries, 5) == made.search(queries, 5)
    assert loaded.options == made.options


def test_building_again_takes_the_place_of_what_was_there() -> None:
    retriever = Bm25()
    retriever.build(["old words", "more old words"])
    retriever.build(["new"])
    assert retriever.search(["old"], 3) == [[]]
    assert [hit.passage for hit in retriever.search(["new"], 3)[0]] == [0]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"k1": -1.0}, "k1 is -1"),
        ({"k1": math.nan}, "k1 is nan"),
        ({"b": 1.5}, "b is 1.5"),
        ({"b": -0.1}, "b is -0.1"),
    ],
)
def test_values_outside_their_limits(options: dict, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Bm25(**options)


def test_a_damaged_folder_is_named(tmp_path: Path) -> None:
    made = Bm25()
    made.build(["a b"])
    made.save(tmp_path / "words")
    (tmp_path / "words" / "bm25.safetensors").write_bytes(b"\0")
    with pytest.raises(RunError, match="is damaged"):
        Bm25.load(tmp_path / "words")
    with pytest.raises(RunError, match="is missing"):
        Bm25.load(tmp_path / "nothing")
