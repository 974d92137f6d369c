"""The approach `recurrent`: what it learns, keeps, refuses and does again."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fitune import config
from fitune.approaches.recurrent import Recurrent, _for_rows, _for_task
from fitune.data.rows import Row, Rows, Turn
from fitune.errors import DataError, Interrupted, RunError

Make = Callable[..., Any]
CELLS = ["rnn", "lstm", "gru"]
SMALL: dict[str, Any] = {"hidden": 16, "epochs": 10, "batch_size": 8, "learning_rate": 0.02}


def rows(*pairs: tuple[str, str]) -> Rows:
    return Rows(tuple(Row(text, answer) for text, answer in pairs))


def made(make_work: Make, train: Rows, *, writes: bool = False, **options: Any) -> Recurrent:
    work = make_work(() if writes else train.labels)
    return Recurrent(config.Recurrent(**{**SMALL, **options}), work)


HARD: dict[str, list[tuple[str, str]]] = {
    "two labels": [("red sun", "yes"), ("blue sea", "no"), ("red", "yes"), ("blue", "no")],
    "unicode": [("été 中文 ñ", "où"), ("зима холод", "да"), ("été", "où"), ("зима", "да")],
    "one letter": [("a", "x"), ("b", "y")],
    "one empty": [("", "x"), ("red sun", "y"), ("blue", "z")],
    "one label": [("red", "x"), ("blue", "x")],
    "one row": [("red", "x")],
}


@pytest.mark.parametrize("name", sorted(HARD))
def test_hard_rows_are_learned_and_reloaded(
    name: str, make_work: Make, quietly: Any, tmp_path: Path
) -> None:
    train = rows(*HARD[name])
    fitted = made(make_work, train, epochs=40, batch_size=2, dropout=0.0, word_dropout=0.05)
    fitted.fit(train, train)
    answers = fitted.predict(train, quietly)
    assert [p.text for p in answers] == train.answers
    for answer in answers:
        assert answer.scores is not None and sum(answer.scores) == pytest.approx(1)
        assert answer.text == train.labels[int(np.argmax(answer.scores))]
    fitted.save(tmp_path / "model")
    read = Recurrent.load(tmp_path / "model", make_work(train.labels))
    unseen = rows(("never seen qqq", "x"), ("", "y"))
    for asked in (train, unseen, rows()):
        assert read.predict(asked, quietly) == fitted.predict(asked, quietly)  # bit for bit
    assert read.cost == fitted.cost
    files = [path for path in (tmp_path / "model").rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".json", ".safetensors"}


def test_a_text_of_5000_words_is_learned_from_as_a_whole(make_work: Make, quietly: Any) -> None:
    train = rows(("far " * 4999 + "end", "x"), ("near", "y"), ("far", "z"))
    fitted = made(make_work, train, epochs=1, hidden=8)
    fitted.fit(train, train[1:])
    assert fitted.options["trained"]["tokens"] == 5002
    cut = rows(("far " * 4999, "x"))
    whole, shorter = fitted.predict(Rows((train[0], cut[0])), quietly)
    assert whole.scores != shorter.scores


@pytest.mark.parametrize(
    ("cell", "tokens"),
    [*((cell, "words") for cell in CELLS), ("gru", "characters"), ("gru", "subwords")],
)
def test_intents_are_told_apart(
    cell: str, tokens: str, make_work: Make, intent_rows: Rows, quietly: Any
) -> None:
    train, validation, test = intent_rows[:70], intent_rows[70:90], intent_rows[90:]
    epochs = 20 if tokens == "characters" else 10
    options = {"cell": cell, "tokens": tokens, "epochs": epochs, "learning_rate": 0.01}
    fitted = made(make_work, intent_rows, **options)
    fitted.fit(train, validation)
    hits = [p.text == a for p, a in zip(fitted.predict(test, quietly), test.answers, strict=True)]
    assert np.mean(hits) > 0.8
    assert fitted.cost.rows == 70
    assert fitted.cost.parameters == fitted.cost.trainable_parameters > 1000


@pytest.mark.parametrize("seen", [["b"], ["a", "c"], ["a", "b", "d"]])
def test_a_label_that_training_lacks_never_wins(
    seen: list[str], make_work: Make, quietly: Any
) -> None:
    labels = ("a", "b", "c", "d")
    train = rows(*((f"word{label} {i}", label) for label in seen for i in range(4)))
    validation = rows(("worda", "a"), ("wordd", "d"), ("other", "elsewhere"))
    fitted = Recurrent(config.Recurrent(**{**SMALL, "epochs": 30.0}), make_work(labels))
    fitted.fit(train, validation)
    answers = fitted.predict(train, quietly)
    assert [p.text for p in answers] == train.answers
    missing = [i for i, label in enumerate(labels) if label not in seen]
    assert all(answer.scores[i] == 0 for answer in answers for i in missing)


def test_an_answer_does_not_depend_on_the_rows_beside_it(
    make_work: Make, intent_rows: Rows, quietly: Any
) -> None:
    fitted = made(make_work, intent_rows)
    fitted.fit(intent_rows[:70], intent_rows[70:90])
    asked = rows(("card", "a"), ("my pin and my card and all my money " * 9, "b"), ("", "c"))
    together = [p.scores for p in fitted.predict(asked, quietly)]
    alone = [fitted.predict(asked[i : i + 1], quietly)[0].scores for i in range(3)]
    np.testing.assert_allclose(together, alone, atol=1e-6)


@pytest.mark.parametrize(
    "changed",
    [
        {"cell": "lstm"},
        {"tokens": "characters"},
        {"tokens": "subwords"},
        {"hidden": 8},
        {"layers": 2},
        {"bidirectional": False},
        {"dropout": 0.1},
        {"word_dropout": 0.4},
        {"epochs": 1},
        {"learning_rate": 1e-3},
        {"batch_size": 4},
        {"seed": 5},
    ],
)
def test_options_have_an_effect(
    changed: dict[str, Any], make_work: Make, intent_rows: Rows, quietly: Any
) -> None:
    def scores(folder: str, **options: Any) -> list[Any]:
        work = make_work(intent_rows.labels, folder=folder)
        fitted = Recurrent(config.Recurrent(**{**SMALL, "epochs": 2.0, **options}), work)
        fitted.fit(intent_rows[:40], intent_rows[40:50])
        return [p.scores for p in fitted.predict(intent_rows[:20], quietly)]

    before = scores("before")
    assert scores("again") == before != scores("after", **changed)


@pytest.mark.parametrize(
    ("labels", "rows", "expected"),
    [
        (("a", "b"), 10, ("words", 0.4, 0.1, 40.0, 8)),
        (("a", "b"), 2_500, ("words", 0.4, 0.1, 28.0, 32)),
        (("a", "b"), 10_000, ("words", 0.4, 0.1, 14.0, 64)),
        ((), 1_000_000, ("subwords", 0.2, 0.0, 3.0, 64)),
    ],
)
def test_what_is_not_given_goes_by_the_task_and_its_rows(
    labels: tuple[str, ...], rows: int, expected: tuple[Any, ...], make_work: Make
) -> None:
    work = make_work(labels, seed=7)
    found = _for_rows(_for_task(config.Recurrent(), work), rows)
    names = ("tokens", "dropout", "word_dropout", "epochs", "batch_size")
    assert tuple(getattr(found, name) for name in names) == expected
    assert found.seed == 7
    given = config.Recurrent(
        tokens="characters", dropout=0.0, word_dropout=0.0, epochs=1.5, batch_size=3, seed=0
    )  # fmt: skip
    assert _for_rows(_for_task(given, work), rows) == given


def test_stopped_and_gone_on_it_is_the_same(
    make_work: Make, intent_rows: Rows, quietly: Any
) -> None:
    train, validation = intent_rows[:60], intent_rows[60:80]
    whole = Recurrent(config.Recurrent(**SMALL), make_work(train.labels, folder="whole"))
    whole.fit(train, validation)
    work = make_work(train.labels, folder="stopped")
    asked = iter([False] * 11 + [True])
    stopping = dataclasses.replace(work, stop_requested=lambda: next(asked))
    with pytest.raises(Interrupted):
        Recurrent(config.Recurrent(**SMALL), stopping).fit(train, validation)
    told: list[str] = []
    resumed = Recurrent(config.Recurrent(**SMALL), dataclasses.replace(work, notice=told.append))
    resumed.fit(train, validation)
    assert told == ["going on from step 12 of 80"]
    test = intent_rows[80:]
    assert resumed.predict(test, quietly) == whole.predict(test, quietly)
    with pytest.raises(RunError, match="other options, data or model"):
        Recurrent(config.Recurrent(**{**SMALL, "hidden": 8}), work).fit(train, validation)


def test_it_stops_early_and_keeps_the_best_weights(make_work: Make, intent_rows: Rows) -> None:
    """Labels of the validation rows that contradict those learned: the first weights are best."""
    train = intent_rows[:60]
    turned = {label: train.labels[i - 1] for i, label in enumerate(train.labels)}
    against = Rows(tuple(Row(row.text, turned[row.answer or ""]) for row in train))
    fitted = made(make_work, train, epochs=40)
    fitted.fit(train, against)
    trained = fitted.options["trained"]
    assert trained["stopped_early"] and trained["steps"] < 40 * 8
    assert trained["best_step"] < trained["steps"]


def test_without_validation_rows_the_last_weights_are_kept(make_work: Make, quietly: Any) -> None:
    train = rows(*HARD["two labels"])
    fitted = made(make_work, train, epochs=40, dropout=0.0)
    fitted.fit(train, rows())
    assert fitted.options["trained"]["best_step"] == fitted.options["trained"]["steps"] == 40
    assert [p.text for p in fitted.predict(train, quietly)] == train.answers


def test_history_is_read_too(make_work: Make, quietly: Any) -> None:
    train = Rows(
        tuple(
            Row("and?", label, (Turn("user", word),))
            for word, label in [("red", "x"), ("blue", "y")] * 3
        )
    )
    fitted = made(make_work, train, epochs=30)
    fitted.fit(train, train)
    assert [p.text for p in fitted.predict(train, quietly)] == train.answers


def test_what_is_refused(make_work: Make) -> None:
    train = rows(("", "x"), ("  ", "y"))
    for writes in (False, True):
        with pytest.raises(DataError, match="no text in any of the 2 training rows"):
            made(make_work, train, writes=writes).fit(train, train)


def reversals(count: int, longest: int) -> Rows:
    """Words of few letters, each with itself read from the end."""
    draw = random.Random(0)
    words = {
        "".join(draw.choices("abcdefgh", k=draw.randint(1, longest))) for _ in range(2 * count)
    }
    return rows(*((word, word[::-1]) for word in sorted(words, key=hash_of)[:count]))


def hash_of(word: str) -> str:
    return Row(word).key


def test_it_learns_to_write_words_backwards(make_work: Make, quietly: Any, tmp_path: Path) -> None:
    every = reversals(2200, 5)
    train, validation, test = every[:1900], every[1900:2000], every[2000:]
    fitted = made(
        make_work, train, writes=True, tokens="characters", hidden=32, epochs=8, batch_size=32,
        dropout=0.0, learning_rate=0.01,
    )  # fmt: skip
    fitted.fit(train, validation)
    answers = fitted.predict(test, quietly)
    assert np.mean([p.text == row.answer for p, row in zip(answers, test, strict=True)]) > 0.9
    assert all(p.stopped for p in answers)
    fitted.save(tmp_path / "model")
    read = Recurrent.load(tmp_path / "model", make_work())
    assert read.predict(test, quietly) == answers
    assert read.cost == fitted.cost


@pytest.mark.parametrize("tokens", ["words", "characters", "subwords"])
def test_hard_answers(tokens: str, make_work: Make, quietly: Any) -> None:
    train = rows(("one", "Ein Tag."), ("two", ""), ("", "où"), ("three three", "日本"))
    fitted = made(
        make_work, train, writes=True, tokens=tokens, epochs=40, dropout=0.0, batch_size=1,
        learning_rate=0.01,
    )  # fmt: skip
    fitted.fit(train, train)
    spaced = {"Ein Tag.": "Ein Tag ."} if tokens == "words" else {}
    answers = fitted.predict(train, quietly)
    assert [p.text for p in answers] == [spaced.get(a, a) for a in train.answers]
    assert all(p.stopped for p in answers)
    assert len(fitted.predict(rows(("never seen", "")), quietly)) == 1


def test_an_answer_ends_at_the_limit(make_work: Make, quietly: Any) -> None:
    train = rows(("one", "a b c d e f g h"), ("two", "h g f e d c b a"))
    work = make_work(max_answer_tokens=3)
    options = {**SMALL, "tokens": "words", "epochs": 40.0, "batch_size": 1, "dropout": 0.0}
    fitted = Recurrent(config.Recurrent(**options), work)
    fitted.fit(train, train)
    answers = fitted.predict(train, quietly)
    assert [(p.text, p.stopped) for p in answers] == [("a b c", False), ("h g f", False)]
