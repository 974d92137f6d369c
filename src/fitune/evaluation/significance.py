"""How sure a measured difference is: intervals and paired tests over the same rows.

Knows per-row scores and metric functions; knows nothing of approaches or models.

A metric is a formula of per-row statistics summed over rows (see `metrics`), so a bootstrap
resample is a vector of how often each distinct row was drawn, times the matrix of statistics.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from fitune.evaluation.metric import Floats, Metric, Texts, check_lengths

LEVEL = 0.05
"""Two-sided level of every test, and one minus the confidence of every interval."""

RESAMPLES = 10_000
CUSTOM_RESAMPLES = 1_000
"""At most so many for a user's own metric, which is called once for each."""

_CHUNK = 4_000_000  # numbers drawn at once: 32 MB


@dataclass(frozen=True)
class Interval:
    """A 95 % interval, `low` ≤ `high`."""

    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """A paired comparison on the same rows: this one minus the other.

    Attributes:
        difference: of the metric.
        low, high: 95 % interval of the difference (paired bootstrap).
        p_value: two-sided.
        test: the name of the test that gave `p_value`.
    """

    difference: float
    low: float
    high: float
    p_value: float
    test: str


def interval(
    metric: Metric,
    predictions: Texts,
    references: Texts,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Interval:
    """95 % percentile bootstrap over rows (Efron and Tibshirani 1993, section 13.3).

    Where every row scores 0, or every row scores 1, resampling shows no spread at all; the exact
    interval of a proportion (Clopper and Pearson 1934) stands in, so that 20 right answers of 20
    do not pass for certainty.

    Raises:
        DataError: predictions and references differ in length, or there are no rows.
    """
    rows = check_lengths(predictions, references)
    if metric.per_row is not None:
        scores = metric.per_row(predictions, references)
        if scores.min() == scores.max() and scores[0] in (0.0, 1.0):
            from scipy.stats import binomtest

            exact = binomtest(int(scores.sum()), rows).proportion_ci(1 - LEVEL, "exact")
            return Interval(float(exact.low), float(exact.high))
    values = _bootstrap(metric, references, [predictions], seed, resamples)[0]
    return Interval(*_percentiles(values))


def compare(
    metric: Metric,
    predictions: Texts,
    other_predictions: Texts,
    references: Texts,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Comparison:
    """`predictions` minus `other_predictions` on the same rows.

    The interval is the paired percentile bootstrap. The p-value is McNemar's exact test (McNemar
    1947; the binomial form, two-sided) where every row scores 0 or 1, else approximate
    randomization: the two answers of each row are swapped at random (Noreen 1989; Riezler and
    Maxwell 2005; for a mean over rows this is the sign-flip test), with the p-value
    (1 + as extreme) / (1 + shuffles) of Phipson and Smyth 2010, which is never 0.

    Raises:
        DataError: the three differ in length, or there are no rows.
    """
    check_lengths(predictions, other_predictions, references)
    mine, others = _bootstrap(metric, references, [predictions, other_predictions], seed, resamples)
    low, high = _percentiles(mine - others)
    difference = metric.function(predictions, references) - metric.function(
        other_predictions, references
    )
    only = _discordant(metric, predictions, other_predictions, references)
    if only is not None:
        p_value, test = mcnemar(*only), "exact McNemar test"
    else:
        shuffled = _randomization(
            metric, references, predictions, other_predictions, seed, resamples
        )
        extreme = int((np.abs(shuffled) >= abs(difference) - 1e-12).sum())
        p_value = (1 + extreme) / (1 + len(shuffled))
        test = f"approximate randomization test, {len(shuffled):,} shuffles"
    return Comparison(float(difference), low, high, p_value, test)


def mcnemar(only_first: int, only_second: int) -> float:
    """Two-sided exact p-value from the rows that only one of the two got right."""
    from scipy.stats import binomtest

    if only_first + only_second == 0:
        return 1.0
    return float(binomtest(only_first, only_first + only_second, 0.5).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for having tested them all (Holm 1979), in the order given."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted = [1.0] * len(p_values)
    largest = 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def detectable_difference(
    metric: Metric,
    predictions: Texts,
    other_predictions: Texts,
    references: Texts,
    *,
    power: float = 0.8,
    seed: int = 0,
) -> float | None:
    """The smallest true difference that a test on so many rows would find with that power.

    Where every row scores 0 or 1: the difference δ for which McNemar's test needs exactly these
    rows, √n·δ = z(1−α/2)·√ψ + z(power)·√(ψ − δ²) with ψ the observed share of rows that only one
    of the two got right (Connor 1987), or δ itself where that is larger, since a difference cannot
    exceed the disagreement. Otherwise (z(1−α/2) + z(power)) bootstrap standard errors.

    Returns None where these rows can tell nothing: fewer than 6 rows of zeros and ones (the exact
    test cannot reach 5 % then), or answers that never differ under another metric.
    """
    from scipy.optimize import brentq
    from scipy.stats import norm

    rows = check_lengths(predictions, other_predictions, references)
    z_level, z_power = float(norm.ppf(1 - LEVEL / 2)), float(norm.ppf(power))
    only = _discordant(metric, predictions, other_predictions, references)
    if only is None:
        mine, others = _bootstrap(metric, references, [predictions, other_predictions], seed, 2_000)
        return (z_level + z_power) * float(np.std(mine - others)) or None
    if rows < 6:
        return None
    discordance = sum(only) / rows

    def excess(delta: float) -> float:
        psi = max(discordance, delta)
        needed = z_level * math.sqrt(psi) + z_power * math.sqrt(max(psi - delta**2, 0.0))
        return needed - math.sqrt(rows) * delta

    return float(brentq(excess, 1e-12, 1.0))


# ── resampling ───────────────────────────────────────────────────────────────────────────────────


def _percentiles(values: Floats) -> tuple[float, float]:
    low, high = np.quantile(values, [LEVEL / 2, 1 - LEVEL / 2])
    return float(low), float(high)


def _discordant(
    metric: Metric, predictions: Texts, other_predictions: Texts, references: Texts
) -> tuple[int, int] | None:
    """Rows that only the first, and only the second got right; None unless all score 0 or 1."""
    if metric.per_row is None:
        return None
    mine = metric.per_row(predictions, references)
    others = metric.per_row(other_predictions, references)
    if not np.isin([mine, others], (0.0, 1.0)).all():
        return None
    return int((mine > others).sum()), int((others > mine).sum())


def _cells(
    metric: Metric, references: Texts, systems: Sequence[Texts]
) -> tuple[np.ndarray, list[Floats]]:
    """Rows that count alike, merged: how many there are of each (int64 [K]), and for each system
    their statistics (float64 [K, d]). All systems share one set of columns."""
    assert metric.statistics is not None
    distinct = Counter(zip(*systems, references, strict=True))
    columns = list(zip(*distinct, strict=True))
    said = [text for column in columns[:-1] for text in column]
    table = metric.statistics(said, list(columns[-1]) * len(systems))
    side_by_side = np.concatenate(np.split(table, len(systems)), axis=1)
    merged, cell = np.unique(side_by_side, axis=0, return_inverse=True)
    counts = np.zeros(len(merged), dtype=np.int64)
    np.add.at(counts, cell.ravel(), list(distinct.values()))
    return counts, np.split(merged, len(systems), axis=1)


def _draws(counts: np.ndarray, resamples: int, rng: np.random.Generator) -> Iterator[Floats]:
    """How often each cell occurs in a resample of all rows, float64 [some resamples, K]."""
    rows, cells = int(counts.sum()), len(counts)
    few = cells * 3 < rows  # then one multinomial draw is quicker than drawing row by row
    cell_of_row = np.repeat(np.arange(cells), counts)
    step = max(1, _CHUNK // (cells if few else rows))
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        if few:
            yield rng.multinomial(rows, counts / rows, size=size).astype(np.float64)
        else:
            drawn = cell_of_row[rng.integers(rows, size=(size, rows))]
            drawn += np.arange(size)[:, None] * cells
            drawn_counts = np.bincount(drawn.ravel(), minlength=size * cells)
            yield drawn_counts.reshape(size, cells).astype(np.float64)


def _bootstrap(
    metric: Metric, references: Texts, systems: Sequence[Texts], seed: int, resamples: int
) -> list[Floats]:
    """For each system, the metric on each resample, float64 [resamples]; the same rows are drawn
    for all systems."""
    rng = np.random.default_rng(seed)
    rows = len(references)
    if metric.statistics is None or metric.formula is None:
        values: list[list[float]] = [[] for _ in systems]
        for _ in range(min(resamples, CUSTOM_RESAMPLES)):
            drawn = rng.integers(rows, size=rows).tolist()
            wanted = [references[i] for i in drawn]
            for kept, said in zip(values, systems, strict=True):
                kept.append(metric.function([said[i] for i in drawn], wanted))
        return [np.array(kept) for kept in values]
    counts, statistics = _cells(metric, references, systems)
    chunks = [
        [metric.formula(draw @ table, rows) for table in statistics]
        for draw in _draws(counts, resamples, rng)
    ]
    return [np.concatenate(parts) for parts in zip(*chunks, strict=True)]


def _randomization(
    metric: Metric,
    references: Texts,
    predictions: Texts,
    other_predictions: Texts,
    seed: int,
    shuffles: int,
) -> Floats:
    """Differences of the metric after swapping the two answers of each row by the toss of a coin,
    float64 [shuffles]."""
    rng = np.random.default_rng(seed)
    rows = len(references)
    if metric.statistics is None or metric.formula is None:
        differences = []
        for _ in range(min(shuffles, CUSTOM_RESAMPLES)):
            pairs = [
                (b, a) if swap else (a, b)
                for a, b, swap in zip(
                    predictions, other_predictions, rng.random(rows) < 0.5, strict=True
                )
            ]
            first, second = zip(*pairs, strict=True)
            differences.append(
                metric.function(first, references) - metric.function(second, references)
            )
        return np.array(differences)
    counts, (mine, others) = _cells(metric, references, [predictions, other_predictions])
    sums, other_sums = counts @ mine, counts @ others
    differ = (mine != others).any(axis=1)
    counts, moved = counts[differ], (others - mine)[differ]
    parts = []
    step = max(1, _CHUNK // max(1, len(counts)))
    for start in range(0, shuffles, step):
        size = (min(step, shuffles - start), len(counts))
        change = rng.binomial(counts, 0.5, size=size) @ moved
        parts.append(
            metric.formula(sums + change, rows) - metric.formula(other_sums - change, rows)
        )
    return np.concatenate(parts)
