"""Logistic regression over labels that rows may lack, against scikit-learn's own."""

from __future__ import annotations

import numpy as np
import pytest

from fitune.approaches.logistic import fit_logistic


def blobs(labels: int, rows: int = 60) -> tuple[np.ndarray, list[str]]:
    random = np.random.default_rng(0)
    numbers = np.arange(rows) % labels
    centres = random.normal(size=(labels, 4))
    return centres[numbers] + random.normal(size=(rows, 4)), [f"label {n}" for n in numbers]


@pytest.mark.parametrize("labels", [2, 3, 7])
def test_probabilities_are_scikit_learns(labels: int) -> None:
    from sklearn.linear_model import LogisticRegression

    features, answers = blobs(labels)
    reference = LogisticRegression(C=3.0, max_iter=1000, tol=1e-3).fit(features, answers)
    head = fit_logistic(features, answers, tuple(sorted(set(answers))), strength=3.0)
    found = head.predictions(features)
    np.testing.assert_allclose(
        [p.scores for p in found], reference.predict_proba(features), atol=1e-4
    )
    assert [p.text for p in found] == reference.predict(features).tolist()
    assert head.parameters == labels * 5


@pytest.mark.parametrize("seen", [["b"], ["a", "c"], ["a", "b", "d"]])
def test_a_label_without_rows_has_no_probability(seen: list[str]) -> None:
    features, _ = blobs(len(seen))
    answers = [seen[i % len(seen)] for i in range(len(features))]
    head = fit_logistic(features, answers, ("a", "b", "c", "d"), strength=1.0)
    found = head.predictions(features)
    assert np.mean([p.text == answer for p, answer in zip(found, answers, strict=True)]) > 0.7
    for answer in found:
        assert answer.scores is not None and sum(answer.scores) == pytest.approx(1)
        assert all(
            share == 0 for label, share in zip("abcd", answer.scores, strict=True)
            if label not in seen
        )  # fmt: skip
