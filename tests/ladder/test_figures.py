"""How figures are written."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fitune.ladder.figures import amount, difference, duration, number, p_value, score, size


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"), (0.0004, "<1 ms"), (0.25, "250 ms"), (0.9994, "999 ms"), (0.9996, "1.0 s"),
        (3.14, "3.1 s"), (9.96, "10 s"), (59.4, "59 s"), (59.6, "1 min 00 s"),
        (252, "4 min 12 s"), (3599.6, "1 h 00 min"), (3780, "1 h 03 min"),
        (360_000_000, "100,000 h 00 min"),
    ],
)  # fmt: skip
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"), (999, "999 B"), (1000, "0.98 KiB"), (1024, "1.00 KiB"),
        (350 * 1024**2, "350 MiB"), (1_288_490_189, "1.20 GiB"), (24 * 1024**3, "24.0 GiB"),
        (5 * 1024**4, "5.00 TiB"), (5000 * 1024**4, "5000 TiB"),
    ],
)  # fmt: skip
def test_sizes(count: int, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"), (9_999, "9,999"), (10_000, "10.0 k"), (22_713_216, "22.7 M"),
        (999_600, "1.00 M"), (8_030_261_248, "8.03 G"), (2e12, "2.00 T"),
    ],
)  # fmt: skip
def test_counts(count: float, text: str) -> None:
    assert number(count) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"), (1e-7, "<0.0001"), (0.00006, "0.0001"), (0.01584, "0.0158"), (1, "1.00"),
        (1234.5, "1,234.50"),
    ],
)  # fmt: skip
def test_hours_and_money(value: float, text: str) -> None:
    assert amount(value) == text


def test_scores_and_differences() -> None:
    assert score(0.9346) == "0.935" and score(-0.5) == "−0.500" and score(-0.0001) == "0.000"
    assert difference(0.0431) == "+0.043" and difference(-0.0431) == "−0.043"
    assert difference(0.0004) == difference(-0.0004) == difference(0) == "0.000"


def test_p_values() -> None:
    assert [p_value(p) for p in (1e-9, 0.0123, 0.43, 1.0)] == [
        "p < 0.001", "p = 0.012", "p = 0.43", "p = 1.00",
    ]  # fmt: skip


@settings(deadline=None)
@given(st.floats(0.001, 1))
def test_a_shown_p_value_stays_on_its_side_of_the_level(p: float) -> None:
    assert p_value(p) == "p = 0.0500" or (float(p_value(p)[4:]) < 0.05) == (p < 0.05)
