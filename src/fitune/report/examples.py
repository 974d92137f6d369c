"""Which rows are worth reading: the worst mistakes, and examples side by side.

Knows rows, answers and per-row scores; knows nothing of HTML. The choice is fixed by the run, so
the same run always shows the same rows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from fitune.evaluation.metrics import METRICS
from fitune.report.gather import Answer, Question, RunFolder, RungFolder

MISTAKES = 10
EXAMPLES = 8


@dataclass(frozen=True)
class Judged:
    """An answer and how it did: `score` is the metric of this row alone, None for classify."""

    rung: str
    answer: Answer
    right: bool
    score: float | None


@dataclass(frozen=True)
class Example:
    """One row with the answers of one or more rungs."""

    row: Question
    answers: tuple[Judged, ...]


def judge(run: RunFolder, rung: RungFolder) -> list[Judged]:
    """Every answer of a rung, in the order of the test rows."""
    said = [answer.text for answer in rung.answers]
    wanted = [row.answer for row in run.rows]
    if run.task.get("kind") == "classify":
        return [
            Judged(rung.name, answer, answer.text == truth, None)
            for answer, truth in zip(rung.answers, wanted, strict=True)
        ]
    if run.task.get("kind") == "language-model":
        # Nothing is right or wrong: documents are shown from the likeliest to the least likely.
        bits = METRICS["neg_bits_per_byte"].function
        return [
            Judged(rung.name, answer, True, bits([answer.text], [""])) for answer in rung.answers
        ]
    metric = METRICS.get(run.metric)
    per_row = (metric.per_row if metric else None) or METRICS["token_f1"].per_row
    exact = METRICS["exact_match"].per_row
    assert per_row is not None and exact is not None
    return [
        Judged(rung.name, answer, bool(same), float(score))
        for answer, same, score in zip(
            rung.answers, exact(said, wanted), per_row(said, wanted), strict=True
        )
    ]


def worst_mistakes(run: RunFolder, judged: Sequence[Judged]) -> list[Example]:
    """For classify, the wrong answers with the highest probability; otherwise the lowest scores."""

    def badness(i: int) -> tuple[float, int]:
        score, top = judged[i].score, judged[i].answer.top
        return (score if score is not None else -top[0][1] if top else 0.0, i)

    wrong = sorted((i for i, answer in enumerate(judged) if not answer.right), key=badness)
    return [Example(run.rows[i], (judged[i],)) for i in wrong[:MISTAKES]]


def side_by_side(run: RunFolder, rungs: Sequence[Sequence[Judged]], focus: int) -> list[Example]:
    """The same rows, answered by each rung.

    For classify, rows are taken in turn from each pattern of right and wrong, the most common
    pattern first; otherwise evenly from the best to the worst answer of the rung `focus`.
    """
    rows = range(len(run.rows))
    if run.task.get("kind") == "classify":
        patterns: dict[tuple[bool, ...], list[int]] = defaultdict(list)
        for i in rows:
            patterns[tuple(rung[i].right for rung in rungs)].append(i)
        queues = sorted(patterns.values(), key=lambda queue: (-len(queue), queue[0]))
        longest = max(map(len, queues), default=0)
        taken = [queue[turn] for turn in range(longest) for queue in queues if turn < len(queue)]
    else:
        ranked = sorted(rows, key=lambda i: (-(rungs[focus][i].score or 0.0), i))
        shown = min(EXAMPLES, len(ranked))
        taken = [ranked[round(i * (len(ranked) - 1) / max(1, shown - 1))] for i in range(shown)]
    return [Example(run.rows[i], tuple(rung[i] for rung in rungs)) for i in taken[:EXAMPLES]]
