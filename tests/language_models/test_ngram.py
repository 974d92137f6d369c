"""N-gram models, against Chen and Goodman's formulas written out with dictionaries."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fitune.errors import ConfigError, DataError, TrainingError
from fitune.language_models import ngram, ngram_counts
from fitune.language_models import smoothing as smoothing_of
from fitune.language_models.ngram import NGram
from fitune.language_models.smoothing import SMOOTHINGS, discounts

Gram = tuple[object, ...]
FEW = [[0, 1, 2, 0, 1], [2, 2, 1], [], [0, 1, 2, 2], [3]]


def ids(sequences: Sequence[Sequence[int]]) -> list[np.ndarray]:
    return [np.array(one, np.int32) for one in sequences]


def fitted(
    sequences: Sequence[Sequence[int]], vocabulary: int, order: int, smoothing: str = "kneser-ney"
) -> NGram:
    model = NGram(vocabulary, order=order, smoothing=smoothing)
    model.fit(ids(sequences))
    return model


class ByTheBook:
    """The formulas as they are printed, one n-gram at a time.

    Chen and Goodman (1998), equations 24 to 26; below the highest order with continuation counts
    (equation 22's), except after the begin, where nothing can stand before.
    """

    def __init__(self, sequences: Sequence[Sequence[int]], vocabulary: int, order: int) -> None:
        self.order = order
        self.words = [*range(vocabulary), "</s>"]
        raw: list[Counter[Gram]] = [Counter() for _ in range(order + 1)]
        for one in sequences:
            text = ["<s>", *one, "</s>"]
            for end in range(1, len(text)):
                for n in range(1, order + 1):
                    if end - n + 1 >= 0:
                        raw[n][tuple(text[end - n + 1 : end + 1])] += 1
        self.counts: list[dict[Gram, int]] = [{} for _ in range(order + 1)]
        for n in range(1, order + 1):
            for gram, count in raw[n].items():
                if n == order or gram[0] == "<s>":
                    self.counts[n][gram] = count
                else:
                    self.counts[n][gram] = sum(longer[1:] == gram for longer in raw[n + 1])
        self.discounts = [[0.0] * 4] + [
            self.taken(list(self.counts[n].values())) for n in range(1, order + 1)
        ]
        self.followers: list[dict[Gram, list[int]]] = []
        for n in range(order + 1):
            after = defaultdict(list)
            for gram, count in self.counts[n].items():
                after[gram[:-1]].append(count)
            self.followers.append(after)

    @staticmethod
    def taken(counts: list[int]) -> list[float]:
        n1, n2, n3, n4 = (counts.count(k) for k in (1, 2, 3, 4))
        if n1 and n2 and n3 and n4:
            y = n1 / (n1 + 2 * n2)
            d1, d2, d3 = 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3
            if 0 < d1 < 1 and 0 < d2 < 2 and 0 < d3 < 3:
                return [0.0, d1, d2, d3]
        return [0.0, 0.5, 1.0, 1.5]

    def probability(self, word: object, context: Gram) -> float:
        n = len(context) + 1
        shorter = self.probability(word, context[1:]) if context else 1 / len(self.words)
        counts = self.followers[n].get(context)
        if not counts:
            return shorter
        d = self.discounts[n]
        count = self.counts[n].get((*context, word), 0)
        free = sum(d[min(c, 3)] for c in counts)
        return (count - d[min(count, 3)] + free * shorter) / sum(counts)

    def log_probabilities(self, sequence: Sequence[int]) -> list[float]:
        text: list[object] = ["<s>", *sequence, "</s>"]
        return [
            math.log(self.probability(text[i], tuple(text[max(0, i - self.order + 1) : i])))
            for i in range(1, len(text))
        ]


Corpus = tuple[int, list[list[int]], list[list[int]]]
"""Vocabulary, train and test."""

corpora = st.integers(1, 6).flatmap(
    lambda size: st.tuples(
        st.just(size),
        st.lists(st.lists(st.integers(0, size - 1), max_size=12), min_size=1, max_size=30),
        st.lists(st.lists(st.integers(0, size - 1), max_size=8), min_size=1, max_size=4),
    )
)


@settings(max_examples=60, deadline=None)
@given(corpora, st.integers(1, 5))
def test_kneser_ney_is_as_the_book_has_it(corpus: Corpus, order: int) -> None:
    size, train, test = corpus
    model, book = fitted(train, size, order), ByTheBook(train, size, order)
    for found, one in zip(model.log_probabilities(ids(test)), test, strict=True):
        np.testing.assert_allclose(found, book.log_probabilities(one), atol=1e-9)


def test_with_discounts_from_counts_of_counts() -> None:
    """A corpus large enough that no order falls back to the fixed discounts."""
    draw = np.random.default_rng(0)
    weights = 1 / np.arange(1, 121)
    train = [draw.choice(120, p=weights / weights.sum(), size=9).tolist() for _ in range(200)]
    model, book = fitted(train, 120, 3), ByTheBook(train, 120, 3)
    assert all(taken != [0.0, 0.5, 1.0, 1.5] for taken in book.discounts[1:])
    test = [draw.integers(120, size=12).tolist() for _ in range(10)]
    for found, one in zip(model.log_probabilities(ids(test)), test, strict=True):
        np.testing.assert_allclose(found, book.log_probabilities(one), atol=1e-9)


@settings(max_examples=50, deadline=None)
@given(corpora, st.integers(1, 5), st.sampled_from(sorted(SMOOTHINGS)))
def test_distributions_sum_to_one_and_are_what_scoring_says(
    corpus: Corpus, order: int, smoothing: str
) -> None:
    size, train, test = corpus
    model = fitted(train, size, order, smoothing)
    for one, logs in zip(test, model.log_probabilities(ids(test)), strict=True):
        assert len(logs) == len(one) + 1
        for i in range(len(one) + 1):
            made = model.next_distribution(one[:i])
            assert made.shape == (size + 1,)
            assert made.sum() == pytest.approx(1, abs=1e-9)
            assert (made > 0).all()
            assert logs[i] == pytest.approx(math.log(made[one[i] if i < len(one) else size]))


def test_absolute_discounting_by_hand() -> None:
    """Counts 2 and 1 after the context, so D = 1 / (1 + 2 · 1) at the order of bigrams."""
    model = fitted([[0], [0], [1]], 3, 2, "absolute")
    after_begin = model.next_distribution([])
    # Bigrams: <s> 0 twice, <s> 1 once, 0 </s> twice, 1 </s> once: n1 = 2, n2 = 2, D = 1/3.
    assert after_begin[0] == pytest.approx((2 - 1 / 3) / 3)
    assert after_begin[1] == pytest.approx((1 - 1 / 3) / 3)
    # Unigrams: 0 twice, 1 once, </s> three times: n1 = n2 = 1, D = 1/3; 4 outcomes.
    end, two = (3 - 1 / 3 + 1 / 4) / 6, (1 / 4) / 6
    assert after_begin[3] / after_begin[2] == pytest.approx(end / two)


def test_absolute_where_every_token_was_seen() -> None:
    """Nothing is left to give discounts to: counts alone remain."""
    model = fitted([[0, 0], [0]], 1, 2, "absolute")
    np.testing.assert_allclose(model.next_distribution([0]), [1 / 3, 2 / 3])


def test_discounts_of_chen_and_goodman() -> None:
    counts = np.repeat([1, 2, 3, 4, 9], [40, 15, 8, 5, 3])
    y = 40 / (40 + 30)
    expected = [0, 1 - 2 * y * 15 / 40, 2 - 3 * y * 8 / 15, 3 - 4 * y * 5 / 8]
    np.testing.assert_allclose(discounts(counts), expected)


@pytest.mark.parametrize(
    "counts",
    [[], [1, 1, 2, 3], [5, 9], [1, 2, 3, 4, 4, 4, 4, 4], [1, 1, 1, 1, 2, 3, 3, 4]],
)
def test_discounts_of_small_corpora(counts: list[int]) -> None:
    assert discounts(np.array(counts, np.int64)).tolist() == [0.0, 0.5, 1.0, 1.5]


@pytest.mark.parametrize("smoothing", sorted(SMOOTHINGS))
def test_parts_change_nothing(smoothing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counting in many parts, and scoring in many batches, is counting and scoring at once."""
    draw = np.random.default_rng(1)
    train = [draw.integers(20, size=n).tolist() for n in draw.integers(0, 30, 80)]
    whole = fitted(train, 20, 4, smoothing)
    expected = whole.log_probabilities(ids(train))
    monkeypatch.setattr(ngram_counts, "PART", 50)
    monkeypatch.setattr(smoothing_of, "PART", 7)
    monkeypatch.setattr(ngram, "AT_ONCE", 40)
    parts = fitted(train, 20, 4, smoothing)
    for one, other in zip(whole.levels, parts.levels, strict=True):
        np.testing.assert_array_equal(one.keys, other.keys)
        np.testing.assert_array_equal(one.log_probabilities, other.log_probabilities)
        np.testing.assert_array_equal(one.log_backoffs, other.log_backoffs)
    for found, wanted in zip(parts.log_probabilities(ids(train)), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)


@given(st.lists(st.integers(0, 2**62)), st.booleans())
def test_sorting(keys: list[int], small: bool) -> None:
    array = np.array(keys, np.int64) % (1000 if small else 2**62)
    found, order = ngram_counts._sorted(array)
    np.testing.assert_array_equal(found, np.sort(array))
    np.testing.assert_array_equal(order, np.argsort(array, kind="stable"))


def test_counts_are_those_of_dictionaries() -> None:
    tables = ngram_counts.count_ngrams(ids(FEW), 4, 3)
    width = ngram_counts.width_of(4)
    expected: Counter[Gram] = Counter()
    for one in FEW:
        text = [5, *one, 4]
        expected.update(tuple(text[i : i + 3]) for i in range(len(text) - 2))
    found = {}
    for key, count in zip(tables[2].keys, tables[2].counts, strict=True):
        pair = tables[1].keys[key // width]
        found[(int(pair // width), int(pair % width), int(key % width))] = int(count)
    assert found == expected


def test_sampling_is_seeded_and_follows_the_distribution() -> None:
    model = fitted(FEW * 3, 4, 3)
    assert model.sample(20, seed=3) == model.sample(20, seed=3)
    firsts = [model.sample(1, seed=seed, prefix=[0, 1]) for seed in range(2000)]
    shares = [np.mean([first == [token] for first in firsts]) for token in range(4)]
    shares.append(np.mean([first == [] for first in firsts]))
    np.testing.assert_allclose(shares, model.next_distribution([0, 1]), atol=0.04)
    assert len(fitted([[0] * 500], 1, 2).sample(7, seed=0)) <= 7


@pytest.mark.parametrize("smoothing", sorted(SMOOTHINGS))
def test_a_saved_model_answers_as_before(smoothing: str, tmp_path: Path) -> None:
    model = fitted(FEW, 4, 3, smoothing)
    model.save(tmp_path / "model")
    read = NGram.load(tmp_path / "model")
    assert (read.order, read.smoothing, read.parameters) == (3, smoothing, model.parameters)
    for found, wanted in zip(
        read.log_probabilities(ids(FEW)), model.log_probabilities(ids(FEW)), strict=True
    ):
        np.testing.assert_array_equal(found, wanted)
    assert {path.suffix for path in (tmp_path / "model").iterdir()} == {".json", ".safetensors"}


def test_parameters() -> None:
    """Tokens 0 and 1, end and begin; bigrams <s> 0, 0 1, 1 </s>: 4 + 3, and 4 weights."""
    assert fitted([[0, 1]], 2, 2).parameters == 4 + 3 + 4


def test_what_is_refused() -> None:
    for order in (0, -1, 21):
        with pytest.raises(ConfigError, match=f"order is {order}"):
            NGram(3, order=order)
    with pytest.raises(ConfigError, match="no smoothing 'laplace'"):
        NGram(3, smoothing="laplace")
    with pytest.raises(ConfigError, match="0 tokens"):
        NGram(0)
    with pytest.raises(DataError, match="no sequence"):
        NGram(3).fit([])
    with pytest.raises(DataError, match="token id 3 where the vocabulary has 3"):
        NGram(3).fit(ids([[0, 3]]))
    with pytest.raises(DataError, match="token id -1"):
        fitted(FEW, 4, 2).log_probabilities(ids([[-1]]))
    for ask in (
        lambda: NGram(3).log_probabilities(ids([[0]])),
        lambda: NGram(3).next_distribution([0]),
    ):
        with pytest.raises(TrainingError, match="learned nothing"):
            ask()
