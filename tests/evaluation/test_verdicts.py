"""Verdicts counted by hand, and the Wilson interval against scipy."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fitune.errors import DataError
from fitune.evaluation.verdicts import tally, wilson


def test_a_verdict_counts_where_both_orders_agree() -> None:
    found = tally(
        [
            ("first", "second"),  # a win: named first, then, standing second, again
            ("first", "second"),
            ("second", "first"),  # a loss
            ("first", "first"),  # the position won
            ("tie", "tie"),
            ("tie", "second"),
            ("unreadable", "unreadable"),  # nothing was agreed on
            None,  # the same answer twice
        ]
    )
    assert (found.rows, found.wins, found.losses, found.ties) == (8, 2, 1, 5)
    assert found.win_rate == pytest.approx((2 + 2.5) / 8)
    assert found.agreement == pytest.approx(4 / 7)
    assert found.first == pytest.approx((2 + 1 + 2) / 9)
    assert found.unreadable == 2
    assert found.p_value == 1.0


def test_nobody_was_asked() -> None:
    found = tally([None, None])
    assert (found.win_rate, found.agreement, found.first, found.p_value) == (0.5, None, None, 1)
    with pytest.raises(DataError, match="no verdicts"):
        tally([])


@settings(deadline=None)
@given(st.integers(1, 200), st.data())
def test_wilson_equals_scipy(rows: int, data: st.DataObject) -> None:
    from scipy.stats import binomtest

    hits = data.draw(st.integers(0, rows))
    theirs = binomtest(hits, rows).proportion_ci(0.95, "wilson")
    mine = wilson(hits / rows, rows)
    assert (mine.low, mine.high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)
