"""Every shape people keep rows in, and every way a record can fail to be a row."""

import pytest

from fitune.data.documents import CUTS
from fitune.data.rows import Row, Turn
from fitune.data.shapes import SHAPES, to_rows
from fitune.data.table import Record, Table
from fitune.errors import ConfigError, DataError


def table(*values: dict) -> Table:
    return Table(tuple(Record(value, f"f.jsonl:{i}") for i, value in enumerate(values, start=1)))


def one(value: dict, kind: str = "generate", **options) -> Row:
    rows, _ = to_rows(table(value), kind=kind, **options)
    return rows[0]


def refused(value: dict, *parts: str, error=DataError, **options) -> None:
    with pytest.raises(error) as caught:
        one(value, **options)
    for part in parts:
        assert part in str(caught.value), str(caught.value)


USER = {"role": "user", "content": "q"}
ASSISTANT = {"role": "assistant", "content": "a"}


@pytest.mark.parametrize(
    ("value", "shape", "row"),
    [
        ({"question": "q", "answer": "a"}, "columns", Row("q", "a")),
        ({"instruction": "i", "input": "", "output": "a"}, "alpaca", Row("i", "a")),
        ({"instruction": "i", "input": "x", "output": "a"}, "alpaca", Row("i\n\nx", "a")),
        (
            {"instruction": "i", "output": "a", "system": "s"},
            "alpaca",
            Row("i", "a", (Turn("system", "s"),)),
        ),
        ({"prompt": "p", "completion": "c"}, "prompt-completion", Row("p", "c")),
        (
            {"prompt": [{"role": "system", "content": "s"}, USER], "completion": [ASSISTANT]},
            "prompt-completion",
            Row("q", "a", (Turn("system", "s"),)),
        ),
        ({"prompt": [USER], "completion": "c"}, "prompt-completion", Row("q", "c")),
        (
            {
                "conversations": [
                    {"from": "human", "value": "1"},
                    {"from": "gpt", "value": "2"},
                    {"from": "human", "value": "3"},
                    {"from": "gpt", "value": "4"},
                ],
                "system": "s",
            },
            "sharegpt",
            Row("3", "4", (Turn("system", "s"), Turn("user", "1"), Turn("assistant", "2"))),
        ),
        ({"messages": [USER, ASSISTANT]}, "messages", Row("q", "a")),
        ({"conversation": [USER, ASSISTANT]}, "messages", Row("q", "a")),
        (
            {
                "messages": [
                    {"role": "developer", "content": "s"},
                    {"role": "system", "content": ""},
                    {
                        "role": "user",
                        "content": [{"type": "text", "text": "x"}, {"type": "text", "text": "y"}],
                    },
                    ASSISTANT,
                ]
            },
            "messages",
            Row("xy", "a", (Turn("system", "s"),)),
        ),
    ],
)
def test_shape_is_detected_said_and_read(value, shape, row):
    rows, notes = to_rows(table(value), kind="generate")
    assert rows[0] == Row(row.text, row.answer, row.history, "f.jsonl:1")
    assert f"read as {shape}" in notes[0]
    assert to_rows(table(value), kind="generate", shape=shape, input=_turns_in(value))[0] == rows


def _turns_in(value: dict) -> str | None:
    return "conversation" if "conversation" in value else None


def test_every_shape_of_a_task_file_has_a_function():
    from fitune.config import Data

    allowed = Data.model_json_schema()["properties"]["shape"]["enum"]
    assert sorted([*SHAPES, *CUTS, "auto"]) == sorted(allowed)


def test_shape_can_be_overridden():
    value = {"instruction": "i", "input": "x", "output": "a"}
    row = one(value, shape="columns", input="input", output="output")
    assert (row.text, row.answer) == ("x", "a")
    assert one(value, input="input", output="output") == row
    assert one({"chat": [USER, ASSISTANT]}, input="chat").text == "q"


@pytest.mark.parametrize(
    ("value", "kind", "pair"),
    [
        ({"id": "1", "text": "t", "category": "c"}, "classify", ("text", "category")),
        ({"Text": "t", "LABEL": "c"}, "classify", ("Text", "LABEL")),
        ({"text": "t", "label": 1, "label_text": "c"}, "classify", ("text", "label_text")),
        ({"text": "t", "label": "l", "summary": "c"}, "generate", ("text", "summary")),
        ({"answer": "c", "prompt": "t"}, "generate", ("prompt", "answer")),
        ({"input": "t", "output": "c"}, "classify", ("input", "output")),
    ],
)
def test_usual_names_are_guessed_and_said(value, kind, pair):
    rows, (note,) = to_rows(table(value), kind=kind)
    assert (rows[0].text, rows[0].answer) == ("t", "c")
    assert all(repr(name) in note for name in pair)


@pytest.mark.parametrize(
    ("label", "text"), [(3, "3"), (0, "0"), (True, "true"), (False, "false"), (" x ", " x ")]
)
def test_labels_that_are_numbers_or_truths_become_texts(label, text):
    assert one({"text": "t", "label": label}, kind="classify").answer == text


@pytest.mark.parametrize("label", ["", "  ", None, 1.5, float("nan"), ["a"], {"a": 1}])
def test_other_labels_are_refused_with_their_place(label):
    refused({"text": "t", "label": label}, "f.jsonl:1", "'label'", kind="classify")


@pytest.mark.parametrize(
    ("value", "parts"),
    [
        ({"text": "", "label": "a"}, ["text in 'text' is empty"]),
        ({"text": " \n", "label": "a"}, ["text in 'text' is empty"]),
        ({"text": 7, "label": "a"}, ["'text' is 7 (int) and not a text"]),
        ({"text": None, "label": "a"}, ["null"]),
        ({"text": "a\ud800b", "label": "a"}, ["surrogate", "\\ud800", "character 2"]),
        ({"text": "a", "label": "é\udfff"}, ["surrogate", "\\udfff"]),
        ({"messages": []}, ["data.input"]),
        ({"messages": [USER]}, ["last turn is not the assistant's"]),
        ({"messages": [ASSISTANT]}, ["does not follow a turn of the user"]),
        ({"messages": [USER, ASSISTANT, ASSISTANT]}, ["does not follow a turn of the user"]),
        ({"messages": [{"role": "narrator", "content": "x"}]}, ["turn 1", "'narrator'", "system"]),
        ({"messages": [{"role": ["user"], "content": "x"}]}, ["unknown role"]),
        ({"messages": [{"role": "user", "content": ""}, ASSISTANT]}, ["turn 1 (user) is empty"]),
        ({"messages": [USER, {"role": "assistant", "content": None}]}, ["turn 2", "null"]),
        ({"messages": [USER, {"role": "assistant"}]}, ["turn 2 lacks"]),
        ({"messages": [USER, "a"]}, ["turn 2 lacks"]),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}, ASSISTANT]},
            ["type 'image_url'"],
        ),
        ({"conversations": [{"from": "bot", "value": "x"}]}, ["'bot'", "human"]),
        ({"instruction": "i", "input": 3, "output": "a"}, ["'input' is 3"]),
        ({"instruction": "i", "output": ""}, ["answer in 'output' is empty"]),
        ({"prompt": "p", "completion": None}, ["'completion' is empty"]),
    ],
)
def test_broken_record_is_refused_with_a_fix(value, parts):
    refused(value, *parts)


def test_empty_conversation_given_its_shape():
    refused({"messages": []}, "f.jsonl:1", "conversation is empty", shape="messages")
    refused({"messages": "hi"}, "f.jsonl:1", "conversation is hi", shape="messages")


def test_missing_columns_suggest_near_names_and_list_what_there_is():
    value = {"sentence": "a", "intnt": "b"}
    refused(value, "'intent'", "sentence, intnt", "data.output: intnt", output="intent")
    refused(value, "usual name for the label", "sentence, intnt", kind="classify")
    refused({"x": "a", "y": "b"}, "usual name for the text", "data.input", "header line")
    refused({"prompt": "a", "label": "b"}, "no column 'completion'", shape="prompt-completion")
    refused({"mesages": [USER]}, "'mesages'", "rename", shape="messages")


def test_options_that_would_have_no_effect_are_refused():
    alpaca = {"instruction": "i", "output": "a"}
    refused(alpaca, "data.output", shape="alpaca", output="output", error=ConfigError)
    refused(alpaca, "data.input", shape="alpaca", input="input", error=ConfigError)
    refused({"text": "a"}, "both", input="text", output="text", error=ConfigError)


def test_first_bad_row_is_named_and_the_others_are_counted():
    good, bad = {"text": "a", "label": "b"}, {"text": "", "label": "b"}
    with pytest.raises(DataError, match=r"f.jsonl:2: .* \(and 2 more rows cannot be read\)"):
        to_rows(table(good, bad, good, bad, bad), kind="classify")


def test_column_missing_in_one_row_names_that_row():
    with pytest.raises(DataError, match=r"f.jsonl:2 has no column 'label'"):
        to_rows(table({"text": "a", "label": "b"}, {"text": "a"}), kind="classify")


def test_rows_without_answers_are_read_when_allowed():
    assert one({"text": "a"}, answers=False).answer is None
    assert one({"text": "a", "label": ""}, answers=False).answer is None
    assert one({"text": "a", "label": "b"}, answers=False, kind="classify").answer == "b"
    assert one({"messages": [USER]}, answers=False) == Row("q", None, (), "f.jsonl:1")
    assert one({"messages": [USER, ASSISTANT]}, answers=False).answer == "a"
    assert one({"instruction": "i", "output": None}, answers=False).answer is None
