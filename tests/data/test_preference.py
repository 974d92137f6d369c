"""Every shape people keep pairs of answers in, and what is no pair."""

from __future__ import annotations

from typing import Any

import pytest

from fitune.data.rows import Row, Turn
from fitune.data.shapes import to_rows
from fitune.data.table import Record, Table
from fitune.errors import DataError

USER = {"role": "user", "content": "q"}
GOOD = {"role": "assistant", "content": "good"}
BAD = {"role": "assistant", "content": "bad"}
SYSTEM = {"role": "system", "content": "s"}
PAIR = Row("q", "good", rejected="bad")


def read(value: dict[str, Any], **options: Any) -> tuple[Row, str]:
    rows, notes = to_rows(Table((Record(value, "f:1"),)), kind="generate", **options)
    return rows[0], notes[0]


@pytest.mark.parametrize(
    ("value", "row"),
    [
        ({"prompt": "q", "chosen": "good", "rejected": "bad"}, PAIR),
        ({"question": "q", "chosen": "good", "rejected": "bad"}, PAIR),
        ({"prompt": "q", "chosen": [GOOD], "rejected": [BAD]}, PAIR),
        ({"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]}, PAIR),
        ({"prompt": [USER], "chosen": "good", "rejected": "bad"}, PAIR),
        ({"chosen": [USER, GOOD], "rejected": [USER, BAD]}, PAIR),
        # Whole conversations with the prompt beside them, as in UltraFeedback.
        (
            {"prompt": "q", "chosen": [USER, GOOD], "rejected": [USER, BAD], "messages": [USER]},
            PAIR,
        ),
        (
            {"prompt": [SYSTEM, USER], "chosen": [GOOD], "rejected": [BAD]},
            Row("q", "good", (Turn("system", "s"),), rejected="bad"),
        ),
        (
            {"system": "s", "question": "q", "chosen": "good", "rejected": "bad"},
            Row("q", "good", (Turn("system", "s"),), rejected="bad"),
        ),
        (
            {"instruction": "i", "input": "x", "output": "o", "chosen": "good", "rejected": "bad"},
            Row("i\n\nx", "good", rejected="bad"),
        ),
        (
            {"chosen": [USER, BAD, USER, GOOD], "rejected": [USER, BAD, USER, BAD]},
            Row("q", "good", (Turn("user", "q"), Turn("assistant", "bad")), rejected="bad"),
        ),
    ],
)
def test_every_shape_is_recognised(value: dict[str, Any], row: Row) -> None:
    found, note = read(value)
    assert note == "read as preference"
    assert (found.key, found.content_hash) == (row.key, row.content_hash)
    assert found.rejected == "bad" and found.source == "f:1"


def test_the_other_answer_is_part_of_the_content_and_not_of_the_question() -> None:
    plain = Row("q", "good")
    assert PAIR.key == plain.key
    assert (
        len({PAIR.content_hash, plain.content_hash, Row("q", "good", rejected="x").content_hash})
        == 3
    )


def test_a_named_shape_learns_the_given_output_instead() -> None:
    value = {"instruction": "i", "output": "o", "chosen": "good", "rejected": "bad"}
    assert read(value, shape="alpaca")[0] == Row("i", "o", source="f:1")
    assert read({"text": "t", "chosen": "good", "rejected": "bad"}, input="text")[0].text == "t"


@pytest.mark.parametrize(
    ("value", "parts"),
    [
        ({"prompt": "q", "chosen": "good", "rejected": ""}, ("f:1", "'rejected' is empty")),
        ({"prompt": "q", "chosen": None, "rejected": "bad"}, ("f:1", "'chosen' is empty")),
        ({"prompt": "", "chosen": "good", "rejected": "bad"}, ("f:1", "'prompt' is empty")),
        ({"chosen": "good", "rejected": "bad"}, ("f:1", "no column 'prompt'")),
        (
            {"chosen": [USER, GOOD], "rejected": [{**USER, "content": "other"}, BAD]},
            ("f:1", "answer different conversations"),
        ),
        ({"chosen": [USER, GOOD], "rejected": [USER]}, ("f:1", "not the assistant's")),
        ({"prompt": [USER], "chosen": [GOOD], "rejected": [1]}, ("f:1", "turn 1")),
    ],
)
def test_what_is_no_pair_is_one_sentence(value: dict[str, Any], parts: tuple[str, ...]) -> None:
    with pytest.raises(DataError) as caught:
        read(value)
    for part in parts:
        assert part in str(caught.value)


def test_pairs_without_answers_are_read_when_allowed() -> None:
    found, _ = read({"prompt": "q", "chosen": "", "rejected": ""}, answers=False)
    assert found.answer is None and found.rejected is None
