"""Figures besides the task's metric: which are told, and that they are those of the rows."""

from __future__ import annotations

import pytest

from fitune.approaches.base import Prediction, Shown
from fitune.data.rows import Row, Rows
from fitune.errors import DataError
from fitune.evaluation.calibration import calibration
from fitune.evaluation.metrics import METRICS, custom_metric
from fitune.ladder.further import FURTHER, calibration_of, further_metrics

LABELS = ("a", "b")
CLASSIFIED = Rows((Row("x", "a"), Row("y", "b"), Row("z", "b")))
SURE = [Prediction("a", (0.9, 0.1)), Prediction("a", (0.6, 0.4)), Prediction("b", (0.2, 0.8))]
ACCURACY, TOKEN_F1 = METRICS["accuracy"], METRICS["token_f1"]


def test_labels_without_probabilities() -> None:
    said = [Prediction(p.text) for p in SURE]
    assert set(further_metrics("classify", ACCURACY, said, CLASSIFIED, LABELS)) == {
        "macro_f1", "mcc",
    }  # fmt: skip
    mixed = [*SURE[:2], Prediction("b")]
    assert calibration_of(mixed, CLASSIFIED.answers, LABELS) is None


def test_labels_with_probabilities() -> None:
    figures = further_metrics("classify", ACCURACY, SURE, CLASSIFIED, LABELS)
    assert set(figures) == {"macro_f1", "mcc", "ece", "brier", "nll"}
    found = calibration([p.scores or () for p in SURE], ["a", "a", "b"], ["a", "b", "b"], LABELS)
    assert (figures["ece"], figures["brier"], figures["nll"]) == (found.ece, found.brier, found.nll)
    assert figures["ece"] == pytest.approx((0.1 + 0.6 + 0.2) / 3)
    broken = [*SURE[:2], Prediction("b", (2.0, 8.0))]
    with pytest.raises(DataError, match="row 2 are no probabilities"):
        further_metrics("classify", ACCURACY, broken, CLASSIFIED, LABELS)


def test_metrics_that_are_asked_for() -> None:
    mine = custom_metric("pkg:mine", lambda said, wanted: 0.25)
    also = (METRICS["micro_f1"], mine, ACCURACY)
    figures = further_metrics("classify", ACCURACY, SURE, CLASSIFIED, LABELS, also)
    assert figures["pkg:mine"] == 0.25 and figures["micro_f1"] == pytest.approx(2 / 3)
    assert "accuracy" not in figures, "the task's own metric is told already"


def shown(*texts: str) -> tuple[Shown, ...]:
    return tuple(Shown("somewhere", text, 1.0) for text in texts)


ASKED = Rows(
    (
        Row("Who fell in 1066?", "Harold"),
        Row("Who won?", "William of Normandy"),
        Row("When?", "1066"),
        Row("Where?", "Hastings"),
    )
)
NOTHING = Prediction("Harold fell in 1066")


def test_answers_to_passages() -> None:
    said = [
        Prediction("Harold fell in 1066", passages=shown("It rained.", "Harold fell.")),
        Prediction("William Rufus", passages=shown("William of Normandy won.")),
        Prediction("1067", passages=()),
        NOTHING,
    ]
    figures = further_metrics("generate", TOKEN_F1, said, ASKED)
    usual = {name for name, m in METRICS.items() if "generate" in m.kinds} - {"token_f1"}
    assert usual | (FURTHER.keys() - {"ece", "brier", "nll"}) == figures.keys()
    assert figures["groundedness"] == pytest.approx((2 / 4 + 1 / 2 + 0) / 3)
    assert figures["unsupported"] == pytest.approx(2 / 3)  # Rufus, 1067; 1066 is in the question
    assert figures["answer_recall@1"] == pytest.approx(1 / 3)
    assert figures["answer_recall"] == pytest.approx(2 / 3)
    assert figures["answer_mrr"] == pytest.approx((1 / 2 + 1 + 0) / 3)


def test_nothing_is_said_of_passages_where_none_are_looked_up() -> None:
    figures = further_metrics("generate", TOKEN_F1, [NOTHING] * 4, ASKED)
    assert not figures.keys() & FURTHER.keys()
    examples = [Prediction(p.text, passages=shown("my card → a")) for p in SURE]
    figures = further_metrics("classify", ACCURACY, examples, CLASSIFIED, LABELS)
    assert not figures.keys() & FURTHER.keys()
