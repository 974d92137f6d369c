"""What is told of a rung's answers besides the task's own metric.

Knows predictions, rows and what measures them; knows nothing of approaches, files or models.
"""

from __future__ import annotations

from collections.abc import Sequence

from fitune.approaches.base import Prediction
from fitune.data.rows import Rows
from fitune.evaluation.calibration import Calibration, calibration
from fitune.evaluation.groundedness import k_precision, unsupported
from fitune.evaluation.metrics import METRICS, Metric
from fitune.retrieval.measures import answer_mrr, answer_recall

FURTHER: dict[str, str] = {
    "ece": "Expected calibration error over 15 bins of equal width: how far confidence is from "
    "the share of right answers (Guo et al. 2017). Lower is better.",
    "brier": "Mean squared error of the labels' probabilities, 0 to 2 (Brier 1950). Lower is "
    "better.",
    "nll": "Mean negative log-likelihood of the true label, in nats. Lower is better.",
    "groundedness": "K-Precision: the share of an answer's words that occur in the passages its "
    "model was shown (Adlakha et al. 2023).",
    "unsupported": "The share of answers with a number or a name that is neither in the passages "
    "shown nor in the question. Lower is better.",
    "answer_recall@1": "The share of rows whose reference answer stands in the first passage "
    "shown (Karpukhin et al. 2020).",
    "answer_recall": "The share of rows whose reference answer stands in any passage shown.",
    "answer_mrr": "The mean of 1 / the rank of the first passage shown that holds the reference "
    "answer.",
}
"""What is told that needs more than the texts of the answers, by name."""


def further_metrics(
    kind: str,
    metric: Metric,
    predictions: Sequence[Prediction],
    rows: Rows,
    labels: Sequence[str] = (),
    also: Sequence[Metric] = (),
) -> dict[str, float]:
    """Further figures of the same answers, by name: the usual metrics for this kind of task, those
    asked for, and of `FURTHER` what these predictions allow.

    Args:
        kind: of the task.
        metric: the task's own, which is left out.
        labels: of the task, in the order of the predictions' scores.
        also: metrics that the task file asks for.

    Raises:
        DataError: scores are not probabilities of the labels.
    """
    said, references = [p.text for p in predictions], rows.answers
    usual = [other for other in METRICS.values() if kind in other.kinds and other.beside]
    named = {other.name: other for other in (*usual, *also) if other.name != metric.name}
    figures = {name: other.function(said, references) for name, other in named.items()}
    believed = calibration_of(predictions, references, labels)
    if believed is not None:
        figures |= {"ece": believed.ece, "brier": believed.brier, "nll": believed.nll}
    return figures | (_by_passages(predictions, rows) if kind == "generate" else {})


def calibration_of(
    predictions: Sequence[Prediction], references: Sequence[str], labels: Sequence[str]
) -> Calibration | None:
    """How far the labels' probabilities are to be believed; None without them.

    Raises:
        DataError: scores are not probabilities of the labels.
    """
    scores = [p.scores for p in predictions if p.scores is not None]
    if not labels or not scores or len(scores) < len(predictions):
        return None
    return calibration(scores, [p.text for p in predictions], references, labels)


def _by_passages(predictions: Sequence[Prediction], rows: Rows) -> dict[str, float]:
    """Of the rows for which something was looked up, also where nothing was found."""
    looked_up = [
        (prediction.text, [shown.text for shown in prediction.passages], question, reference)
        for prediction, question, reference in zip(
            predictions, rows.whole_texts, rows.answers, strict=True
        )
        if prediction.passages is not None
    ]
    if not looked_up:
        return {}
    said, shown, questions, references = map(list, zip(*looked_up, strict=True))
    invented = [
        bool(unsupported(answer, [*passages, question]))
        for answer, passages, question in zip(said, shown, questions, strict=True)
    ]
    most = max(1, *map(len, shown))
    return {
        "groundedness": sum(map(k_precision, said, shown)) / len(said),
        "unsupported": sum(invented) / len(said),
        "answer_recall@1": answer_recall(shown, references, 1),
        "answer_recall": answer_recall(shown, references, most),
        "answer_mrr": answer_mrr(shown, references, most),
    }
