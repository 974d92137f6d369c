"""How well passages are found: rankings against the passages known to be relevant.

Knows passages' numbers, or where no passage is known to be relevant, whether the answer stands in
it; knows nothing of retrievers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fitune.errors import ConfigError, DataError
from fitune.evaluation.metrics import mean_over_rows, normalise
from fitune.evaluation.significance import Interval, interval
from fitune.retrieval import check_k

Gains = Mapping[int, float]
"""Relevant passage → how relevant it is, above 0."""


def recall(found: Sequence[int], gains: Gains, k: int) -> float:
    """The share of the relevant passages that is among the first `k` found."""
    return len(gains.keys() & set(found[:k])) / len(gains)


def precision(found: Sequence[int], gains: Gains, k: int) -> float:
    """The share of relevant ones in `k` passages; where fewer were found, the rest counts as not
    relevant (as trec_eval's P_k)."""
    return len(gains.keys() & set(found[:k])) / k


def reciprocal_rank(found: Sequence[int], gains: Gains, k: int) -> float:
    """1 / the rank of the first relevant passage, 0 if none is among the first `k` (Voorhees 1999,
    section 3 of the TREC-8 question answering report)."""
    for rank, passage in enumerate(found[:k], start=1):
        if passage in gains:
            return 1 / rank
    return 0.0


def ndcg(found: Sequence[int], gains: Gains, k: int) -> float:
    """Normalised discounted cumulative gain at `k`: Σ gain / log2(rank + 1), over that of the best
    possible ranking (Järvelin and Kekäläinen 2002, with the discount of trec_eval's ndcg_cut)."""
    ideal = sorted(gains.values(), reverse=True)[:k]
    return _dcg([gains.get(passage, 0.0) for passage in found[:k]]) / _dcg(ideal)


def _dcg(gains: Sequence[float]) -> float:
    return sum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains, start=1))


MEASURES: dict[str, Callable[[Sequence[int], Gains, int], float]] = {
    "recall": recall,
    "precision": precision,
    "mrr": reciprocal_rank,
    "ndcg": ndcg,
}
"""Name → (passages found, best first; gains; k) → the value for one query, from 0 to 1."""

USUAL = ("recall@1", "recall@5", "mrr@10", "ndcg@10")


def answer_recall(shown: Sequence[Sequence[str]], answers: Sequence[str], k: int) -> float:
    """The share of rows whose answer stands in one of the first `k` passages shown: top-k retrieval
    accuracy of Karpukhin et al. 2020 (section 5).

    An answer stands in a passage if its words, normalised as for exact match, are there in a row;
    one without any word stands in none. It may stand there by chance (``two``, ``yes``), so this
    flatters retrieval where answers are short.

    Args:
        shown: the passages of each row, best first.
        answers: the row's reference answer.

    Raises:
        ConfigError: `k` is less than 1.
        DataError: there are no rows, or the two are not of one length.
    """
    ranks = _answer_ranks(shown, answers, k)
    return sum(rank > 0 for rank in ranks) / len(ranks)


def answer_mrr(shown: Sequence[Sequence[str]], answers: Sequence[str], k: int) -> float:
    """The mean over rows of 1 / the rank of the first of `k` passages in which the answer stands, 0
    where it stands in none; arguments and errors as for `answer_recall`."""
    ranks = _answer_ranks(shown, answers, k)
    return sum(1 / rank for rank in ranks if rank) / len(ranks)


def _answer_ranks(shown: Sequence[Sequence[str]], answers: Sequence[str], k: int) -> list[int]:
    """For each row the rank of the first passage with the answer, from 1; 0 where none has it."""
    check_k(k)
    if len(shown) != len(answers) or not answers:
        raise DataError(
            f"there are passages of {len(shown):,} rows and answers of {len(answers):,}",
            fix="give both for every row, and at least one row",
        )
    ranks = []
    for passages, answer in zip(shown, answers, strict=True):
        words = normalise(answer)
        having = (
            rank
            for rank, passage in enumerate(passages[:k], start=1)
            if words and f" {words} " in f" {normalise(passage)} "
        )
        ranks.append(next(having, 0))
    return ranks


@dataclass(frozen=True)
class Measured:
    """One measure over many queries.

    Attributes:
        name: e.g. ``recall@5``.
        values: of each query, float64 ``[queries]``.
        interval: of the mean, 95 %.
    """

    name: str
    values: npt.NDArray[np.float64]
    interval: Interval

    @property
    def mean(self) -> float:
        return float(self.values.mean())


def measure(
    rankings: Sequence[Sequence[int]],
    relevant: Sequence[Collection[int] | Gains],
    names: Sequence[str] = USUAL,
    *,
    seed: int = 0,
) -> list[Measured]:
    """Measures of many queries' rankings.

    Args:
        rankings: the passages found for each query, best first.
        relevant: the relevant passages of each query, or how relevant each is.
        names: ``NAME@k`` with a name of `MEASURES`.
        seed: of the bootstrap behind the intervals.

    Raises:
        ConfigError: no such measure.
        DataError: nothing is relevant to a query, a gain is not above 0, a ranking has a passage
            twice, or the two are not of one length.
    """
    if len(rankings) != len(relevant) or not rankings:
        raise DataError(
            f"there are {len(rankings):,} rankings and relevant passages of {len(relevant):,} "
            "queries",
            fix="give both for every query, and at least one query",
        )
    gains = [_gains(number, known) for number, known in enumerate(relevant)]
    for number, found in enumerate(rankings):
        if len(set(found)) < len(found):
            raise DataError(
                f"the ranking of query {number} has a passage twice",
                fix="keep each passage's first place",
            )
    measured = []
    for name in names:
        function, k = _named(name)
        pairs = zip(rankings, gains, strict=True)
        values = np.array([function(found, known, k) for found, known in pairs])
        measured.append(Measured(name, values, _interval(values, seed)))
    return measured


def _gains(number: int, known: Collection[int] | Gains) -> Gains:
    gains = known if isinstance(known, Mapping) else dict.fromkeys(known, 1.0)
    if not gains or min(gains.values()) <= 0:
        raise DataError(
            f"query {number} has no relevant passage, or one with a gain of 0 or less",
            fix="leave out queries that nothing answers, and passages that are not relevant",
        )
    return gains


def _named(name: str) -> tuple[Callable[[Sequence[int], Gains, int], float], int]:
    what, _, k = name.partition("@")
    if what not in MEASURES or not k.isdecimal() or int(k) < 1:
        raise ConfigError(
            f"there is no measure '{name}'", fix=f"use one of {', '.join(MEASURES)} and @k: ndcg@10"
        )
    return MEASURES[what], int(k)


_MEAN = mean_over_rows(
    "mean", (), lambda said, _: np.array([float(value) for value in said]), "of numbers as texts"
)
"""Intervals are made of answers, which are texts."""


def _interval(values: npt.NDArray[np.float64], seed: int) -> Interval:
    texts = [repr(float(value)) for value in values]
    return interval(_MEAN, texts, [""] * len(texts), seed=seed)
