"""Why answers are wrong: of information, of behaviour, of the data, or of capacity.

Knows test rows, the answers of every rung and what each was shown; knows nothing of how a rung
works. Which rule finds which cause is in `wrong_labels` and `wrong_answers`; here they are applied
and counted. The rules read text and other rungs' answers, so they point, and do not prove: each
cause comes with rows to look at.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fitune.approaches.base import Prediction
from fitune.data.rows import Splits
from fitune.ladder.document_search import DocumentSearch
from fitune.ladder.wrong import Wrong
from fitune.ladder.wrong_answers import find_wrong_answers
from fitune.ladder.wrong_labels import find_wrong_labels

CAUSES = {
    "information": "what the answer needs was not in what the model saw",
    "behaviour": "the model answers in another way than the rows do",
    "data": "the row's own answer is in doubt",
    "capacity": "none of these: the approach is not strong enough, or has seen too few rows",
}
"""Every cause, and what it means; of equal counts the first is named."""

EXAMPLES = 3
"""Rows that are shown for each cause."""


@dataclass(frozen=True)
class Example:
    """A wrong answer that supports a cause.

    Attributes:
        row: its number among the test rows, from 0.
    """

    row: int
    text: str
    reference: str
    answer: str
    why: str


@dataclass(frozen=True)
class Cause:
    """So many of a rung's errors.

    Attributes:
        name: of `CAUSES`.
        reasons: what was seen, as a clause, and of how many errors; the most frequent first.
        also_right: name of the other rung that answers the most of these rows rightly, and how
            many; None where none does.
    """

    name: str
    count: int
    share: float
    reasons: tuple[tuple[str, int], ...]
    examples: tuple[Example, ...]
    also_right: tuple[str, int] | None


@dataclass(frozen=True)
class Diagnosis:
    """What the errors of one rung are of.

    Attributes:
        rows: test rows.
        errors: how many of them were answered wrongly.
        shown: whether the rung was shown passages of the task's documents.
        causes: each of `CAUSES` that was seen, the most frequent first.
    """

    rung: str
    rows: int
    errors: int
    shown: bool
    causes: tuple[Cause, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Diagnosis:
        causes = tuple(
            Cause(
                **{
                    **cause,
                    "reasons": tuple((why, count) for why, count in cause["reasons"]),
                    "examples": tuple(Example(**example) for example in cause["examples"]),
                    "also_right": tuple(cause["also_right"]) if cause["also_right"] else None,
                }
            )
            for cause in record["causes"]
        )
        return cls(**{**record, "causes": causes})


def diagnose(
    kind: str,
    labels: Sequence[str],
    splits: Splits,
    answers: Mapping[str, Sequence[Prediction]],
    passages: Sequence[str] = (),
) -> tuple[Diagnosis, ...]:
    """Sort the errors of each rung.

    Args:
        kind: of the task; documents of `language-model` have no right answer, so there is nothing
            to sort.
        labels: of the task, in the order of the predictions' scores.
        answers: by rung, in the ladder's order, each in the order of the test rows.
        passages: of the task's documents, which retrieval would search; empty without documents.
    """
    if kind not in ("classify", "generate"):
        return ()
    documents = DocumentSearch(passages)
    if kind == "classify":
        wrong = find_wrong_labels(labels, splits, answers, documents)
    else:
        wrong = find_wrong_answers(splits, answers, documents)
    return tuple(_counted(name, splits, answers, wrong, bool(documents)) for name in answers)


def _counted(
    rung: str,
    splits: Splits,
    answers: Mapping[str, Sequence[Prediction]],
    wrong: Mapping[str, Sequence[Wrong]],
    documents: bool,
) -> Diagnosis:
    errors = wrong[rung]
    counts = Counter(error.cause for error in errors)
    order = sorted(counts, key=lambda cause: (-counts[cause], list(CAUSES).index(cause)))
    missed = {name: {error.row for error in found} for name, found in wrong.items()}
    causes = []
    for cause in order:
        of_it = [error for error in errors if error.cause == cause]
        reasons = Counter(error.why for error in of_it).most_common()
        right = {
            name: sum(error.row not in rows for error in of_it) for name, rows in missed.items()
        }
        best = max(right, key=lambda name: right[name])
        causes.append(
            Cause(
                cause,
                counts[cause],
                counts[cause] / len(errors),
                tuple(reasons),
                tuple(_example(error, splits, answers[rung]) for error in _shown(of_it, reasons)),
                (best, right[best]) if right[best] else None,
            )
        )
    shown = documents and any(prediction.passages for prediction in answers[rung])
    return Diagnosis(rung, len(splits.test), len(errors), shown, tuple(causes))


def _shown(errors: Sequence[Wrong], reasons: Sequence[tuple[str, int]]) -> list[Wrong]:
    """Examples in turn of each reason, the most frequent first."""
    queues = [[error for error in errors if error.why == why] for why, _ in reasons]
    turns = range(max(map(len, queues)))
    return [queue[turn] for turn in turns for queue in queues if turn < len(queue)][:EXAMPLES]


def _example(error: Wrong, splits: Splits, answers: Sequence[Prediction]) -> Example:
    row = splits.test[error.row]
    return Example(error.row, row.text, row.answer or "", answers[error.row].text, error.why)
