"""Which rows are shown: against plain loops."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fitune.approaches.example_selection import (
    arranged,
    diverse,
    fitting,
    worth_showing,
)
from fitune.data.rows import Row, Rows, Turn


def test_what_is_not_worth_showing() -> None:
    history = (Turn("user", "my"),)
    rows = Rows(
        (
            Row("My  card?", "lost"),
            Row("my card? ", "lost"),  # says the same
            Row("my card?", "found"),  # contradicts
            Row("  ", "lost"),
            Row("no answer", " "),
            Row("nor here"),
            Row("card?", "lost", history),  # the same words once its earlier turn is read
            Row("?", "lost"),
        )
    )
    assert worth_showing(rows).rows == (rows[0], rows[2], rows[7])


def clouds(sizes: Sequence[int]) -> tuple[Rows, np.ndarray, list[int]]:
    """Rows around centres far apart; the first of each is the centre itself."""
    draw = np.random.default_rng(0)
    rows, vectors, cloud = [], [], []
    for number, size in enumerate(sizes):
        centre = 100 * draw.normal(size=8)
        noise = draw.normal(size=(size // 2, 8)) * np.arange(1, size // 2 + 1)[:, None] / 50
        for i, vector in enumerate([centre, *(centre + noise), *(centre - noise)]):
            rows.append(Row(f"cloud {number} row {i}", "a"))
            vectors.append(vector)
            cloud.append(number)
    return Rows(tuple(rows)), np.array(vectors, dtype=np.float32), cloud


def test_diverse_rows_are_the_centres_of_clouds() -> None:
    rows, vectors, cloud = clouds([7, 21, 11])
    ranked = diverse(rows, vectors, 3, seed=0)
    assert [row.text for row in ranked[:3]] == [f"cloud {n} row 0" for n in (1, 2, 0)]
    assert sorted(row.text for row in ranked) == sorted(rows.texts)
    numbers = {row.text: number for row, number in zip(rows, cloud, strict=True)}
    assert {numbers[row.text] for row in ranked[3:6]} == {0, 1, 2}
    backwards = diverse(Rows(tuple(reversed(rows.rows))), vectors[::-1], 3, seed=0)
    assert backwards[:6] == ranked[:6]
    assert len(diverse(rows[:2], vectors[:2], 8, seed=0)) == 2


@given(
    lengths=st.lists(st.integers(1, 12), max_size=30),
    wanted=st.integers(1, 8),
    budget=st.integers(0, 40),
)
def test_what_fits_is_taken_in_order(lengths: list[int], wanted: int, budget: int) -> None:
    rows = [Row("x" * length, str(i)) for i, length in enumerate(lengths)]

    def fits(chosen: Sequence[Row]) -> bool:
        return sum(len(row.text) for row in chosen) <= budget

    chosen = fitting(rows, wanted, fits)
    expected: list[Row] = []
    for row in rows:
        if len(expected) < wanted and fits([*expected, row]):
            expected.append(row)
    assert chosen == expected and fits(chosen)


def test_looking_for_what_fits_ends() -> None:
    asked = []

    def fits(chosen: Sequence[Row]) -> bool:
        asked.append(len(chosen))
        return not chosen

    assert fitting([Row(str(i)) for i in range(10_000)], 2, fits) == []
    assert len(asked) < 30


def test_orders() -> None:
    rows = [Row("1", "b"), Row("2", "a"), Row("3", "b"), Row("4", "a")]

    def texts(order: str, **how: object) -> str:
        return "".join(row.text for row in arranged(rows, order, **({"seed": 0} | how)))  # type: ignore[arg-type]

    assert texts("similar-first") == "1234"
    assert texts("similar-last") == "4321"
    assert texts("label") == "4231", "within a label, the most similar last"
    keys = [Row(f"question {i}").key for i in range(20)]
    orders = {texts("random", key=key) for key in keys}
    assert len(orders) > 5, "each question has an order of its own"
    assert texts("random", key=keys[0]) == texts("random", key=keys[0])
    assert {texts("random", seed=i, key=keys[0]) for i in range(20)} != orders


@pytest.mark.parametrize("order", ["similar-first", "similar-last", "label", "random"])
def test_every_order_shows_every_row(order: str) -> None:
    rows = [Row(str(i), "ab"[i % 2]) for i in range(9)]
    assert sorted(row.text for row in arranged(rows, order, seed=1)) == [row.text for row in rows]
    assert arranged([], order, seed=1) == []
