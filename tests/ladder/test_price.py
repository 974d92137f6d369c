"""Costs and break-even, against brute force."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fitune.evaluation.significance import Interval
from fitune.ladder.price import break_even, costs
from fitune.ladder.rung import Rung


def rung(name: str, value: float, train: float, answers: float, **other: Any) -> Rung:
    given: dict[str, Any] = {
        "use": "linear", "model": None, "method": None, "metric": "accuracy",
        "interval": Interval(value, value), "metrics": {}, "against": None, "comparison": None,
        "train_rows": 1, "peak_memory_bytes": 1, "parameters": 1, "trainable_parameters": 0,
    }  # fmt: skip
    return Rung(
        name=name, value=value, train_seconds=train, seconds_per_1000=answers, **{**given, **other}
    )


@given(
    asked=st.tuples(st.integers(0, 50), st.integers(0, 50)),
    tuned=st.tuples(st.integers(0, 50), st.integers(0, 50)),
)
def test_break_even_is_the_first_request_at_which_the_tuned_is_cheaper(
    asked: tuple[int, int], tuned: tuple[int, int]
) -> None:
    """Whole seconds, and milliseconds a request, so that brute force decides every tie."""
    one, other = rung("asked", 0.5, *asked), rung("tuned", 0.5, *tuned)
    expected = next(
        (n for n in range(1, 60_000)
         if 1000 * tuned[0] + n * tuned[1] < 1000 * asked[0] + n * asked[1]), None
    )  # fmt: skip
    found = break_even(one, other)
    if expected is None:
        assert found is None
    else:  # a tie of floats may fall on either side
        assert found is not None and abs(found - expected) <= 1


def test_costs_of_a_month() -> None:
    rungs = [
        rung("majority", 0.2, 0, 0),
        rung("slow", 0.1, 0, 10),
        rung("prompt", 0.7, 0, 3600, model="m", use="prompt"),
        rung("tuned", 0.9, 7200, 360, model="m", use="finetuned", trainable_parameters=5),
    ]
    made = costs(rungs, 2000, 3.0)
    assert [e.rung for e in made.expenses if e.on_front] == ["majority", "prompt", "tuned"]
    prompt, tuned = made.expenses[2:]
    assert (prompt.training_hours, prompt.serving_hours) == (0, pytest.approx(2.0))
    assert (tuned.training_money, tuned.serving_money) == (
        pytest.approx(6.0), pytest.approx(0.6),
    )  # fmt: skip
    assert tuned.first_month_hours == pytest.approx(2.2)
    (pair,) = made.break_evens
    assert (pair.asked, pair.tuned, pair.requests) == ("prompt", "tuned", 2223)
    assert costs(rungs, 10, None).expenses[0].training_money is None


def test_a_tie_is_on_the_front_and_nothing_beats_itself() -> None:
    made = costs([rung("a", 0.5, 1, 1), rung("b", 0.5, 1, 1), rung("c", 0.5, 2, 1)], 1000, None)
    assert [e.on_front for e in made.expenses] == [True, True, False]
