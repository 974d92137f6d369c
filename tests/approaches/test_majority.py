"""The majority baseline."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from fitune import config
from fitune.approaches.majority import Majority
from fitune.data.rows import Row, Rows

Make = Callable[..., Any]


def rows(*answers: str) -> Rows:
    return Rows(tuple(Row(f"text {i}", answer) for i, answer in enumerate(answers)))


def test_the_most_frequent_answer_with_shares(make_work: Make, quietly: Any) -> None:
    made = Majority(config.Majority(), make_work(("a", "b", "c")))
    made.fit(rows("b", "a", "b", "b"), rows("a"))
    (first, second) = made.predict(rows("a", "a"), quietly)
    assert first == second
    assert (first.text, first.scores) == ("b", (0.25, 0.75, 0.0))
    assert (made.cost.trainable_parameters, made.cost.rows) == (1, 4)


def test_ties_do_not_depend_on_the_order(make_work: Make, quietly: Any) -> None:
    for answers in (("b", "a", "a", "b"), ("a", "b", "b", "a")):
        made = Majority(config.Majority(), make_work(("a", "b")))
        made.fit(rows(*answers), rows())
        assert made.predict(rows("b"), quietly)[0].text == "a"


def test_reloaded_it_answers_the_same(make_work: Make, quietly: Any, tmp_path: Path) -> None:
    for labels in (("é 中", "b"), ()):
        work = make_work(labels)
        made = Majority(config.Majority(), work)
        made.fit(rows("é 中", "b", "é 中"), rows())
        made.save(tmp_path / "model")
        read = Majority.load(tmp_path / "model", work)
        assert read.predict(rows("b"), quietly) == made.predict(rows("b"), quietly)
