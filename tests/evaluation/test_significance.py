"""Intervals and tests against scipy, published examples, enumeration and simulation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fitune.errors import DataError
from fitune.evaluation.metrics import METRICS, Metric, custom_metric
from fitune.evaluation.significance import (
    compare,
    detectable_difference,
    holm,
    interval,
    mcnemar,
)

ACCURACY, MACRO_F1, TOKEN_F1 = METRICS["accuracy"], METRICS["macro_f1"], METRICS["token_f1"]
WORDS = ["red", "green", "blue", "fast", "slow", "tall", "round"]


def classified(rows: int, right: float, seed: int, labels: str = "abc") -> list[str]:
    """Predictions of references("abc" cycled) that are right with this probability."""
    rng = np.random.default_rng(seed)
    truth = references(rows, labels)
    return [t if rng.random() < right else str(rng.choice(list(labels))) for t in truth]


def references(rows: int, labels: str = "abc") -> list[str]:
    return [labels[i % len(labels)] for i in range(rows)]


def sentences(rows: int, seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, size=4)) for _ in range(rows)]


def test_mcnemar_published_example() -> None:
    # Agresti, Categorical Data Analysis (2002), section 10.1: approval ratings, discordant cells
    # 150 and 86; the squared statistic is 17.36, p = 0.00003.
    statistic = (150 - 86) ** 2 / (150 + 86)
    assert statistic == pytest.approx(17.36, abs=0.01)
    assert mcnemar(150, 86) == pytest.approx(3.1e-5, rel=0.2)
    # and by hand: 1 or fewer heads of 6 tosses, both ways
    assert mcnemar(1, 5) == pytest.approx(2 * (1 + 6) / 64)
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(0, 6) == pytest.approx(0.03125) and mcnemar(0, 5) > 0.05


@settings(deadline=None)
@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_sums_the_binomial(first: int, second: int) -> None:
    n = first + second
    tail = sum(math.comb(n, k) for k in range(min(first, second) + 1)) / 2**n
    assert mcnemar(first, second) == pytest.approx(min(1.0, 2 * tail), rel=1e-9)


def test_accuracy_is_compared_by_mcnemar() -> None:
    from scipy.stats import binomtest

    truth = references(300)
    a, b = classified(300, 0.9, 1), classified(300, 0.7, 2)
    result = compare(ACCURACY, a, b, truth)
    only_a = sum(x == t != y for x, y, t in zip(a, b, truth, strict=True))
    only_b = sum(y == t != x for x, y, t in zip(a, b, truth, strict=True))
    assert result.test == "exact McNemar test"
    assert result.p_value == binomtest(only_a, only_a + only_b).pvalue
    assert result.difference == pytest.approx((only_a - only_b) / 300)
    assert result.low < result.difference < result.high


@pytest.mark.parametrize("metric", [ACCURACY, MACRO_F1, METRICS["mcc"]], ids=lambda m: m.name)
def test_intervals_agree_with_scipy_bootstrap(metric) -> None:  # type: ignore[no-untyped-def]
    from scipy.stats import bootstrap

    truth, a, b = references(240), classified(240, 0.8, 3), classified(240, 0.7, 4)
    rows = np.arange(240)

    def value(index: np.ndarray, said: list[str]) -> float:
        return metric.function([said[i] for i in index], [truth[i] for i in index])

    def scipys(statistic) -> tuple[float, float]:  # type: ignore[no-untyped-def]
        found = bootstrap(
            (rows,), statistic, n_resamples=1500, vectorized=False, method="percentile",
            rng=np.random.default_rng(5),
        ).confidence_interval  # fmt: skip
        return found.low, found.high

    mine = interval(metric, a, truth)
    assert (mine.low, mine.high) == pytest.approx(scipys(lambda i: value(i, a)), abs=0.008)
    paired = compare(metric, a, b, truth)
    theirs = scipys(lambda i: value(i, a) - value(i, b))
    assert (paired.low, paired.high) == pytest.approx(theirs, abs=0.012)


def test_many_distinct_rows_agree_with_scipy_bootstrap() -> None:
    from scipy.stats import bootstrap

    a, truth = sentences(150, 1), sentences(150, 2)
    assert TOKEN_F1.per_row is not None
    found = bootstrap(
        (TOKEN_F1.per_row(a, truth),), np.mean, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    mine = interval(TOKEN_F1, a, truth)
    assert (mine.low, mine.high) == pytest.approx((found.low, found.high), abs=0.004)
    # chrF has as many distinct rows as rows: the other way of drawing must agree on the mean
    chrf = METRICS["chrf"]
    box = interval(chrf, a, truth)
    assert box.low < chrf.function(a, truth) < box.high


@pytest.mark.parametrize("name", ["token_f1", "chrf"])
def test_randomization_agrees_with_every_swap(name: str) -> None:
    metric = METRICS[name]
    truth = sentences(11, 1)
    a = [t.replace("red", "blue") for t in truth]
    b = sentences(11, 3)[:3] + [t.rsplit(" ", 1)[0] for t in truth[3:]]
    observed = abs(metric.function(a, truth) - metric.function(b, truth))
    extreme = 0
    for swaps in itertools.product([False, True], repeat=11):
        first = [y if s else x for x, y, s in zip(a, b, swaps, strict=True)]
        second = [x if s else y for x, y, s in zip(a, b, swaps, strict=True)]
        difference = metric.function(first, truth) - metric.function(second, truth)
        extreme += abs(difference) >= observed - 1e-12
    result = compare(metric, a, b, truth)
    assert result.p_value == pytest.approx(extreme / 2**11, abs=0.015)
    assert 0.001 < result.p_value < 0.9, "the example must be able to fail"
    assert result.test == "approximate randomization test, 10,000 shuffles"


def test_sign_flip_agrees_with_scipy() -> None:
    from scipy.stats import permutation_test

    truth = sentences(60, 1)
    a = [t.rsplit(" ", 1)[0] for t in truth]
    b = [t.rsplit(" ", 1 + i % 2)[0] for i, t in enumerate(truth)]
    b[:14] = truth[:14]
    assert TOKEN_F1.per_row is not None
    scores = TOKEN_F1.per_row(a, truth), TOKEN_F1.per_row(b, truth)
    theirs = permutation_test(
        scores, lambda x, y: np.mean(x) - np.mean(y), permutation_type="samples",
        n_resamples=4000, vectorized=False, rng=np.random.default_rng(0),
    )  # fmt: skip
    assert 0.01 < theirs.pvalue < 0.9
    assert compare(TOKEN_F1, a, b, truth).p_value == pytest.approx(theirs.pvalue, abs=0.03)


def test_nothing_differs() -> None:
    for metric, said, truth in (
        (ACCURACY, classified(50, 0.5, 1), references(50)),
        (MACRO_F1, classified(50, 0.5, 1), references(50)),
        (TOKEN_F1, sentences(50, 1), sentences(50, 2)),
    ):
        same = compare(metric, said, said, truth)
        assert (same.difference, same.low, same.high, same.p_value) == (0, 0, 0, 1)


def test_comparison_is_antisymmetric_and_repeatable() -> None:
    truth, a, b = references(90), classified(90, 0.8, 1), classified(90, 0.6, 2)
    forth, back = compare(MACRO_F1, a, b, truth, seed=3), compare(MACRO_F1, b, a, truth, seed=3)
    assert forth == compare(MACRO_F1, a, b, truth, seed=3)
    assert forth.difference == pytest.approx(-back.difference)
    assert forth.low == pytest.approx(-back.high, abs=0.02)
    assert forth.p_value == pytest.approx(back.p_value, abs=0.02)
    assert forth != compare(MACRO_F1, a, b, truth, seed=4)


def test_all_right_is_not_certainty() -> None:
    truth = references(20)
    box = interval(ACCURACY, truth, truth)
    assert box.high == 1.0 and box.low == pytest.approx(0.025 ** (1 / 20))
    wrong = interval(ACCURACY, ["z"] * 20, truth)
    assert wrong.low == 0.0 and wrong.high == pytest.approx(1 - 0.025 ** (1 / 20))


def test_coverage_of_the_interval() -> None:
    """Of 300 data sets with true accuracy 0.8, about 95 % of the intervals must hold it."""
    rng = np.random.default_rng(0)
    truth = ["a"] * 200
    held = 0
    for _ in range(300):
        said = np.where(rng.random(200) < 0.8, "a", "b").tolist()
        box = interval(ACCURACY, said, truth, resamples=1000)
        held += box.low <= 0.8 <= box.high
    assert 0.91 <= held / 300 <= 0.98


def test_rejections_when_nothing_differs() -> None:
    """Two equally good answerers must be told apart in at most 5 % of data sets."""
    rng = np.random.default_rng(1)
    truth = sentences(40, 0)
    rejected = 0
    for _ in range(200):
        halves = [t.rsplit(" ", 2)[0] for t in truth]
        a = [t if rng.random() < 0.5 else h for t, h in zip(truth, halves, strict=True)]
        b = [t if rng.random() < 0.5 else h for t, h in zip(truth, halves, strict=True)]
        rejected += compare(TOKEN_F1, a, b, truth, resamples=300).p_value <= 0.05
    assert 0.005 <= rejected / 200 <= 0.085


@pytest.mark.parametrize("discordance", [0.05, 0.2])
def test_detectable_difference_has_the_power_it_says(discordance: float) -> None:
    """Draw many data sets with exactly that difference: about 80 % must be significant."""
    rows = 400
    either = round(discordance * rows / 2)
    truth = ["a"] * rows
    a = ["b"] * either + ["a"] * (rows - either)
    b = ["a"] * either + ["b"] * either + ["a"] * (rows - 2 * either)
    delta = detectable_difference(ACCURACY, a, b, truth)
    assert delta is not None and 0 < delta <= 2 * either / rows
    psi = 2 * either / rows
    rng = np.random.default_rng(0)
    draws = rng.multinomial(rows, [(psi + delta) / 2, (psi - delta) / 2, 1 - psi], size=2000)
    power = np.mean([mcnemar(int(x), int(y)) < 0.05 for x, y, _ in draws])
    assert 0.70 <= power <= 0.86


def test_detectable_difference_shrinks_with_the_square_root_of_rows() -> None:
    for metric in (ACCURACY, MACRO_F1):
        found = []
        for times in (1, 4):
            truth = references(150) * times
            a, b = classified(150, 0.8, 1) * times, classified(150, 0.7, 2) * times
            found.append(detectable_difference(metric, a, b, truth))
        assert found[0] is not None and found[1] is not None
        assert found[0] / found[1] == pytest.approx(2, rel=0.1)


def test_too_few_rows_can_tell_nothing() -> None:
    assert detectable_difference(ACCURACY, ["a"] * 5, ["b"] * 5, ["a"] * 5) is None
    six = detectable_difference(ACCURACY, ["a"] * 6, ["b"] * 6, ["a"] * 6)
    assert six is not None and 0.7 < six <= 1
    alike = sentences(9, 1)
    assert detectable_difference(TOKEN_F1, alike, alike, sentences(9, 2)) is None


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_is_the_step_down_procedure(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    assert all(p <= q <= 1 for p, q in zip(p_values, adjusted, strict=True))
    for level in (0.01, 0.05, 0.2):
        rejected = set()
        for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
            if min(1.0, (len(p_values) - rank) * p_values[i]) > level:
                break
            rejected.add(i)
        assert rejected == {i for i, q in enumerate(adjusted) if q <= level}
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


def test_custom_metrics_have_intervals_and_tests_too() -> None:
    mine = custom_metric("mine", ACCURACY.function)
    truth, a, b = references(60), classified(60, 0.9, 1), classified(60, 0.6, 2)
    box, known = interval(mine, a, truth), interval(ACCURACY, a, truth)
    assert (box.low, box.high) == pytest.approx((known.low, known.high), abs=0.03)
    result, exact = compare(mine, a, b, truth), compare(ACCURACY, a, b, truth)
    assert result.test == "approximate randomization test, 1,000 shuffles"
    assert result.p_value == pytest.approx(exact.p_value, abs=0.02)
    assert detectable_difference(mine, a, b, truth) == pytest.approx(0.2, abs=0.1)


OF_DOCUMENTS = {"neg_bits_per_byte", "neg_perplexity"}
"""Metrics whose answers are likelihoods, and no text at all."""


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(sorted(METRICS.keys() - OF_DOCUMENTS)),
    st.lists(st.tuples(*[st.text("ab .", max_size=6)] * 3), min_size=1, max_size=12),
)
def test_any_rows_give_finite_ordered_figures(name: str, rows: list[tuple[str, str, str]]) -> None:
    a, b, truth = ([row[i] for row in rows] for i in range(3))
    box = interval(METRICS[name], a, truth, resamples=200)
    result = compare(METRICS[name], a, b, truth, resamples=200)
    assert box.low <= box.high and result.low <= result.high
    assert 0 < result.p_value <= 1
    assert all(map(math.isfinite, (box.low, box.high, result.low, result.difference)))


def test_rows_must_match() -> None:
    with pytest.raises(DataError, match="differ in length: 2, 1, 2"):
        compare(ACCURACY, ["a", "b"], ["a"], ["a", "b"])
    with pytest.raises(DataError, match="no rows"):
        interval(ACCURACY, [], [])


def test_banking77_sized_intervals_are_quick() -> None:
    import time

    rng = np.random.default_rng(0)
    truth = [f"intent{i % 77}" for i in range(3080)]
    a, b = (
        [t if rng.random() < 0.9 else f"intent{rng.integers(77)}" for t in truth] for _ in range(2)
    )
    start = time.perf_counter()
    compare(MACRO_F1, a, b, truth)
    assert time.perf_counter() - start < 20  # about 1.5 s on two quiet cores


def three_labels(rng: np.random.Generator, right: float) -> tuple[list[str], list[str]]:
    """150 drawn rows: the true label, and an answer that is right so often, else any other."""
    truth = rng.choice(["a", "b", "c"], p=[0.6, 0.3, 0.1], size=150)
    other = np.array(["b", "c", "a"])[np.searchsorted(["a", "b", "c"], truth)]
    return np.where(rng.random(150) < right, truth, other).tolist(), truth.tolist()


# Of right answers 0.8, wrong ones a → b → c → a: precision and recall follow from the shares.
_SHARES = {"a": (0.6, 0.1), "b": (0.3, 0.6), "c": (0.1, 0.3)}  # its own, and what is taken for it
TRUE_MACRO_F1 = float(
    np.mean([2 * 0.8 * s / (s + 0.8 * s + 0.2 * taken) for s, taken in _SHARES.values()])
)


@pytest.mark.parametrize(
    ("metric", "true_value"),
    [(ACCURACY, 0.8), (MACRO_F1, TRUE_MACRO_F1)],
    ids=lambda x: getattr(x, "name", "value"),
)
def test_nineteen_of_twenty_intervals_hold_the_truth(metric: Metric, true_value: float) -> None:
    rng = np.random.default_rng(2)
    held = 0
    for _ in range(1500):
        box = interval(metric, *three_labels(rng, 0.8), resamples=600)
        held += box.low <= true_value <= box.high
    assert 0.93 <= held / 1500 <= 0.975


def test_nineteen_of_twenty_intervals_of_a_difference_hold_the_truth() -> None:
    rng = np.random.default_rng(3)
    truth = ["a"] * 200
    held = 0
    for _ in range(1000):
        a = np.where(rng.random(200) < 0.8, "a", "b")
        b = np.where(rng.random(200) < 0.6, a, np.where(rng.random(200) < 0.7, "a", "b"))
        compared = compare(ACCURACY, a.tolist(), b.tolist(), truth, resamples=600)
        held += compared.low <= 0.4 * (0.8 - 0.7) <= compared.high
    assert 0.93 <= held / 1000 <= 0.975


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_equals_statsmodels(p_values: list[float]) -> None:
    multitest = pytest.importorskip("statsmodels.stats.multitest", reason="needs statsmodels")
    theirs = multitest.multipletests(p_values, method="holm")[1]
    assert holm(p_values) == pytest.approx(theirs.tolist(), abs=1e-12)


@settings(deadline=None)
@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_equals_statsmodels(first: int, second: int) -> None:
    tables = pytest.importorskip("statsmodels.stats.contingency_tables", reason="needs statsmodels")
    theirs = tables.mcnemar([[10, first], [second, 10]], exact=True)
    assert mcnemar(first, second) == pytest.approx(float(theirs.pvalue), abs=1e-12)
