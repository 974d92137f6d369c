"""Embedding similarity: cosines of whatever embeds, asked as rarely as can be."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from fitune.errors import DataError
from fitune.evaluation.significance import compare, interval
from fitune.evaluation.similarity import embedding_similarity

VECTORS = {
    "east": [2, 0],
    "north": [0, 3],
    "west": [-1, 0],
    "north-east": [1, 1],
    "": [0, 0],
}


class Embedding:
    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        self.asked.append(list(texts))
        return np.array([VECTORS[text] for text in texts], dtype=np.float32)


def test_the_mean_cosine() -> None:
    metric = embedding_similarity(Embedding())
    said = ["east", "west", "north", "north-east", ""]
    truth = ["east"] * 5
    assert metric.per_row is not None
    assert metric.per_row(said, truth) == pytest.approx([1, -1, 0, np.sqrt(0.5), 0])
    assert metric.function(said, truth) == pytest.approx(np.sqrt(0.5) / 5)


def test_no_text_is_embedded_twice_for_the_same_pair() -> None:
    embedding = Embedding()
    metric = embedding_similarity(embedding)
    said, others, truth = ["east", "north"], ["west", "north"], ["east", "east"]
    metric.function(said, truth)
    interval(metric, said, truth, resamples=100)
    assert embedding.asked == [["east", "north"]]
    compare(metric, said, others, truth, resamples=100)
    assert embedding.asked == [["east", "north"], ["west", "east"]]
    with pytest.raises(DataError, match="no rows"):
        metric.function([], [])
