"""Options of the approach `ngram`, each with its effect."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fitune import config
from fitune.approaches.ngram import NGram
from fitune.data.rows import Rows

Make = Callable[..., Any]


def fitted(make_work: Make, rows: Rows, **options: Any) -> NGram:
    made = NGram(config.NGram(**options), make_work(rows.labels))
    made.fit(rows[:80], rows[80:])
    return made


def test_kinds(make_work: Make, intent_rows: Rows) -> None:
    made = fitted(make_work, intent_rows, word_order=3, character_order=4)
    names = ["words-1", "words-2", "words-3", "characters-4"]
    assert list(made.options["weights"]) == list(made.models) == names
    assert [model.order for model in made.models["words-3"]] == [3, 3, 3]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "changed", [{"word_order": 3}, {"character_order": 2}, {"smoothing": "absolute"}]
)
def test_options_have_an_effect(
    changed: dict[str, Any], make_work: Make, intent_rows: Rows, quietly: Any
) -> None:
    before = fitted(make_work, intent_rows).predict(intent_rows, quietly)
    after = fitted(make_work, intent_rows, **changed).predict(intent_rows, quietly)
    assert [p.scores for p in before] != [p.scores for p in after]


def test_weights_make_it_less_sure(make_work: Make, intent_rows: Rows, quietly: Any) -> None:
    """Plain Bayes over three kinds counts the same text three times."""
    made = fitted(make_work, intent_rows)
    chosen = made.predict(intent_rows[80:], quietly)
    made.weights = made.weights * 0 + 1
    plain = made.predict(intent_rows[80:], quietly)
    right = intent_rows[80:].answers
    at = [intent_rows.labels.index(answer) for answer in right]

    def likelihood(answers: list[Any]) -> float:
        return sum(p.scores[i] > 0.01 for p, i in zip(answers, at, strict=True))

    assert likelihood(chosen) >= likelihood(plain)
