"""Whether the probabilities an answerer gives to labels are to be believed.

Knows probabilities, answers and labels; knows nothing of approaches, models or files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fitune.errors import DataError
from fitune.evaluation.metric import Floats, Texts, check_lengths

BINS = 15
"""As Guo et al. 2017 have it, section 5."""

_SUM = 0.01  # how far probabilities written with few digits may be from a sum of 1


@dataclass(frozen=True)
class Bin:
    """Answers given with about the same confidence.

    Attributes:
        low, high: the confidences that fall into it: low < confidence ≤ high.
        rows: how many do; 0 for an empty bin, whose means are 0.
        confidence, accuracy: the means over these rows.
    """

    low: float
    high: float
    rows: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Calibration:
    """How well probabilities of labels agree with what is true. All are better when lower.

    Attributes:
        rows: how many answers.
        ece: expected calibration error over bins of equal width: the mean over rows of
            |accuracy − confidence| of their bin (Guo et al. 2017, arXiv:1706.04599, equation 3).
        ece_equal_mass: the same over bins of equally many rows (Nixon et al. 2019,
            arXiv:1904.01685, section 3.3), which does not hide what happens where most rows lie.
        brier: the mean over rows of Σ (probability − truth)² over all labels, 0 to 2 (Brier 1950).
        nll: the mean over rows of −ln of the true label's probability, in nats; probabilities under
            2.2e-16 (float64's epsilon) count as that, as in scikit-learn's log_loss.
        bins: of equal width, from 0 to 1, for a reliability diagram.
    """

    rows: int
    ece: float
    ece_equal_mass: float
    brier: float
    nll: float
    bins: tuple[Bin, ...]


def calibration(
    scores: Sequence[Sequence[float]] | npt.NDArray[np.floating],
    predictions: Texts,
    references: Texts,
    labels: Sequence[str],
    *,
    bins: int = BINS,
) -> Calibration:
    """
    Args:
        scores: the probability of each label, ``[rows, labels]``.
        predictions: the label answered in each row; its probability is the confidence.
        references: the true ones.
        labels: in the order of the scores.

    Raises:
        DataError: the three differ in length or are empty, an answer is no label, or scores are
            not probabilities.
    """
    rows = check_lengths(predictions, references, scores)  # type: ignore[arg-type]
    place = {label: i for i, label in enumerate(labels)}
    for label in (*predictions, *references):
        if label not in place:
            raise DataError(
                f"'{label[:40]}' has no probability: it is none of the {len(labels)} labels",
                fix="score answers that are labels only",
            )
    probabilities = _probabilities(scores, len(labels))
    said = np.array([place[label] for label in predictions])
    true = np.array([place[label] for label in references])
    each = np.arange(rows)
    confidence, right = probabilities[each, said], (said == true).astype(np.float64)
    truth = np.zeros_like(probabilities)
    truth[each, true] = 1
    found = _equal_width(confidence, right, bins)
    return Calibration(
        rows=rows,
        ece=sum(b.rows * abs(b.accuracy - b.confidence) for b in found) / rows,
        ece_equal_mass=_equal_mass_error(confidence, right, bins),
        brier=float(((probabilities - truth) ** 2).sum(axis=1).mean()),
        nll=float(-np.log(np.maximum(probabilities[each, true], np.finfo(np.float64).eps)).mean()),
        bins=found,
    )


def _probabilities(
    scores: Sequence[Sequence[float]] | npt.NDArray[np.floating], labels: int
) -> Floats:
    for number, row in enumerate(scores):
        values = np.asarray(row, dtype=np.float64)
        if values.shape != (labels,):
            raise DataError(
                f"row {number} has {values.size} scores for {labels} labels",
                fix="give one probability for each label",
            )
        total = float(values.sum())
        if not (values >= 0).all() or not abs(total - 1) <= _SUM:  # also where it is not a number
            raise DataError(
                f"the scores of row {number} are no probabilities: they sum to {total:.3g}, "
                f"the lowest is {values.min():.3g}",
                fix="give numbers from 0 that sum to 1, e.g. by softmax",
            )
    return np.asarray(scores, dtype=np.float64)


def _equal_width(confidence: Floats, right: Floats, bins: int) -> tuple[Bin, ...]:
    edges = np.arange(bins + 1) / bins
    # A confidence of 0 has no bin to the left of it, and one that rounding put above 1 none right.
    bin_of = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    counts = np.bincount(bin_of, minlength=bins)
    sums = (np.bincount(bin_of, weights=what, minlength=bins) for what in (confidence, right))
    means = [total / np.maximum(counts, 1) for total in sums]
    return tuple(
        Bin(float(low), float(high), int(n), float(mean), float(accuracy))
        for low, high, n, mean, accuracy in zip(edges, edges[1:], counts, *means, strict=False)
    )


def _equal_mass_error(confidence: Floats, right: Floats, bins: int) -> float:
    # Rows of one confidence count alike, so that an order among them, which says nothing, does
    # not decide what falls into which bin.
    levels, level = np.unique(confidence, return_inverse=True)
    accuracy = np.bincount(level, weights=right) / np.bincount(level)
    order = np.argsort(confidence, kind="stable")
    parts = np.array_split(np.stack([levels[level], accuracy[level]])[:, order], bins, axis=1)
    gaps = [abs(float((accurate - sure).sum())) for sure, accurate in parts]
    return sum(gaps) / len(confidence)
