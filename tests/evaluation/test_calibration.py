"""Calibration against loops, scikit-learn and simulation."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fitune.errors import DataError
from fitune.evaluation.calibration import calibration

LABELS = ("a", "b", "c")


@st.composite
def judged(draw: st.DrawFn) -> tuple[list[list[float]], list[str], list[str]]:
    """Probabilities in thousandths, so that some lie on the edge of a bin; answers; truth."""
    rows = draw(st.integers(1, 40))
    scores, said = [], []
    for _ in range(rows):
        first = draw(st.integers(0, 1000))
        second = draw(st.integers(0, 1000 - first))
        scores.append([first / 1000, second / 1000, (1000 - first - second) / 1000])
        said.append(draw(st.sampled_from(LABELS)))
    return scores, said, draw(st.lists(st.sampled_from(LABELS), min_size=rows, max_size=rows))


def of_answers(scores: list[list[float]], said: list[str]) -> list[float]:
    return [row[LABELS.index(label)] for row, label in zip(scores, said, strict=True)]


@settings(deadline=None)
@given(judged(), st.sampled_from([1, 4, 15]))
def test_equal_width_bins_equal_a_loop(
    given_rows: tuple[list[list[float]], list[str], list[str]], bins: int
) -> None:
    scores, said, true = given_rows
    error = 0.0
    for i in range(bins):
        inside = [
            (p, x == y)
            for p, x, y in zip(of_answers(scores, said), said, true, strict=True)
            if i / bins < p <= (i + 1) / bins or (i == 0 and p == 0)
        ]
        if inside:
            sure = sum(p for p, _ in inside) / len(inside)
            right = sum(r for _, r in inside) / len(inside)
            error += len(inside) / len(said) * abs(right - sure)
    found = calibration(scores, said, true, LABELS, bins=bins)
    assert found.ece == pytest.approx(error, abs=1e-12)
    assert sum(b.rows for b in found.bins) == found.rows == len(said) and len(found.bins) == bins
    assert (found.bins[0].low, found.bins[-1].high) == (0, 1)


@settings(deadline=None)
@given(judged())
def test_brier_and_likelihood_equal_a_loop_and_scikit_learn(
    given_rows: tuple[list[list[float]], list[str], list[str]],
) -> None:
    from sklearn.metrics import log_loss

    scores, said, true = given_rows
    found = calibration(scores, said, true, LABELS)
    squares = [
        (p - (label == truth)) ** 2
        for row, truth in zip(scores, true, strict=True)
        for p, label in zip(row, LABELS, strict=True)
    ]
    assert found.brier == pytest.approx(sum(squares) / len(said), abs=1e-12)
    assert found.nll == pytest.approx(log_loss(true, scores, labels=list(LABELS)), rel=1e-9)


@settings(deadline=None)
@given(judged(), st.integers(1, 6), st.randoms())
def test_equal_mass_bins_equal_a_loop_in_any_order(
    given_rows: tuple[list[list[float]], list[str], list[str]], bins: int, chance: random.Random
) -> None:
    scores, said, true = given_rows
    sure = of_answers(scores, said)
    right = [x == y for x, y in zip(said, true, strict=True)]
    mean_right = {p: np.mean([r for q, r in zip(sure, right, strict=True) if q == p]) for p in sure}
    ordered = sorted(sure)
    size, larger = divmod(len(ordered), bins)
    error, begin = 0.0, 0
    for i in range(bins):
        end = begin + size + (i < larger)
        error += abs(sum(mean_right[p] - p for p in ordered[begin:end])) / len(ordered)
        begin = end
    found = calibration(scores, said, true, LABELS, bins=bins)
    assert found.ece_equal_mass == pytest.approx(error, abs=1e-9)
    order = list(range(len(said)))
    chance.shuffle(order)
    again = calibration(
        [scores[i] for i in order], [said[i] for i in order], [true[i] for i in order], LABELS,
        bins=bins,
    )  # fmt: skip
    assert again.ece_equal_mass == pytest.approx(found.ece_equal_mass, abs=1e-9)


@pytest.mark.parametrize(("sharpness", "ece"), [(1.0, 0.0), (3.0, 0.19), (0.3, 0.24)])
def test_answers_that_are_right_as_often_as_they_say_have_no_error(
    sharpness: float, ece: float
) -> None:
    """Labels are drawn from what the answerer says, then made too sure or not sure enough."""
    rng = np.random.default_rng(0)
    logits = 1.5 * rng.standard_normal((20_000, 3))
    honest = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    true = [LABELS[rng.choice(3, p=row)] for row in honest]
    stated = honest**sharpness
    stated /= stated.sum(axis=1, keepdims=True)
    said = [LABELS[i] for i in stated.argmax(axis=1)]
    found = calibration(stated, said, true, LABELS)
    assert found.ece == pytest.approx(ece, abs=0.02)
    assert found.ece_equal_mass == pytest.approx(found.ece, abs=0.01)
    if sharpness == 1:
        assert found.ece < 0.01


def test_rows_of_one_confidence_are_not_parted_by_their_order() -> None:
    scores = [[0.7, 0.3]] * 4
    for true in ("aabb", "abab", "bbaa"):
        found = calibration(scores, list("aaaa"), list(true), ("a", "b"), bins=2)
        assert found.ece_equal_mass == pytest.approx(0.2) == found.ece


def test_certainty() -> None:
    right = calibration([[1.0, 0.0]], ["a"], ["a"], ("a", "b"))
    assert (right.ece, right.ece_equal_mass, right.brier, right.nll) == (0, 0, 0, 0)
    wrong = calibration([[1.0, 0.0]], ["a"], ["b"], ("a", "b"))
    assert (wrong.ece, wrong.ece_equal_mass, wrong.brier) == (1, 1, 2)
    assert wrong.nll == pytest.approx(-math.log(np.finfo(np.float64).eps))


@pytest.mark.parametrize(
    ("scores", "said", "true", "problem"),
    [
        ([[0.5, 0.5]], ["a"], ["z"], "'z' has no probability: it is none of the 2 labels"),
        ([[0.5, 0.5]], ["z"], ["a"], "'z' has no probability"),
        ([[0.5, 0.5, 0.0]], ["a"], ["a"], "row 0 has 3 scores for 2 labels"),
        ([[0.9, 0.9]], ["a"], ["a"], "row 0 are no probabilities: they sum to 1.8"),
        ([[1.5, -0.5]], ["a"], ["a"], "the lowest is -0.5"),
        ([[0.5, 0.5], [math.nan, 1.0]], ["a", "a"], ["a", "a"], "row 1 are no probabilities"),
        ([[0.5, 0.5]], ["a", "b"], ["a"], "differ in length"),
        ([], [], [], "no rows"),
    ],
)
def test_what_is_no_probability_is_refused(
    scores: list[list[float]], said: list[str], true: list[str], problem: str
) -> None:
    with pytest.raises(DataError, match=problem):
        calibration(scores, said, true, ("a", "b"))
