"""What `ngram` and `hmm` have in common: one language model a label, and Bayes' rule."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fitune import config
from fitune.approaches.generative import Generative
from fitune.approaches.hmm import Hmm
from fitune.approaches.ngram import NGram
from fitune.data.rows import Row, Rows, Turn
from fitune.errors import ConfigError, DataError

Make = Callable[..., Any]
BOTH: list[tuple[type[Generative[Any]], Any]] = [(NGram, config.NGram()), (Hmm, config.Hmm())]
both = pytest.mark.parametrize(("kind", "options"), BOTH, ids=["ngram", "hmm"])


def rows(pairs: list[tuple[str, str]]) -> Rows:
    return Rows(tuple(Row(text, label) for text, label in pairs))


HARD: dict[str, list[tuple[str, str]]] = {
    "two labels": [("red sun", "yes"), ("blue sea", "no"), ("red", "yes"), ("blue", "no")],
    "unicode": [("été 中文 ñ", "où"), ("зима холод", "да"), ("été", "où"), ("зима", "да")],
    "one letter": [("a", "x"), ("b", "y")],
    "punctuation": [("?!", "x"), ("...", "y"), ("?", "x")],
    "one empty": [("", "x"), ("red sun", "y"), ("blue", "z")],
    "one label": [("red", "x"), ("blue", "x")],
}


@both
@pytest.mark.parametrize("name", sorted(HARD))
def test_hard_rows_are_learned_and_reloaded(
    kind: Any, options: Any, name: str, make_work: Make, quietly: Any, tmp_path: Path
) -> None:
    train = rows(HARD[name])
    made = kind(options, make_work(train.labels))
    made.fit(train, train)
    answers = made.predict(train, quietly)
    assert [p.text for p in answers] == train.answers
    for answer in answers:
        assert sum(answer.scores) == pytest.approx(1)
        assert answer.text == train.labels[int(np.argmax(answer.scores))]
    made.save(tmp_path / "model")
    read = kind.load(tmp_path / "model", make_work(train.labels))
    unseen = rows([("never seen qqq", "x"), ("", "y")])
    for asked in (train, unseen):
        assert read.predict(asked, quietly) == made.predict(asked, quietly)  # bit for bit
    assert (read.options, read.cost) == (made.options, made.cost)
    files = [path for path in (tmp_path / "model").rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".json", ".safetensors"}


@both
def test_intents_are_told_apart(
    kind: Any, options: Any, make_work: Make, intent_rows: Rows, quietly: Any
) -> None:
    train, validation, test = intent_rows[:70], intent_rows[70:90], intent_rows[90:]
    made = kind(options, make_work(intent_rows.labels))
    made.fit(train, validation)
    answers = made.predict(test, quietly)
    hits = [p.text == answer for p, answer in zip(answers, test.answers, strict=True)]
    assert np.mean(hits) > 0.8
    assert made.cost.rows == 70
    assert made.cost.parameters == made.cost.trainable_parameters > 100


@both
@pytest.mark.parametrize("seen", [["b"], ["a", "c"], ["a", "b", "d"]])
def test_a_label_that_training_lacks_never_wins(
    kind: Any, options: Any, seen: list[str], make_work: Make, quietly: Any, tmp_path: Path
) -> None:
    labels = ("a", "b", "c", "d")
    train = rows([(f"word{label} {i}", label) for label in seen for i in range(4)])
    validation = rows([("worda", "a"), ("wordd", "d"), ("other", "elsewhere")])
    made = kind(options, make_work(labels))
    made.fit(train, validation)
    answers = made.predict(train, quietly)
    assert [p.text for p in answers] == train.answers
    missing = [i for i, label in enumerate(labels) if label not in seen]
    assert all(answer.scores[i] == 0 for answer in answers for i in missing)
    made.save(tmp_path)
    assert kind.load(tmp_path, make_work(labels)).predict(train, quietly) == answers


@both
def test_without_validation_rows(kind: Any, options: Any, make_work: Make, quietly: Any) -> None:
    train = rows(HARD["two labels"])
    made = kind(options, make_work(train.labels))
    made.fit(train, rows([]))
    weights = made.options["weights"].values()
    assert list(weights) == pytest.approx([1 / len(weights)] * len(weights))
    assert [p.text for p in made.predict(train, quietly)] == train.answers
    assert made.predict(rows([]), quietly) == []


@both
def test_history_is_read_too(kind: Any, options: Any, make_work: Make, quietly: Any) -> None:
    train = Rows(
        tuple(
            Row("and?", label, (Turn("user", word),))
            for word, label in [("red", "x"), ("blue", "y")] * 3
        )
    )
    made = kind(options, make_work(train.labels))
    made.fit(train, train)
    assert [p.text for p in made.predict(train, quietly)] == train.answers


@both
def test_what_is_refused(kind: Any, options: Any, make_work: Make) -> None:
    with pytest.raises(ConfigError, match=f"'{kind.use}' chooses among labels"):
        kind(options, make_work())
    train = rows([("", "x"), ("  ", "y")])
    with pytest.raises(DataError, match="no text in any of the 2 training rows"):
        kind(options, make_work(train.labels)).fit(train, train)
