"""A row's identity: what the model is given, told apart from what it should answer."""

import hashlib
import json

from fitune.data.rows import Row, Rows, Splits, Turn


def test_key_is_the_hash_of_what_the_model_is_given():
    row = Row("hé", "a", (Turn("system", "s"),))
    given = json.dumps([["system", "s"], ["user", "hé"]], ensure_ascii=False)
    assert row.key == hashlib.sha256(given.encode()).hexdigest()[:32]


def test_answer_and_source_do_not_change_the_key_and_history_does():
    row = Row("q", "a", source="x:1")
    assert row.key == Row("q", "b", source="y:2").key
    assert row.key != Row("q", "a", (Turn("system", "s"),)).key


def test_content_hash_sees_the_answer_and_not_the_source():
    assert Row("q", "a").content_hash != Row("q", "b").content_hash
    assert Row("q", None).content_hash != Row("q", "").content_hash
    assert Row("q", "a", source="x").content_hash == Row("q", "a", source="y").content_hash


def test_parts_cannot_be_shifted_into_one_another():
    assert Row("b", history=(Turn("user", "a"),)).key != Row("ab").key


def test_rows_are_a_sequence():
    rows = Rows((Row("x", "b"), Row("y", "a"), Row("z")))
    assert len(rows) == 3 and rows[0].text == "x" and rows[1:].texts == ["y", "z"]
    assert rows.labels == ("a", "b") and rows.answers == ["b", "a", ""]
    assert rows[0].turns == (Turn("user", "x"),)
    assert rows.content_hash != rows[::-1].content_hash


def test_moving_a_row_between_splits_changes_their_hash():
    a, b = Rows((Row("a"),)), Rows((Row("b"),))
    assert Splits(a, b, b).content_hash != Splits(b, a, b).content_hash
