"""Calibration against its definition in plain float64, a probability at a time."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from fitune.approaches.calibration import (
    CONTENT_FREE,
    Calibration,
    Way,
    calibration,
    plain,
    ways,
)

LABELS = 4
LENGTHS = [1, 2, 5, 3]
DRAW = np.random.default_rng(0)
FREE = DRAW.normal(-9, 4, (len(CONTENT_FREE), LABELS))
UNLABELLED = DRAW.normal(-9, 4, (30, LABELS))
ASKED = DRAW.normal(-9, 4, (20, LABELS))
EVERY = [Way(n, c) for n in ("sum", "mean", "pmi") for c in ("none", "contextual", "batch")]


def shares(logs: list[float]) -> list[float]:
    odds = [math.exp(value) for value in logs]
    return [odd / sum(odds) for odd in odds]


def by_hand(way: Way, row: np.ndarray) -> list[float]:
    def normalized(likelihoods: np.ndarray) -> list[float]:
        if way.normalize == "mean":
            return [float(v) / n for v, n in zip(likelihoods, LENGTHS, strict=True)]
        if way.normalize == "pmi":
            without = FREE[CONTENT_FREE.index("")]
            return [float(v) - float(w) for v, w in zip(likelihoods, without, strict=True)]
        return [float(v) for v in likelihoods]

    found = shares(normalized(row))
    if way.calibrate == "none":
        return found
    seen = FREE if way.calibrate == "contextual" else UNLABELLED
    each = [shares(normalized(other)) for other in seen]
    prior = [sum(one[label] for one in each) / len(each) for label in range(LABELS)]
    odds = [p / q for p, q in zip(found, prior, strict=True)]
    return [odd / sum(odds) for odd in odds]


@pytest.mark.parametrize("way", EVERY, ids=lambda way: f"{way.normalize} {way.calibrate}")
def test_every_way_is_what_its_paper_says(way: Way) -> None:
    made = calibration(way, LENGTHS, content_free=FREE, unlabelled=UNLABELLED)
    expected = np.array([by_hand(way, row) for row in ASKED])
    np.testing.assert_allclose(made.probabilities(ASKED), expected, rtol=1e-12)
    read = Calibration.from_json(json.loads(json.dumps(made.to_json())))
    assert np.array_equal(read.probabilities(ASKED), made.probabilities(ASKED))


def test_the_ways_differ() -> None:
    """Else the test above could compare nine times the same."""
    found = [
        calibration(way, LENGTHS, content_free=FREE, unlabelled=UNLABELLED).probabilities(ASKED)
        for way in EVERY
    ]
    for i, one in enumerate(found):
        for other in found[:i]:
            assert np.abs(one - other).max() > 1e-3


@pytest.mark.parametrize("calibrate", ["contextual", "batch"])
def test_a_biased_model_is_put_right(calibrate: str) -> None:
    """One label is likely whatever is asked, which hides that the model knows the answers."""
    draw = np.random.default_rng(1)
    bias = np.array([0.0, 12.0, -3.0, 2.0])
    truth = draw.integers(0, LABELS, 400)
    likelihoods = 3.0 * np.eye(LABELS)[truth] + bias + draw.normal(0, 0.3, (400, LABELS))
    free = bias + draw.normal(0, 0.1, (len(CONTENT_FREE), LABELS))
    others = 3.0 * np.eye(LABELS)[draw.integers(0, LABELS, 200)] + bias
    made = calibration(Way("sum", calibrate), [1] * LABELS, content_free=free, unlabelled=others)
    naive = plain(LABELS).probabilities(likelihoods).argmax(1)
    assert (naive == truth).mean() < 0.4
    assert (made.probabilities(likelihoods).argmax(1) == truth).mean() > 0.99


def test_answers_do_not_depend_on_those_beside_them() -> None:
    made = calibration(Way("mean", "batch"), LENGTHS, unlabelled=UNLABELLED)
    whole = made.probabilities(ASKED)
    for i in range(len(ASKED)):
        assert np.array_equal(made.probabilities(ASKED[i : i + 1]), whole[i : i + 1])


def test_tiny_and_impossible_likelihoods() -> None:
    far = UNLABELLED - 5000  # whose probabilities underflow
    made = calibration(Way("sum", "batch"), LENGTHS, unlabelled=far)
    assert np.isfinite(made.shift).all()
    some = ASKED.copy()
    some[:, 1] = -np.inf  # no candidate
    found = made.probabilities(some)
    assert (found[:, 1] == 0).all() and np.allclose(found.sum(1), 1)


def test_pmi_is_contextual_calibration_by_the_empty_question() -> None:
    empty = FREE[CONTENT_FREE.index("")][None]
    pmi = calibration(Way("pmi", "none"), LENGTHS, content_free=FREE)
    contextual = calibration(Way("sum", "contextual"), LENGTHS, content_free=empty)
    np.testing.assert_allclose(pmi.probabilities(ASKED), contextual.probabilities(ASKED))


def test_which_ways_are_open() -> None:
    assert ways(None, None)[0] == Way("sum", "none") and len(ways(None, None)) == 8
    assert ways("mean", None) == [Way("mean", c) for c in ("none", "contextual", "batch")]
    assert ways(None, "batch") == [Way(n, "batch") for n in ("sum", "mean", "pmi")]
    assert ways("pmi", "contextual") == [Way("pmi", "contextual")]
