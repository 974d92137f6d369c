"""Voting of the nearest rows, against scikit-learn's and by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fitune import config
from fitune.approaches.knn import NEIGHBOURS, Knn
from fitune.data.rows import Row, Rows
from fitune.errors import ConfigError, DataError
from fitune.retrieval.encoder import Encoder

Make = Callable[..., Any]


def rows(*pairs: tuple[str, str]) -> Rows:
    return Rows(tuple(Row(text, label) for text, label in pairs))


def fitted(make_work: Make, train: Rows, validation: Rows | None = None, **options: Any) -> Knn:
    made = Knn(config.Knn(**{"retriever": "bm25", **options}), make_work(train.labels))
    made.fit(train, validation or train)
    return made


def test_votes_are_scikit_learns(
    make_work: Make, intent_rows: Rows, quietly: Any, tiny_encoder: Path
) -> None:
    from sklearn.neighbors import KNeighborsClassifier

    train, test = intent_rows[:90], intent_rows[90:]
    encoder = Encoder(str(tiny_encoder))
    reference = KNeighborsClassifier(
        n_neighbors=5, metric="cosine", weights=lambda distances: 1 - distances
    )
    reference.fit(encoder.queries(train.texts), train.answers)
    expected = reference.predict_proba(encoder.queries(test.texts))
    knn = fitted(make_work, train, retriever="dense", model=str(tiny_encoder), neighbours=5)
    np.testing.assert_allclose([p.scores for p in knn.predict(test, quietly)], expected, atol=1e-3)


@pytest.mark.parametrize("retriever", ["bm25", "dense", "hybrid"])
def test_a_saved_one_answers_as_before(
    retriever: str, make_work: Make, intent_rows: Rows, quietly: Any, tiny_encoder: Path,
    tmp_path: Path,
) -> None:  # fmt: skip
    train, test = intent_rows[:60], intent_rows[60:90]
    model = {} if retriever == "bm25" else {"model": str(tiny_encoder)}
    made = fitted(make_work, train, test, retriever=retriever, **model)
    answers = made.predict(test, quietly)
    made.save(tmp_path / "model")
    read = Knn.load(tmp_path / "model", make_work(train.labels))
    assert read.predict(test, quietly) == answers
    assert read.cost == made.cost
    assert made.cost.rows == 60 and (made.cost.parameters > 0) == (retriever != "bm25")
    assert made.options["neighbours"] in NEIGHBOURS and made.options["retriever"] == retriever
    for answer in answers:
        assert sum(answer.scores or ()) == pytest.approx(1)
        assert answer.text == train.labels[int(np.argmax(answer.scores))]


@pytest.mark.parametrize("retriever", ["dense", "hybrid"])
@pytest.mark.parametrize("too_long", ["refuse", "truncate", "drop"])
def test_long_rows_are_as_the_task_says(
    retriever: str, too_long: str, make_work: Make, quietly: Any, tiny_encoder: Path
) -> None:
    """The tiny encoder reads 64 tokens, two of them its own."""
    train = rows(("my card", "a"), ("my pin " * 40, "b"), ("my pin", "b"))
    notices: list[str] = []
    options = config.Knn(retriever=retriever, model=str(tiny_encoder), neighbours=1)
    data = {"train": "unused.csv", "too_long": too_long}
    made = Knn(options, make_work(train.labels, notices=notices, data=data))
    if too_long == "refuse":
        with pytest.raises(DataError, match="1 of 3 training rows are longer than 64 tokens"):
            made.fit(train, train[:1])
        return
    made.fit(train, train[:1])
    kept, said = (3, "18 tokens of their ends were cut") if too_long == "truncate" else (
        2, "they were left out"
    )  # fmt: skip
    assert made.cost.rows == kept and len(notices) == 1 and said in notices[0]
    assert [answer.text for answer in made.predict(train, quietly)] == ["a", "b", "b"]
    assert "1 of 3 answered rows" in notices[1] and "tokens of their ends were cut" in notices[1]


def test_words_are_compared_in_rows_of_any_length(make_work: Make, quietly: Any) -> None:
    train = rows(("my card " * 4000, "a"), ("my pin", "b"))
    assert fitted(make_work, train).predict(train, quietly)[0].text == "a"


def test_how_many_vote_is_chosen_on_the_validation_rows(make_work: Make) -> None:
    # Of five rows alike, the first two are mislabelled: five neighbours outvote them.
    answers = ("help", "help", "lost", "lost", "lost")
    noisy = rows(*(("card lost", answer) for answer in answers), ("pin", "pin"))
    asked = rows(("card lost", "lost"), ("pin", "pin"))
    assert fitted(make_work, noisy, asked).k == 5
    clean = rows(("card lost", "lost"), ("pin new", "pin"), ("fee", "fee"))
    assert fitted(make_work, clean, clean).k == 1  # the fewest of equals
    assert fitted(make_work, noisy, asked, neighbours=1).k == 1


def test_where_nothing_is_similar_the_most_frequent_label_wins(
    make_work: Make, quietly: Any
) -> None:
    train = rows(("card", "b"), ("pin", "a"), ("fee", "b"))
    [answer] = fitted(make_work, train).predict(rows(("xyzzy", "a")), quietly)
    assert answer.text == "b"
    assert answer.scores == pytest.approx((1 / 3, 2 / 3))


def test_what_does_not_fit(make_work: Make) -> None:
    with pytest.raises(ConfigError, match="'knn' chooses among labels"):
        Knn(config.Knn(), make_work())
    with pytest.raises(ConfigError, match=r"knn has a model .* compares words"):
        Knn(config.Knn(retriever="bm25", model="minilm-l6"), make_work(("a", "b")))
    with pytest.raises(DataError, match="passage 1 of 2 is blank"):
        fitted(make_work, rows(("card", "a"), ("", "b")))
