"""Options of the approach `hmm`, each with its effect."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fitune import config
from fitune.approaches.hmm import Hmm
from fitune.data.rows import Rows

Make = Callable[..., Any]


def scores(
    make_work: Make, rows: Rows, quietly: Any, of_task: int = 0, **options: Any
) -> list[Any]:
    made = Hmm(config.Hmm(**options), make_work(rows.labels, seed=of_task))
    made.fit(rows[:80], rows[80:])
    return [p.scores for p in made.predict(rows, quietly)]


@pytest.mark.parametrize(
    "changed",
    [
        {"tokens": "characters"},
        {"tokens": "subwords"},
        {"states": 3},
        {"iterations": 1},
        {"smoothing": 1.0},
        {"seed": 5},
    ],
)
def test_options_have_an_effect(
    changed: dict[str, Any], make_work: Make, intent_rows: Rows, quietly: Any
) -> None:
    before = scores(make_work, intent_rows, quietly)
    assert before == scores(make_work, intent_rows, quietly)
    assert before != scores(make_work, intent_rows, quietly, **changed)


def test_the_seed_is_the_tasks(make_work: Make, intent_rows: Rows, quietly: Any) -> None:
    own = scores(make_work, intent_rows, quietly, seed=5)
    assert scores(make_work, intent_rows, quietly, of_task=5) == own
    assert scores(make_work, intent_rows, quietly, of_task=5, seed=0) != own
