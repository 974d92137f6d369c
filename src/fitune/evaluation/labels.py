"""How well labels are told: right or wrong, and the margins of the confusion matrix.

Knows labels as strings; knows nothing of metrics, intervals or models.
"""

from __future__ import annotations

import numpy as np

from fitune.evaluation.metric import Floats, Texts


def right(predictions: Texts, references: Texts) -> Floats:
    """1 where the prediction is the reference, else 0: float64 [rows]."""
    return np.fromiter(map(str.__eq__, predictions, references), np.float64, len(references))


def confusion_margins(predictions: Texts, references: Texts) -> Floats:
    """[rows, 3 × labels]: right, predicted and true, one column a label that occurs at all."""
    labels = {label: i for i, label in enumerate(sorted({*predictions, *references}))}
    predicted = np.array([labels[p] for p in predictions])
    true = np.array([labels[r] for r in references])
    rows = np.arange(len(true))
    margins = np.zeros((len(true), 3, len(labels)))
    margins[rows, 0, true] = predicted == true
    margins[rows, 1, predicted] = 1
    margins[rows, 2, true] = 1
    return margins.reshape(len(true), -1)


def macro_f1(sums: Floats, rows: int) -> Floats:
    """The mean over labels of 2 · right / (predicted + true)."""
    right, predicted, true = np.split(sums, 3, axis=-1)
    occurs = predicted + true  # zero for a label that is absent from this resample: left out
    f1 = np.divide(2 * right, occurs, out=np.zeros_like(occurs), where=occurs > 0)
    mean: Floats = f1.sum(axis=-1) / (occurs > 0).sum(axis=-1)
    return mean


def mcc(sums: Floats, rows: int) -> Floats:
    """R_K of Gorodkin 2004, equation 8, in counts."""
    right, predicted, true = np.split(sums, 3, axis=-1)
    covariance = right.sum(axis=-1) * rows - (predicted * true).sum(axis=-1)
    # whole numbers, so exactly 0 when one side names a single label: then 0, as scikit-learn
    spread = np.sqrt(rows**2 - (predicted**2).sum(axis=-1)) * np.sqrt(
        rows**2 - (true**2).sum(axis=-1)
    )
    return np.divide(covariance, spread, out=np.zeros_like(covariance), where=spread > 0)
