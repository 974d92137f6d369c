"""Bayes' rule over language models, by hand and against scikit-learn."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fitune.language_models import Ids
from fitune.language_models.bayes import (
    choose_weights,
    fit_each,
    log_likelihoods,
    log_priors,
    posteriors,
)
from fitune.language_models.ngram import NGram


def test_posteriors_are_bayes_rule() -> None:
    """p(label) p(text | label) / p(text), with every number written out."""
    train = [np.array(one, np.int32) for one in ([0, 0], [0], [1, 1], [0, 1])]
    labels = np.array([0, 0, 1, 1])
    models = fit_each(lambda: NGram(2, order=2), train, labels, 2)
    text = np.array([0, 1], np.int32)
    joint = []
    for label, model in enumerate(models):
        assert model is not None
        steps = [model.next_distribution(p)[t] for p, t in (([], 0), ([0], 1), ([0, 1], 2))]
        joint.append(np.mean(labels == label) * math.prod(steps))
    found = posteriors(
        log_likelihoods(models, [text])[None], log_priors(labels, 2), np.array([1.0])
    )
    np.testing.assert_allclose(found, [np.array(joint) / sum(joint)])


def test_a_label_without_texts_never_wins() -> None:
    train = [np.array([0], np.int32), np.array([1], np.int32)]
    labels = np.array([0, 2])
    models = fit_each(lambda: NGram(2, order=1), train, labels, 4)
    assert [model is None for model in models] == [False, True, False, True]
    likelihoods = log_likelihoods(models, train)[None]
    found = posteriors(likelihoods, log_priors(labels, 4), np.ones(1))
    np.testing.assert_array_equal(found[:, [1, 3]], 0)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    weights = choose_weights(likelihoods, log_priors(labels, 4), np.array([1, 3]))
    np.testing.assert_array_equal(weights, [1.0])  # no row to choose by


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 3), st.integers(2, 4), st.integers(0, 1000))
def test_weights_are_the_best_there_are(kinds: int, count: int, seed: int) -> None:
    """No step within the limits makes the right labels likelier."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(count, size=30)
    likelihoods = draw.normal(size=(kinds, 30, count)) * 3
    likelihoods[0, np.arange(30), labels] += 2
    priors = np.log(np.full(count, 1 / count))
    weights = choose_weights(likelihoods, priors, labels)
    assert ((weights >= 0) & (weights <= 1)).all()

    def nats(at: np.ndarray) -> float:
        return -float(np.log(posteriors(likelihoods, priors, at)[np.arange(30), labels]).mean())

    for kind in range(kinds):
        for step in (-0.02, 0.02):
            other = weights.copy()
            other[kind] = np.clip(other[kind] + step, 0, 1)
            assert nats(other) >= nats(weights) - 1e-7


def test_a_text_does_not_depend_on_its_neighbours() -> None:
    draw = np.random.default_rng(0)
    likelihoods = draw.normal(size=(3, 500, 7))
    priors, weights = np.log(np.full(7, 1 / 7)), draw.random(3)
    whole = posteriors(likelihoods, priors, weights)
    for n in (1, 3, 50):
        np.testing.assert_array_equal(posteriors(likelihoods[:, :n], priors, weights), whole[:n])


def test_progress_is_told() -> None:
    heard: list[tuple[int, int]] = []
    train = [np.array([0], np.int32)] * 2
    fit_each(
        lambda: NGram(1, order=1), train, np.array([0, 1]), 2, lambda *told: heard.append(told)
    )
    assert heard == [(0, 2), (1, 2), (2, 2)]


def test_single_words_are_multinomial_naive_bayes() -> None:
    """Order 1 with the same smoothing is scikit-learn's model, but for the end of a text."""
    from sklearn.naive_bayes import MultinomialNB

    draw = np.random.default_rng(3)
    labels = draw.integers(3, size=60)
    train = [draw.integers(12, size=8).astype(np.int32) for _ in labels]
    counts = np.array([np.bincount([*one, 12], minlength=13) for one in train])

    class AddOne(NGram):
        """The distribution that MultinomialNB has, in the clothes of a language model."""

        def fit(self, train: Sequence[Ids], validation: Sequence[Ids] = ()) -> None:
            super().fit(train)
            said = np.array([np.bincount([*one, 12], minlength=13) for one in train]).sum(0) + 1
            self.levels[0].log_probabilities[:13] = np.log(said / said.sum())

    models = fit_each(lambda: AddOne(12, order=1), train, labels, 3)
    found = posteriors(log_likelihoods(models, train)[None], log_priors(labels, 3), np.array([1.0]))
    wanted = MultinomialNB(alpha=1.0).fit(counts, labels).predict_proba(counts)
    np.testing.assert_allclose(found, wanted, atol=1e-12)


def test_a_shape_of_priors() -> None:
    assert log_priors(np.array([0, 0, 2]), 3).tolist() == [
        pytest.approx(math.log(2 / 3)),
        -math.inf,
        pytest.approx(math.log(1 / 3)),
    ]
