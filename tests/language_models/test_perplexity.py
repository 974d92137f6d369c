"""Perplexity and bits per byte, counted by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from fitune.errors import DataError
from fitune.language_models import perplexity
from fitune.language_models.ngram import NGram
from fitune.language_models.perplexity import score
from fitune.language_models.vocabulary import build_vocabulary


class Uniform:
    """Every token and the end alike."""

    def __init__(self, outcomes: int) -> None:
        self.outcomes = outcomes

    def log_probabilities(self, sequences: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [np.full(len(one) + 1, -math.log(self.outcomes)) for one in sequences]


def uniform(outcomes: int) -> Any:
    return Uniform(outcomes)


def test_a_uniform_model_is_as_perplexed_as_it_has_choices() -> None:
    vocabulary = build_vocabulary(["ab", "été"], "characters")
    found = score(uniform(8), vocabulary, ["ab", "", "été"])
    assert found.perplexity == pytest.approx(8)
    assert found.predictions == 2 + 3 + 3  # three ends
    assert found.bytes == 2 + 5 + 3  # é has two; three line breaks
    assert found.bits_per_byte == pytest.approx(8 * 3 / 10)
    assert (found.unknown, found.spelling, found.exact) == (0, 0.0, True)
    whole = score(uniform(8), vocabulary, ["ab", "", "été"], separator="")
    assert (whole.bytes, whole.perplexity) == (7, pytest.approx(8))


def test_unknown_ones_are_spelt() -> None:
    """Each costs its bytes and an end, of 257 symbols; perplexity does not tell."""
    vocabulary = build_vocabulary(["the cat"], "words")
    found = score(uniform(4), vocabulary, ["the dog été"])
    assert found.unknown == 2
    assert found.spelling == pytest.approx((3 + 1 + 5 + 1) * math.log(257))
    bits = 4 * 2 + 10 * math.log2(257)
    assert found.bits_per_byte == pytest.approx(bits / len("the dog été\n".encode()))
    assert found.perplexity == pytest.approx(4)
    assert not found.exact


@pytest.mark.parametrize("kind", ["words", "characters", "subwords"])
def test_batches_change_nothing(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"line {i} of {i * i} words" for i in range(50)]
    vocabulary = build_vocabulary(texts[:20], kind)
    model = NGram(len(vocabulary), order=3)
    model.fit(vocabulary.encode_all(texts[:20]))
    whole = score(model, vocabulary, texts)
    monkeypatch.setattr(perplexity, "AT_ONCE", 7)
    parts = score(model, vocabulary, iter(texts))
    assert parts.nats == pytest.approx(whole.nats)
    assert (parts.predictions, parts.bytes) == (whole.predictions, whole.bytes)
    assert parts.spelling == pytest.approx(whole.spelling)


def test_what_is_impossible_is_infinite() -> None:
    vocabulary = build_vocabulary(["ab"], "characters")

    class Sure:
        def log_probabilities(self, sequences: Sequence[np.ndarray]) -> list[np.ndarray]:
            return [np.full(len(one) + 1, -np.inf) for one in sequences]

    sure: Any = Sure()
    found = score(sure, vocabulary, ["ab"])
    assert found.perplexity == found.bits_per_byte == math.inf


def test_nothing_to_score() -> None:
    vocabulary = build_vocabulary(["ab"], "characters")
    with pytest.raises(DataError, match="no text to score"):
        score(uniform(2), vocabulary, [])
