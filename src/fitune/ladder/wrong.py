"""A wrong answer and its cause; and what both kinds of tasks are asked of one.

Knows rows and words; knows nothing of rungs' names or of the rules of one kind.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from fitune.data.rows import Row, Splits
from fitune.evaluation.metrics import normalise
from fitune.retrieval.terms import STOPWORDS, terms


@dataclass(frozen=True)
class Wrong:
    """One wrong answer.

    Attributes:
        row: its number among the test rows, from 0.
        cause: of `diagnose.CAUSES`.
        why: what was seen, as a clause.
    """

    row: int
    cause: str
    why: str


def asked(row: Row) -> str:
    """All that the row says before its answer."""
    return "\n".join(turn.text for turn in row.turns)


def content(text: str) -> frozenset[str]:
    """The words of a text that carry what it says; all of them where it has no others."""
    found = terms(text)
    return frozenset(set(found) - STOPWORDS["english"] or found)


def held(answer: str, sources: Iterable[str]) -> bool:
    """Whether one of the sources has every word of an answer that carries what it says. A blank
    answer is held by nothing."""
    wanted = content(answer)
    return bool(wanted) and any(wanted <= set(terms(source)) for source in sources)


def other_answers(splits: Splits) -> list[frozenset[str]]:
    """For each test row, the normalised answers that its own text has elsewhere in the data (test
    rows included) and that are not the row's own."""
    answers: defaultdict[str, set[str]] = defaultdict(set)
    for rows in (splits.train, splits.validation, splits.test):
        for row in rows:
            if row.answer is not None:
                answers[_bare(row)].add(normalise(row.answer))
    return [frozenset(answers[_bare(row)] - {normalise(row.answer or "")}) for row in splits.test]


def _bare(row: Row) -> str:
    return " ".join(terms(asked(row)))
