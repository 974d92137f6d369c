"""Which instruction is said, and which way likelihoods are read: tried on rows held out.

Knows rows, likelihoods and the task's metric; knows nothing of models or of how rows are asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from fitune.approaches.base import Prediction, Score
from fitune.approaches.calibration import CONTENT_FREE, Calibration, Way, calibration
from fitune.data.rows import Row, Rows

ENOUGH = 50
"""Validation rows without which nothing is chosen unasked: one row would weigh more than 2 points,
as much as most ways differ."""

MOST = 200
"""Validation rows that likelihoods are tried on, and training rows that labels' probabilities are
averaged over: a score's standard error is 3.5 points at most, and a choice costs a minute or two
where a small model reads 77 labels on two cores."""

MOST_WRITTEN = 50
"""Validation rows that instructions are tried on where answers are written, token by token."""

Ask = Callable[[Rows], np.ndarray]
"""Rows → log-likelihoods of the labels, ``[rows, labels]``."""


@dataclass(frozen=True)
class Tried:
    """An instruction, with the best way to read its likelihoods.

    Attributes:
        calibration: None where answers are written.
        score: the task's metric on the validation rows; None where there was nothing to choose.
        plain: that of likelihoods as they are; None where that was not tried.
    """

    instruction: str | None
    calibration: Calibration | None = None
    score: float | None = None
    plain: float | None = None


def best(tried: Iterable[Tried]) -> Tried:
    """That with the highest score, the first of equals."""
    return max(tried, key=lambda item: -np.inf if item.score is None else item.score)


def sample(rows: Iterable[Row], most: int, fits: Callable[[Row], bool]) -> Rows:
    """The first `most` rows by content hash, as good as drawn by lot, that fit into the context."""
    chosen: list[Row] = []
    for row in sorted(rows, key=lambda row: row.content_hash):
        if len(chosen) == most:
            break
        if fits(row):
            chosen.append(row)
    return Rows(tuple(chosen))


def try_ways(
    ways: list[Way],
    ask: Ask,
    choose: Callable[[np.ndarray, Calibration], list[Prediction]],
    score: Score,
    *,
    lengths: list[int],
    unlabelled: Rows,
    validation: Rows,
) -> tuple[Calibration, dict[Way, float]]:
    """The best of `ways` by the validation rows, the first of equals, and what each scored.

    Rows that labels' probabilities are averaged over are others than those that choose: a way that
    had seen these would be chosen for it.

    Args:
        choose: likelihoods and a calibration → answers.
        lengths: tokens of each label's words.
        unlabelled: what they are averaged over; their answers are not looked at.
        validation: none where there is one way only, and its score is not asked for.
    """
    content_free = np.empty((0, len(lengths)))
    if any(way.needs_content_free for way in ways):
        content_free = ask(Rows(tuple(Row(text) for text in CONTENT_FREE)))
    averaged = np.empty((0, len(lengths)))
    if any(way.needs_unlabelled for way in ways):
        averaged = ask(unlabelled)
    made = {
        way: calibration(way, lengths, content_free=content_free, unlabelled=averaged)
        for way in ways
    }
    if not len(validation):
        return made[ways[0]], {}
    likelihoods = ask(validation)
    scores = {way: score(choose(likelihoods, made[way]), validation) for way in ways}
    return made[max(scores, key=scores.__getitem__)], scores
