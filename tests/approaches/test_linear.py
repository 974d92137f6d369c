"""TF-IDF and logistic regression, against scikit-learn's own pipeline."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fitune import config
from fitune.approaches.linear import Linear
from fitune.data.rows import Row, Rows
from fitune.errors import ConfigError, DataError

Make = Callable[..., Any]


def rows(pairs: list[tuple[str, str]]) -> Rows:
    return Rows(tuple(Row(text, label) for text, label in pairs))


def fitted(make_work: Make, train: Rows, labels: tuple[str, ...] | None = None) -> Linear:
    made = Linear(config.Linear(), make_work(labels or train.labels))
    made.fit(train, train)
    return made


def test_probabilities_are_scikit_learns(make_work: Make, intent_rows: Rows, quietly: Any) -> None:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline, make_union

    train, test = intent_rows[:90], intent_rows[90:]
    pipeline = make_pipeline(
        make_union(
            TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
            TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True, min_df=2),
        ),
        LogisticRegression(C=10.0, max_iter=300, tol=1e-3),
    )
    pipeline.fit(train.texts, train.answers)
    found = fitted(make_work, train).predict(test, quietly)
    expected = pipeline.predict_proba(test.texts)
    np.testing.assert_allclose([p.scores for p in found], expected, atol=1e-5)
    assert [p.text for p in found] == list(pipeline.predict(test.texts))
    hits = [p.text == answer for p, answer in zip(found, test.answers, strict=True)]
    assert np.mean(hits) > 0.8  # some rows hold another label's word as well


HARD: dict[str, list[tuple[str, str]]] = {
    "two labels": [("red sun", "yes"), ("blue sea", "no"), ("red", "yes"), ("blue", "no")],
    "unicode": [("été 中文 ñ", "où"), ("зима холод", "да"), ("été", "où"), ("зима", "да")],
    "one letter": [("a", "x"), ("b", "y")],
    "all different": [("qwx", "x"), ("zzz", "y"), ("jkl", "z")],
    "punctuation": [("?!", "x"), ("...", "y"), ("?", "x")],
    "emoji": [("🙂", "x"), ("🙁", "y")],
    "one empty": [("", "x"), ("red sun", "y"), ("blue", "x")],
}


@pytest.mark.parametrize("name", sorted(HARD))
def test_hard_rows_are_learned_and_reloaded(
    name: str, make_work: Make, quietly: Any, tmp_path: Path
) -> None:
    train = rows(HARD[name])
    made = fitted(make_work, train)
    answers = made.predict(train, quietly)
    assert [p.text for p in answers] == train.answers
    for answer in answers:
        assert answer.scores is not None
        assert sum(answer.scores) == pytest.approx(1, abs=1e-5)
        assert answer.text == train.labels[int(np.argmax(answer.scores))]
    made.save(tmp_path / "model")
    read = Linear.load(tmp_path / "model", make_work(train.labels))
    assert read.predict(train, quietly) == answers  # bit for bit
    unseen = rows([("never seen qqq", "x"), ("", "y")])
    assert read.predict(unseen, quietly) == made.predict(unseen, quietly)
    assert {p.suffix for p in (tmp_path / "model").iterdir()} == {".json", ".safetensors"}


def test_the_intents_reload_bit_for_bit(
    make_work: Make, intent_rows: Rows, quietly: Any, tmp_path: Path
) -> None:
    made = fitted(make_work, intent_rows)
    made.save(tmp_path / "model")
    read = Linear.load(tmp_path / "model", make_work(intent_rows.labels))
    assert read.predict(intent_rows, quietly) == made.predict(intent_rows, quietly)


@pytest.mark.parametrize("seen", [["b"], ["a", "c"], ["a", "b", "d"]])
def test_a_label_that_training_lacks_never_wins(
    seen: list[str], make_work: Make, quietly: Any
) -> None:
    labels = ("a", "b", "c", "d")
    train = rows([(f"word{label} {i}", label) for label in seen for i in range(4)])
    answers = fitted(make_work, train, labels).predict(train, quietly)
    assert [p.text for p in answers] == train.answers
    for answer in answers:
        assert answer.scores is not None
        missing = [s for label, s in zip(labels, answer.scores, strict=True) if label not in seen]
        assert missing == [0.0] * len(missing)


def test_rows_without_any_letters(make_work: Make) -> None:
    train = rows([("", "x"), ("  ", "y")])
    with pytest.raises(DataError, match="no text"):
        fitted(make_work, train)


def test_history_is_read_too(make_work: Make, quietly: Any) -> None:
    from fitune.data.rows import Turn

    train = Rows(
        tuple(
            Row("and?", label, (Turn("user", word),))
            for word, label in [("red", "x"), ("blue", "y")] * 3
        )
    )
    answers = fitted(make_work, train).predict(train, quietly)
    assert [p.text for p in answers] == train.answers


def test_regularization_has_an_effect(make_work: Make, intent_rows: Rows, quietly: Any) -> None:
    def surest(c: float) -> float:
        made = Linear(config.Linear(regularization=c), make_work(intent_rows.labels))
        made.fit(intent_rows, intent_rows)
        assert made.options["regularization"] == c
        return max(max(p.scores or ()) for p in made.predict(intent_rows, quietly))

    assert surest(0.01) < 0.6 < surest(100.0)


def test_it_refuses_to_generate(make_work: Make) -> None:
    with pytest.raises(ConfigError, match="'linear' chooses among labels"):
        Linear(config.Linear(), make_work())


def test_its_cost(make_work: Make, intent_rows: Rows) -> None:
    made = fitted(make_work, intent_rows)
    features = made.head.weights.shape[1]
    assert made.cost.parameters == made.cost.trainable_parameters == 3 * features + 3
    assert made.cost.rows == 120
