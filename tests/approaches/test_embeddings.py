"""Vectors of a frozen encoder and logistic regression, against scikit-learn's on the same."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fitune import config
from fitune.approaches.embeddings import STRENGTHS, Embeddings
from fitune.data.rows import Row, Rows
from fitune.errors import ConfigError, DataError, ModelError
from fitune.retrieval.encoder import Encoder

Make = Callable[..., Any]


def rows(*pairs: tuple[str, str]) -> Rows:
    return Rows(tuple(Row(text, label) for text, label in pairs))


@pytest.fixture
def make(make_work: Make, tiny_encoder: Path) -> Callable[..., Embeddings]:
    def made(labels: tuple[str, ...], *, work: dict[str, Any] | None = None, **options: Any) -> Any:
        given = config.Embeddings(model=str(tiny_encoder), **options)
        return Embeddings(given, make_work(labels, **(work or {})))

    return made


def test_answers_are_scikit_learns(
    make: Any, intent_rows: Rows, quietly: Any, tiny_encoder: Path
) -> None:
    from sklearn.linear_model import LogisticRegression

    train, test = intent_rows[:90], intent_rows[90:]
    encoder = Encoder(str(tiny_encoder))
    reference = LogisticRegression(C=50.0, max_iter=1000).fit(
        encoder.queries(train.texts), train.answers
    )
    fitted = make(train.labels, regularization=50.0)
    fitted.fit(train, rows())
    found = fitted.predict(test, quietly)
    expected = reference.predict_proba(encoder.queries(test.texts))
    np.testing.assert_allclose([p.scores for p in found], expected, atol=5e-3)
    assert [p.text for p in found] == [train.labels[i] for i in expected.argmax(axis=1)]
    assert fitted.cost.trainable_parameters == 3 * (encoder.dimension + 1)
    assert fitted.cost.parameters == encoder.parameters + 3 * (encoder.dimension + 1)
    assert fitted.cost.rows == 90


def test_the_strength_is_chosen_on_the_validation_rows(make: Any, intent_rows: Rows) -> None:
    train, validation = intent_rows[:60], intent_rows[60:]

    def score(strength: float) -> float:
        one = make(train.labels, regularization=strength)
        one.fit(train, validation)
        return one.work.score(one.predict(validation, lambda *told: None), validation)

    scores = {strength: score(strength) for strength in STRENGTHS}
    assert len(set(scores.values())) > 1  # else nothing could be chosen wrongly
    chosen = make(train.labels)
    chosen.fit(train, validation)
    best = max(scores.values())
    assert chosen.options["regularization"] == min(s for s in STRENGTHS if scores[s] == best)
    assert score(chosen.options["regularization"]) == best


def test_a_saved_one_answers_as_before(
    make: Any, make_work: Make, intent_rows: Rows, quietly: Any, tmp_path: Path
) -> None:
    train, test = intent_rows[:60], intent_rows[60:90]
    fitted = make(train.labels)
    fitted.fit(train, test)
    answers = fitted.predict(test, quietly)
    fitted.save(tmp_path / "model")
    read = Embeddings.load(tmp_path / "model", make_work(train.labels))
    assert read.predict(test, quietly) == answers  # bit for bit
    assert (read.cost, read.options) == (fitted.cost, fitted.options)
    assert read.predict(rows(), quietly) == []
    files = [path for path in (tmp_path / "model").rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".json", ".safetensors"}


def test_a_label_that_training_lacks_never_wins(make: Any, quietly: Any) -> None:
    fitted = make(("a", "b", "c"))
    train = rows(("my card", "a"), ("my pin", "c"), ("card", "a"), ("pin", "c"))
    fitted.fit(train, rows(("my card", "b"), ("my pin", "c")))
    answers = fitted.predict(train, quietly)
    assert [p.text for p in answers] == train.answers
    assert all(p.scores[1] == 0 for p in answers)
    one = make(("a", "b"))
    one.fit(rows(("my card", "b"), ("", "b")), rows(("my pin", "b")))
    assert [p.scores for p in one.predict(rows(("qqq", "a"), ("", "a")), quietly)] == [(0, 1)] * 2


@pytest.mark.parametrize("too_long", ["refuse", "truncate", "drop"])
def test_long_rows_are_as_the_task_says(make: Any, quietly: Any, too_long: str) -> None:
    """The tiny encoder reads 64 tokens, two of them its own."""
    train = rows(("my card", "a"), ("my pin " * 40, "b"), ("my pin", "b"))
    notices: list[str] = []
    data = {"train": "unused.csv", "too_long": too_long}
    fitted = make(("a", "b"), work={"notices": notices, "data": data})
    if too_long == "refuse":
        with pytest.raises(DataError, match="1 of 3 training rows are longer than 64 tokens"):
            fitted.fit(train, train[:1])
        return
    fitted.fit(train, train[:1])
    kept, said = (3, "18 tokens of their ends were cut") if too_long == "truncate" else (
        2, "they were left out"
    )  # fmt: skip
    assert fitted.cost.rows == kept and len(notices) == 1 and said in notices[0]
    assert len(fitted.predict(train, quietly)) == 3
    assert "1 of 3 answered rows" in notices[1] and "tokens of their ends were cut" in notices[1]


def test_progress_is_told(make: Any, intent_rows: Rows) -> None:
    told: list[str] = []
    fitted = make(intent_rows.labels)
    fitted.work = dataclasses.replace(fitted.work, progress=lambda label, *of: told.append(label))
    fitted.fit(intent_rows[:40], intent_rows[40:50])
    assert {"vectors of training rows", "logistic regression"} <= {*told}


def test_what_does_not_fit(make_work: Make, tiny_encoder: Path, tiny_decoder: Path) -> None:
    with pytest.raises(ConfigError, match="'embeddings' chooses among labels"):
        Embeddings(config.Embeddings(model=str(tiny_encoder)), make_work())
    with pytest.raises(ModelError, match="does not say how its token vectors become one"):
        Embeddings(config.Embeddings(model=str(tiny_decoder)), make_work(("a", "b")))
