"""Multinomial logistic regression over a task's labels, some of which no row may have.

Knows features and labels; knows nothing of texts or of how features came about.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fitune.approaches.base import Prediction

STEPS = 300
"""Of L-BFGS at the most: plenty for ranking labels, and the last digits are not used."""


@dataclass(frozen=True)
class Logistic:
    """A fitted model.

    Attributes:
        labels: every label of the task.
        weights: ``[labels, features]`` float32.
        bias: ``[labels]`` float32; of a label that no training row has, one that never wins.
    """

    labels: tuple[str, ...]
    weights: np.ndarray
    bias: np.ndarray

    @property
    def parameters(self) -> int:
        return int(self.weights.size + self.bias.size)

    def predictions(self, features: Any) -> list[Prediction]:
        """One for each row of `features`, ``[rows, features]``, dense or sparse."""
        from scipy.special import softmax

        probabilities = softmax(features @ self.weights.T + self.bias, axis=1)
        return [
            Prediction(self.labels[int(row.argmax())], tuple(float(p) for p in row))
            for row in probabilities
        ]


def fit_logistic(
    features: Any,
    answers: Sequence[str],
    labels: tuple[str, ...],
    *,
    strength: float,
    tolerance: float = 1e-3,
) -> Logistic:
    """Fit scikit-learn's logistic regression.

    Args:
        features: ``[rows, features]``, dense or sparse.
        answers: each row's label.
        labels: every label of the task, sorted.
        strength: inverse strength C of the L2 penalty.
        tolerance: of the largest gradient where it stops; dense features with small values take a
            smaller one.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    seen = sorted(set(answers))
    at = [labels.index(label) for label in seen]
    weights = np.zeros((len(labels), features.shape[1]), dtype=np.float32)
    bias = np.full(len(labels), -1e9, dtype=np.float32)
    bias[at] = 0
    if len(at) > 1:
        model = LogisticRegression(C=strength, max_iter=STEPS, tol=tolerance)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(features, answers)  # its classes are sorted, as `labels` are
        # For two labels scikit-learn keeps one row: the second's.
        fitted = at if len(at) > 2 else at[1:]
        weights[fitted], bias[fitted] = model.coef_, model.intercept_
    return Logistic(labels, weights, bias)
