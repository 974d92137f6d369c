"""Each rule of the diagnosis, on rows made for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fitune.approaches.base import Prediction, Shown
from fitune.data.rows import Row, Rows, Splits
from fitune.ladder.diagnose import CAUSES, Diagnosis, diagnose
from fitune.ladder.document_search import DocumentSearch
from fitune.ladder.wrong import held
from fitune.ladder.wrong_labels import _sure

NOTHING = Rows((Row("unrelated", "nothing else"),))


def splits(*test: Row, train: Rows = NOTHING) -> Splits:
    return Splits(train, NOTHING, Rows(test))


def cause_of(
    question: str, reference: str, answer: str, *documents: str, **more: Any
) -> tuple[str, str]:
    """Cause and reason of one wrong free answer."""
    others = {f"other {i}": [Prediction(said)] for i, said in enumerate(more.pop("others", ()))}
    train = more.pop("train", NOTHING)
    passages = tuple(Shown("p", text, 1.0) for text in more.pop("shown", ())) or None
    said = {"asked": [Prediction(answer, passages=passages, **more)], **others}
    found = diagnose("generate", (), splits(Row(question, reference), train=train), said, documents)
    assert found[0].errors == 1, "not counted as an error"
    (cause,) = found[0].causes
    assert cause.reasons[0][1] == 1 and cause.examples[0].answer == answer
    return cause.name, cause.reasons[0][0]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("Well, it is Paris of course", "the reference stands in a longer answer"),
        ("Par is", "the right words are written otherwise"),
    ],
)
def test_who_knows_but_says_it_otherwise_behaves_wrongly(answer: str, reason: str) -> None:
    assert cause_of("Capital of France?", "Paris", answer) == ("behaviour", reason)


def test_most_words_right_is_behaviour() -> None:
    name, reason = cause_of("Who wrote it?", "George Orwell Blair", "Orwell Blair George H")
    assert (name, reason) == ("behaviour", "most words are right, in another form")


def test_what_is_shown_or_asked_is_no_lack_of_information() -> None:
    assert cause_of("Paris or Rome?", "Paris", "Rome")[0] == "capacity"
    assert cause_of("Capital?", "Paris", "Rome", shown=["It is Paris."])[0] == "capacity"
    assert cause_of("Capital?", "Paris", "Rome", shown=["It is big."])[0] == "information"


def test_whether_a_search_would_have_had_it() -> None:
    words = ["Nothing to see", "Zork is ruled from Blip"]
    assert cause_of("Capital of Zork?", "Blip", "Rome", *words)[1].startswith("a search by words")
    words = ["Nothing to see", "They rule from Blip"]
    assert "does not find it" in cause_of("Capital of Zork?", "Blip", "Rome", *words)[1]
    assert "nor the documents" in cause_of("Capital of Zork?", "Blip", "Rome", "Nothing")[1]
    assert cause_of("Capital of Zork?", "Blip", "Rome")[1] == "the question does not have it"


def test_what_another_rung_knows_without_help_can_be_known() -> None:
    assert cause_of("Capital of Zork?", "Blip", "Rome", others=["Blip"])[0] == "capacity"


def test_what_may_follow_from_the_question_is_no_lack_of_information() -> None:
    assert cause_of("2 apples and 3 pears?", "5", "6")[0] == "capacity"
    assert cause_of("How many?", "5", "6")[0] == "information"
    known = Rows((Row("a good film", "positive"),))
    assert cause_of("a fine film", "positive", "negative", train=known)[0] == "capacity"
    long = "one two three four five six seven eight nine ten eleven twelve"
    assert cause_of("Tell me of it", long, "no such words")[0] == "capacity"


@pytest.mark.parametrize(
    ("answer", "more", "reason"),
    [
        ("", {}, "an empty answer"),
        ("I'm sorry, I cannot help.", {}, "a refusal"),
        ("Rome", {"stopped": False}, "the answer did not end by itself"),
        ("Rome and then much more", {}, "more than twice as long as any reference"),
    ],
)
def test_forms_of_wrong_behaviour(answer: str, more: Any, reason: str) -> None:
    assert cause_of("Paris or Rome?", "Paris", answer, **more) == ("behaviour", reason)


def test_a_refusal_for_want_of_information_is_of_information() -> None:
    assert cause_of("Capital of Zork?", "Blip", "I don't know")[0] == "information"


def test_one_question_with_two_answers_is_of_the_data() -> None:
    train = Rows((Row("Capital of France", "Lyon"),))
    assert cause_of("capital of france?", "Paris", "Lyon", train=train)[0] == "data"
    assert cause_of("capital of france?", "Paris", "Rome", train=train)[0] != "data"


def test_long_answers_are_wrong_only_where_most_is_missing() -> None:
    long = "it returns the number of rows in the table that were read before"
    rows = splits(Row("q", long), Row("r", long))
    said = [Prediction(long.replace("number", "count")), Prediction("something else entirely")]
    (found,) = diagnose("generate", (), rows, {"a": said})
    assert [e.row for c in found.causes for e in c.examples] == [1]


def labelled(
    count: int, said: dict[str, list[str]], truth: list[str], sure: float | None = None
) -> tuple[Diagnosis, ...]:
    labels = sorted(set(truth))
    answers = {}
    for name, texts in said.items():
        rest = 0.0 if sure is None else (1 - sure) / (len(labels) - 1)
        answers[name] = [
            Prediction(
                text,
                None if sure is None else tuple(sure if x == text else rest for x in labels),
            )
            for text in texts
        ]
    rows = splits(*(Row(f"text {i}", label) for i, label in enumerate(truth)))
    return diagnose("classify", labels, rows, answers)


def test_rungs_that_agree_on_another_label_doubt_the_rows() -> None:
    truth = ["a", "b", "c"] * 20
    right = list(truth)
    truth[0], truth[1] = "b", "c"  # two labels are wrong, and all rungs see it
    one, two, alone = right[:], right[:], right[:]
    alone[10] = "c" if truth[10] != "c" else "a"
    first, _, third = labelled(60, {"x": one, "y": two, "z": alone}, truth, sure=0.9)
    assert [(c.name, c.count) for c in first.causes] == [("data", 2)]
    assert [(c.name, c.count) for c in third.causes] == [("data", 2), ("capacity", 1)]
    assert third.causes[1].also_right == ("x", 1)
    single, *_ = labelled(60, {"x": one}, truth, sure=0.9)
    assert [c.name for c in single.causes] == ["capacity"], "one rung's word is not enough"
    bare, *_ = labelled(60, {"x": one, "y": two}, truth)
    assert [c.name for c in bare.causes] == ["capacity"], "nor are answers without probabilities"


def test_a_rung_that_knows_nothing_has_no_vote() -> None:
    truth = ["a"] * 40 + ["b"] * 20
    always = {"x": ["a"] * 60, "y": ["a"] * 60}
    for found in labelled(60, always, truth, sure=0.99):
        assert [c.name for c in found.causes] == ["capacity"]


def test_two_labels_taken_for_one_another() -> None:
    truth = ["a", "b", "c", "d"] * 20
    said = list(truth)
    for i in range(0, 48, 8):
        said[i], said[i + 1] = "b", "a"
    said[2] = "d"
    (found,) = labelled(80, {"x": said}, truth)
    assert [(c.name, c.count) for c in found.causes] == [("behaviour", 12), ("capacity", 1)]
    assert found.causes[0].reasons[0][0] == "'a' and 'b' are taken for one another"
    one_way = [("b" if t == "a" and i < 48 else t) for i, t in enumerate(truth)]
    (found,) = labelled(80, {"x": one_way}, truth)
    assert [c.name for c in found.causes] == ["capacity"]


def test_two_labels_only_are_never_a_pair_among_others() -> None:
    truth = ["a", "b"] * 30
    said = [("b" if t == "a" else "a") if i < 20 else t for i, t in enumerate(truth)]
    (found,) = labelled(60, {"x": said}, truth)
    assert [c.name for c in found.causes] == ["capacity"]


def test_confident_labels_equal_the_definition() -> None:
    """Northcutt et al., eq. 1 and 2, by loops."""
    rng = np.random.default_rng(0)
    labels, rows = ["a", "b", "c"], 50
    scores = rng.dirichlet([1, 1, 1], rows)
    truth = [labels[i] for i in rng.integers(3, size=rows)]
    said = [Prediction("a", tuple(row)) for row in scores]
    thresholds = [
        np.mean([scores[i][j] for i in range(rows) if truth[i] == labels[j]]) for j in range(3)
    ]
    expected = []
    for row in scores:
        above = [j for j in range(3) if row[j] >= thresholds[j]]
        expected.append(labels[max(above, key=lambda j: row[j])] if above else None)
    assert _sure(labels, truth, said) == expected
    assert None in expected


def test_shares_sum_to_one_and_survive_json() -> None:
    truth = ["a", "b", "c"] * 20
    said = ["a"] * 60
    said[5] = "no label"
    (found,) = labelled(60, {"x": said}, truth)
    assert sum(cause.share for cause in found.causes) == pytest.approx(1)
    assert sum(cause.count for cause in found.causes) == found.errors == 40
    assert {cause.name for cause in found.causes} <= set(CAUSES)
    import json

    assert Diagnosis.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_documents_of_language_models_are_not_diagnosed() -> None:
    assert diagnose("language-model", (), splits(Row("a")), {"x": [Prediction("1")]}) == ()


def test_a_search_without_passages_finds_nothing() -> None:
    empty = DocumentSearch(["  "])
    assert not empty and empty.best("a") == empty.best_sentence("a") == [] and not empty.holds("a")
    found = DocumentSearch(["One fact of x. Another fact of y.", "Nothing."])
    assert found.best_sentence("y") == ["Another fact of y."]
    assert not held("", ["anything"]) and held("the", ["the end"])
