"""Why a label is wrong.

Knows rows, labels and their probabilities; knows nothing of free answers, and of which rung is
which.

The rules, in their order; the first that fits counts:

1. behaviour: what was said is no label.
2. data: the same text has another label elsewhere in the rows.
3. information, where the task has documents: the label's words, and not those of the label that
   was said, are in the best sentence that a search finds, and were not in what the model saw; or
   rungs that were shown passages are right where no informed rung without passages is.
4. data: confident learning (Northcutt et al., JAIR 2021, arXiv:1911.00068, section 3.1): two rungs
   or more are sure of the same other label, three times as many as give the row's own.
5. behaviour: two labels taken for one another, both ways, more often than chance would have it.
6. capacity: all else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from fitune.approaches.base import Prediction
from fitune.data.rows import Splits
from fitune.evaluation.metrics import normalise
from fitune.ladder.document_search import DocumentSearch
from fitune.ladder.wrong import Wrong, asked, content, held, other_answers

LEVEL = 0.01
"""Below this probability under chance, errors of a pair of labels are no chance, and a rung is
informed."""

PAIR = 4
"""Errors that a pair of labels has at the least to be called confused."""

VOTES = 2
"""Rungs that must be sure of another label."""

_NO_FACTS = frozenset(["yes", "no", "true", "false", "none", "other"])
"""Labels whose words a passage may have for any reason."""

Answers = Mapping[str, Sequence[Prediction]]


def find_wrong_labels(
    labels: Sequence[str], splits: Splits, answers: Answers, documents: DocumentSearch
) -> dict[str, list[Wrong]]:
    """By rung, each wrong answer with its cause, in the order of the test rows."""
    references = splits.test.answers
    informed = [name for name, said in answers.items() if _informed(said, references)]
    elsewhere = other_answers(splits)
    doubted = _doubted(labels, references, {name: answers[name] for name in informed})
    found: dict[str, list[Wrong]] = {}
    for name, said in answers.items():
        pairs = _confused(labels, [p.text for p in said], references)
        found[name] = []
        for i, (prediction, reference) in enumerate(zip(said, references, strict=True)):
            answer = prediction.text
            if answer == reference:
                continue
            if answer not in labels:
                cause = "behaviour", "the answer is none of the labels"
            elif elsewhere[i]:
                cause = "data", "the same text has another label elsewhere in the data"
            elif documents and (why := _uninformed(i, name, answers, informed, splits, documents)):
                cause = "information", why
            elif doubted[i] is not None and doubted[i] != reference:
                cause = "data", f"{VOTES} rungs or more are sure of another label"
            elif frozenset((answer, reference)) in pairs:
                one, other = sorted((answer, reference))
                cause = "behaviour", f"'{one}' and '{other}' are taken for one another"
            else:
                cause = "capacity", "no rule explains it"
            found[name].append(Wrong(i, *cause))
    return found


def _informed(said: Sequence[Prediction], references: Sequence[str]) -> bool:
    """Whether a rung does better than the most frequent label alone would, beyond chance."""
    from scipy.stats import binomtest

    right = sum(p.text == r for p, r in zip(said, references, strict=True))
    usual = Counter(references).most_common(1)[0][1] / len(references)
    return usual < 1 and bool(
        binomtest(right, len(references), usual, alternative="greater").pvalue < LEVEL
    )


def _uninformed(
    i: int,
    name: str,
    answers: Answers,
    informed: Sequence[str],
    splits: Splits,
    documents: DocumentSearch,
) -> str | None:
    """What shows that the rung `name` lacked information for test row `i`; None: nothing does."""
    prediction, row = answers[name][i], splits.test[i]
    reference = row.answer or ""
    question = asked(row)
    shown = [passage.text for passage in prediction.passages or ()]
    if _tells(reference, prediction.text, [question, *shown]):
        return None
    if _tells(reference, prediction.text, documents.best_sentence(question)):
        return "a search by words finds it in the documents"
    if shown:
        return None
    right = [other for other in informed if answers[other][i].text == reference]
    if right and all(answers[other][i].passages for other in right):
        return "only rungs that were shown passages are right"
    return None


def _tells(label: str, said: str, sources: Sequence[str]) -> bool:
    if normalise(label) in _NO_FACTS or content(label) == content(said):
        return False
    return any(held(label, [source]) and not held(said, [source]) for source in sources)


def _doubted(
    labels: Sequence[str], references: Sequence[str], informed: Answers
) -> list[str | None]:
    """For each row, the label that `VOTES` rungs or more are sure of, three times as many as give
    the row's own; None where there is none."""
    votes = [
        _sure(labels, references, said) for said in informed.values() if said and said[0].scores
    ]
    doubted: list[str | None] = []
    for i, reference in enumerate(references):
        others = Counter(vote[i] for vote in votes if vote[i] is not None)
        own = sum(said[i].text == reference for said in informed.values())
        (label, count) = others.most_common(1)[0] if others else (None, 0)
        doubted.append(label if count >= max(VOTES, 3 * own) else None)
    return doubted


def _sure(
    labels: Sequence[str], references: Sequence[str], said: Sequence[Prediction]
) -> list[str | None]:
    """The label each row has confidently: of those whose probability is at least what rows of that
    label have on average, the most probable (eq. 1 and 2 of the paper); None where none reaches
    its average."""
    place = {label: i for i, label in enumerate(labels)}
    scores = np.array([prediction.scores for prediction in said], dtype=np.float64)
    own = np.array([place.get(reference, -1) for reference in references])
    averages = np.array(
        [scores[own == j, j].mean() if (own == j).any() else np.inf for j in range(len(labels))]
    )
    reached = np.where(scores >= averages, scores, -1.0)
    best = reached.argmax(axis=1)
    return [labels[j] if reached[i, j] >= 0 else None for i, j in enumerate(best)]


def _confused(
    labels: Sequence[str], said: Sequence[str], references: Sequence[str]
) -> frozenset[frozenset[str]]:
    """Pairs of labels with more errors than chance would give them, were all pairs alike
    (binomial, Bonferroni), and some in each direction: one way alone is a label said too often."""
    from scipy.stats import binom

    wrong = Counter((r, s) for s, r in zip(said, references, strict=True) if s != r and s in labels)
    pairs = len(labels) * (len(labels) - 1) // 2
    if pairs < 2:
        return frozenset()
    everything = sum(wrong.values())
    found = set()
    for one, other in wrong:
        if (other, one) not in wrong:
            continue
        count = wrong[one, other] + wrong[other, one]
        chance = float(binom.sf(count - 1, everything, 1 / pairs)) * pairs
        if count >= PAIR and chance < LEVEL:
            found.add(frozenset((one, other)))
    return frozenset(found)
