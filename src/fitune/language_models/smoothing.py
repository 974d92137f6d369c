"""From counts of n-grams to probabilities: how much is taken from what was seen, for what was not.

Knows the tables of counts; knows nothing of sequences.

Every function here gives, for each order, the natural log of each n-gram's probability after its
context, [n-grams], and the natural log of each n-gram's back-off weight as a context, [n-grams], or
[0] of the highest order, which is none: an n-gram in no table has the probability of its suffix
times the weight of its context. The begin of a sequence is never predicted (minus infinity); it is
a context only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from fitune.language_models import Floats
from fitune.language_models.ngram_counts import Keys, Table

Order = tuple[Floats, Floats]
"""(log probabilities, log back-off weights) of one table."""


PART = 2**18
"""N-grams smoothed at once: few enough to stay in the processor's cache."""


@dataclass(frozen=True)
class _Contexts:
    """N-grams of one order, some or all, by context: those of one stand side by side.

    Attributes:
        starts: where each context's n-grams begin.
        lengths: how many each context has.
        places: of each context in the table below.
    """

    starts: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]
    places: npt.NDArray[np.int64]

    @classmethod
    def of(cls, keys: Keys, width: int) -> _Contexts:
        context = keys // width
        starts = np.flatnonzero(np.diff(context, prepend=-1))
        return cls(starts, np.diff(starts, append=len(context)), context[starts])

    def total(self, values: npt.NDArray[Any]) -> Floats:
        """The sum over each context's n-grams."""
        return np.add.reduceat(values, self.starts, dtype=np.float64)

    def spread(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Each context's value at each of its n-grams."""
        return np.repeat(values, self.lengths)


Rule = Callable[[_Contexts, npt.NDArray[np.int32], Floats], tuple[Floats, Floats]]
"""(contexts, counts of their n-grams, the last token's probabilities after the shorter context) →
(probabilities, what each context leaves to tokens that were not seen)."""


def _applied(
    rule: Rule, table: Table, counts: npt.NDArray[np.int32], width: int, below: list[Order]
) -> None:
    """Append an order, made in parts of whole contexts so that memory is that of the results; what
    is found of its contexts belongs to the order below."""
    logs = np.empty(len(table.keys))
    weights = np.zeros(len(below[-1][0])) if below else np.zeros(0)
    for part in _parts(table.keys, width):
        contexts = _Contexts.of(table.keys[part], width)
        if below:
            lower = np.exp(below[-1][0][table.suffixes[part]])
        else:  # uniform over the vocabulary and the end, which precede the begin
            lower = np.append(np.full(width - 1, 1 / (width - 1)), 0.0)
        probabilities, free = rule(contexts, counts[part], lower)
        with np.errstate(divide="ignore"):  # the begin's
            np.log(probabilities, out=logs[part])
        if below:
            weights[contexts.places] = np.log(free)
    if below:
        below[-1] = below[-1][0], weights
    below.append((logs, np.zeros(0)))


def _parts(keys: Keys, width: int) -> Iterator[slice]:
    """About `PART` n-grams each, and none of a context in two."""
    firsts = keys[::PART] // width * width
    edges = [*dict.fromkeys(np.searchsorted(keys, firsts).tolist()), len(keys)]
    return (slice(first, last) for first, last in pairwise(edges) if first < last)


def discounts(counts: npt.NDArray[np.integer]) -> Floats:
    """What is taken off counts of 0, 1, 2 and 3 or more: float64 [4].

    Chen and Goodman (1998), "An empirical study of smoothing techniques for language modeling",
    TR-10-98, section 3.4, equation 26: D_k = k - (k + 1) Y n_{k+1} / n_k with Y = n_1 / (n_1 +
    2 n_2), where n_k n-grams have the count k. Where a small or regular corpus gives no n_k, or a
    discount outside of (0, k), they are 0.5, 1 and 1.5, KenLM's choice for the same case.
    """
    seen = np.bincount(np.minimum(counts, 5), minlength=6)[1:5].astype(np.float64)
    if seen.all():
        share = seen[0] / (seen[0] + 2 * seen[1])
        k = np.arange(1, 4)
        taken = k - (k + 1) * share * seen[1:] / seen[:-1]
        if ((taken > 0) & (taken < k)).all():
            return np.concatenate([[0.0], taken])
    return np.array([0.0, 0.5, 1.0, 1.5])


def kneser_ney(tables: list[Table]) -> list[Order]:
    """Interpolated Kneser-Ney with three discounts an order (Chen and Goodman 1998, section 3.4).

    Below the highest order, a count is the number of distinct tokens seen before the n-gram; one
    that begins a sequence has nothing before it and keeps its count. Unigrams are interpolated
    with the uniform distribution over the vocabulary and the end.
    """
    found: list[Order] = []
    for n, table in enumerate(tables):
        counts = table.counts
        if n + 1 < len(tables):
            before = np.bincount(tables[n + 1].suffixes, minlength=len(counts)).astype(np.int32)
            counts = np.where(before > 0, before, counts)
        if n == 0:
            counts = _without_begin(counts)
        rule = partial(_interpolated, discounts(counts))
        _applied(rule, table, counts, len(tables[0].keys), found)
    return found


def _interpolated(
    taken: Floats, contexts: _Contexts, counts: npt.NDArray[np.int32], lower: Floats
) -> tuple[Floats, Floats]:
    """A `Rule`: equation 24, p = (c - D(c)) / total + free · lower."""
    discount = taken[np.minimum(counts, 3)]
    total = contexts.total(counts)
    free = contexts.total(discount) / total
    return (counts - discount) / contexts.spread(total) + contexts.spread(free) * lower, free


def absolute(tables: list[Table]) -> list[Order]:
    """Back-off with absolute discounting: one discount an order, D = n_1 / (n_1 + 2 n_2).

    What is taken off goes to the tokens not seen after the context, in proportion to their
    probabilities after the shorter one, with Katz's weights (1987, "Estimation of probabilities
    from sparse data", IEEE TASSP 35(3), equation 15). The discount: Ney, Essen and Kneser (1994),
    "On structuring probabilistic dependences in stochastic language modelling", section 4; 0.5
    where n_1 or n_2 is zero. Unigrams are interpolated with the uniform distribution.
    """
    found: list[Order] = []
    for n, table in enumerate(tables):
        counts = _without_begin(table.counts) if n == 0 else table.counts
        once, twice = (int((counts == k).sum()) for k in (1, 2))
        taken = once / (once + 2 * twice) if once and twice else 0.5
        if n == 0:
            rule: Rule = partial(_interpolated, np.array([0.0, taken, taken, taken]))
        else:
            rule = partial(_backed_off, taken)
        _applied(rule, table, counts, len(tables[0].keys), found)
    return found


def _backed_off(
    taken: float, contexts: _Contexts, counts: npt.NDArray[np.int32], lower: Floats
) -> tuple[Floats, Floats]:
    """A `Rule`: p = (c - D) / total, and Katz's weights for what was not seen."""
    total = contexts.total(counts)
    unseen = 1 - contexts.total(lower)
    # Where every token was seen, nobody is left to give to, and nothing is taken.
    everything = unseen < 1e-9
    discount = np.where(everything, 0.0, taken)
    probabilities = (counts - contexts.spread(discount)) / contexts.spread(total)
    free = discount * contexts.lengths / total
    return probabilities, np.where(everything, 1.0, free / np.where(everything, 1.0, unseen))


SMOOTHINGS: dict[str, Callable[[list[Table]], list[Order]]] = {
    "kneser-ney": kneser_ney,
    "absolute": absolute,
}


def _without_begin(counts: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    counts = counts.copy()
    counts[-1] = 0
    return counts
