"""Why an answer in free words is wrong.

Knows rows, answers and passages; knows nothing of labels, and of which rung is which.

The rules, in their order; the first that fits counts:

1. data: the answer is one that the same question has elsewhere in the rows.
2. behaviour: the reference is in the answer, or most of its words are: the model knew, and said
   too much or otherwise.
3. information: the reference's words are neither in the question nor in one passage shown, and
   (a) a search of the documents finds them, or the documents have them elsewhere; or (b) there is
   no sign that the answer can be had from the question (see `_derivable`).
4. behaviour: an empty answer, a refusal, one that was cut off, or one much longer than every
   reference.
5. capacity: all else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from fitune.approaches.base import Prediction
from fitune.data.rows import Splits
from fitune.evaluation.metrics import METRICS, normalise
from fitune.ladder.document_search import DocumentSearch
from fitune.ladder.wrong import Wrong, asked, content, held, other_answers
from fitune.retrieval.terms import terms

LONG = 10
"""Words of a reference from which on its meaning can be put in other words: an answer then counts
as wrong where it shares less than half of them, and no passage needs to have them all."""

NEAR = 0.5
"""Token F1 from which on an answer has the reference's words."""

_REFUSAL = re.compile(
    r"\b(i (cannot|can ?not|can't|could not|couldn't|am unable|am not able|do not know|don't know)"
    r"|i'?m (sorry|unable|not able|not sure)|as an ai\b|not in the (documents|passages|text)"
    r"|(unanswerable|unknown|no answer|not (stated|given|mentioned))\W*$)",
    re.IGNORECASE,
)


def find_wrong_answers(
    splits: Splits, answers: Mapping[str, Sequence[Prediction]], documents: DocumentSearch
) -> dict[str, list[Wrong]]:
    """By rung, each wrong answer with its cause, in the order of the test rows."""
    references = splits.test.answers
    scores = {name: _token_f1([p.text for p in said], references) for name, said in answers.items()}
    missed = {
        name: [
            _is_wrong(p.text, r, f1)
            for p, r, f1 in zip(said, references, scores[name], strict=True)
        ]
        for name, said in answers.items()
    }
    elsewhere = other_answers(splits)
    known = {normalise(answer) for answer in splits.train.answers}
    longest = max((len(normalise(reference).split()) for reference in references), default=0)
    unaided = [
        any(not missed[name][i] and not said[i].passages for name, said in answers.items())
        for i in range(len(references))
    ]
    found: dict[str, list[Wrong]] = {}
    for name, said in answers.items():
        found[name] = []
        for i, (prediction, row) in enumerate(zip(said, splits.test, strict=True)):
            if not missed[name][i]:
                continue
            reference = row.answer or ""
            answer = normalise(prediction.text)
            if answer and answer in elsewhere[i]:
                cause = "data", "the same question has this answer elsewhere in the data"
            else:
                cause = (
                    _knew(answer, normalise(reference), scores[name][i])
                    or _uninformed(prediction, asked(row), reference, documents, unaided[i], known)
                    or _misbehaved(prediction, answer, longest)
                    or ("capacity", "what it saw had the answer, or more than words is needed")
                )
            found[name].append(Wrong(i, *cause))
    return found


def _is_wrong(said: str, reference: str, f1: float) -> bool:
    if len(normalise(reference).split()) > LONG:
        return f1 < NEAR
    return normalise(said) != normalise(reference)


def _token_f1(said: Sequence[str], references: Sequence[str]) -> np.ndarray:
    per_row = METRICS["token_f1"].per_row
    assert per_row is not None
    return per_row(said, references)


def _knew(answer: str, reference: str, f1: float) -> tuple[str, str] | None:
    if reference and f" {reference} " in f" {answer} ":
        return "behaviour", "the reference stands in a longer answer"
    if answer and answer.replace(" ", "") == reference.replace(" ", ""):
        return "behaviour", "the right words are written otherwise"
    if f1 >= NEAR:
        return "behaviour", "most words are right, in another form"
    return None


def _uninformed(
    prediction: Prediction,
    question: str,
    reference: str,
    documents: DocumentSearch,
    unaided: bool,
    known: set[str],
) -> tuple[str, str] | None:
    shown = [passage.text for passage in prediction.passages or ()]
    if unaided or not terms(reference) or _seen(reference, [question, *shown]):
        return None
    if documents and _seen(reference, documents.best(question)):
        return "information", "a search by words finds it in the documents"
    if documents.holds(reference):
        return "information", "the documents have it, and a search by words does not find it"
    if _derivable(question, reference, known):
        return None
    if documents:
        return "information", "neither the question nor the documents have it"
    return "information", "the question does not have it"


def _seen(reference: str, sources: Sequence[str]) -> bool:
    if len(normalise(reference).split()) <= LONG:
        return held(reference, sources)
    wanted = content(reference)
    return any(2 * len(wanted & set(terms(source))) >= len(wanted) for source in sources)


def _derivable(question: str, reference: str, known: set[str]) -> bool:
    """Whether an answer that is not in the question may follow from it: it is one that training
    rows have, a number where the question has numbers, or too long to be a fact."""
    bare = normalise(reference)
    if bare in known or len(bare.split()) > LONG:
        return True
    number = re.fullmatch(r"[^\w]*\d[\d.,/: ]*[^\w]*", reference.strip()) is not None
    return number and re.search(r"\d", question) is not None


def _misbehaved(prediction: Prediction, answer: str, longest: int) -> tuple[str, str] | None:
    if not answer:
        return "behaviour", "an empty answer"
    if _REFUSAL.search(prediction.text):
        return "behaviour", "a refusal"
    if prediction.stopped is False:
        return "behaviour", "the answer did not end by itself"
    if len(answer.split()) > 2 * longest:
        return "behaviour", "more than twice as long as any reference"
    return None
