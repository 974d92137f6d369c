"""Several rankings of the same passages → one.

Knows passages' numbers and scores; knows nothing of what made them.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

from fitune.retrieval import Hit

Ranking = Sequence[Hit]
"""Best first."""

RANK_CONSTANT = 60
"""How little the first ranks stand out: the value of Cormack et al. 2009, found there to do well
on four collections, and not critical."""


def reciprocal_rank(rankings: Sequence[Ranking], weights: Sequence[float], k: int) -> list[Hit]:
    """Reciprocal rank fusion: score(d) = Σ weight / (60 + rank of d), ranks from 1.

    Cormack, Clarke and Büttcher, SIGIR 2009, equation in section 1, where all weights are 1. Needs
    no scores, so that rankings whose scores cannot be compared lose nothing.
    """
    return _fused(
        [[1 / (RANK_CONSTANT + rank) for rank in range(1, len(hits) + 1)] for hits in rankings],
        [0.0] * len(rankings),
        rankings,
        weights,
        k,
    )


def min_max(rankings: Sequence[Ranking], weights: Sequence[float], k: int) -> list[Hit]:
    """The weighted sum of scores, each ranking's brought to 0 … 1 first (CombSUM of Fox and Shaw
    1994 on the normalisation of Lee 1997, section 3).

    A passage that a ranking lacks has its lowest score, 0; where all its scores are equal, each
    is 1.
    """
    scaled = []
    for hits in rankings:
        scores = [hit.score for hit in hits]
        low, width = min(scores, default=0.0), max(scores, default=0.0) - min(scores, default=0.0)
        scaled.append([(score - low) / width if width else 1.0 for score in scores])
    return _fused(scaled, [0.0] * len(rankings), rankings, weights, k)


def z_score(rankings: Sequence[Ranking], weights: Sequence[float], k: int) -> list[Hit]:
    """The weighted sum of scores, each ranking's brought to mean 0 and standard deviation 1 first
    (population form; "ZMUV" of Montague and Aslam 2001, section 2).

    A passage that a ranking lacks has its lowest score; where all its scores are equal, each is 0.
    """
    scaled = []
    for hits in rankings:
        scores = [hit.score for hit in hits]
        mean = statistics.fmean(scores) if scores else 0.0
        spread = statistics.pstdev(scores) if scores else 0.0
        scaled.append([(score - mean) / spread if spread else 0.0 for score in scores])
    return _fused(scaled, [min(scores, default=0.0) for scores in scaled], rankings, weights, k)


def _fused(
    scores: Sequence[Sequence[float]],
    absent: Sequence[float],
    rankings: Sequence[Ranking],
    weights: Sequence[float],
    k: int,
) -> list[Hit]:
    """The `k` passages with the largest weighted sum; equal ones in order of number."""
    of_ranking = [
        {hit.passage: score for hit, score in zip(hits, values, strict=True)}
        for hits, values in zip(rankings, scores, strict=True)
    ]
    passages = {passage for found in of_ranking for passage in found}
    fused = [
        Hit(
            passage,
            sum(
                weight * found.get(passage, lowest)
                for found, lowest, weight in zip(of_ranking, absent, weights, strict=True)
            ),
        )
        for passage in passages
    ]
    return sorted(fused, key=lambda hit: (-hit.score, hit.passage))[:k]


Fusion = Callable[[Sequence[Ranking], Sequence[float], int], list[Hit]]

FUSIONS: dict[str, Fusion] = {
    "reciprocal-rank": reciprocal_rank,
    "min-max": min_max,
    "z-score": z_score,
}
"""Name → (rankings, their weights, k) → the fused ranking."""
