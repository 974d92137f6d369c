"""A raw record becomes a row: which part is the text, which the answer, which came before.

Knows the shapes people keep rows in, by their column names; knows nothing of files or splits.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from typing import Any

from fitune.data.conversations import (
    MESSAGE_ROLES,
    SHAREGPT_ROLES,
    as_row,
    read_turns,
    system_turn,
)
from fitune.data.fields import Reading, answer_field, as_text, field_of, listed, text_field
from fitune.data.preference import preference
from fitune.data.rows import Row, Rows
from fitune.data.table import Record, Table
from fitune.errors import ConfigError, DataError

# Columns are recognised by these names, the likeliest first.
INPUT_NAMES = (
    "text",
    "sentence",
    "utterance",
    "question",
    "query",
    "input",
    "prompt",
    "instruction",
    "document",
    "article",
    "content",
    "message",
    "review",
    "comment",
    "body",
    "source",
    "title",
    "description",
)
LABEL_NAMES = (
    "label_text",
    "label_name",
    "label",
    "labels",
    "category",
    "intent",
    "class",
    "target",
    "topic",
    "sentiment",
    "tag",
    "answer",
    "output",
    "completion",
    "response",
)
ANSWER_NAMES = (
    "answer",
    "output",
    "response",
    "completion",
    "target",
    "reply",
    "summary",
    "translation",
    "reference",
    "label",
)

Shape = Callable[[Record, Reading], Row]
"""Raises DataError that names the record's source."""


# --- the shapes ----------------------------------------------------------------------------------


def columns(record: Record, reading: Reading) -> Row:
    """One column is the text, one the answer."""
    text = text_field(record, reading.input or INPUT_NAMES[0])
    return Row(text, answer_field(record, reading.output, reading), source=record.source)


def alpaca(record: Record, reading: Reading) -> Row:
    """`instruction`, optional `input` (set below it after a blank line), `output`; `system`."""
    text = text_field(record, "instruction")
    if (more := record.values.get("input")) not in (None, ""):
        text = f"{text}\n\n{as_text(more, 'input', record)}"
    return Row(text, answer_field(record, "output", reading), system_turn(record), record.source)


def prompt_completion(record: Record, reading: Reading) -> Row:
    """`prompt` and `completion`, each a text or a list of messages."""
    prompt = record.values.get("prompt")
    if isinstance(prompt, list):
        completion = record.values.get("completion")
        turns = prompt + (completion if isinstance(completion, list) else [])
        if isinstance(completion, str):
            turns = [*prompt, {"role": "assistant", "content": completion}]
        return as_row(read_turns(turns, "role", "content", MESSAGE_ROLES, record), reading, record)
    return Row(
        text_field(record, "prompt"),
        answer_field(record, "completion", reading),
        system_turn(record),
        record.source,
    )


def messages(record: Record, reading: Reading) -> Row:
    """OpenAI's: `messages`, a list of {role, content}; content is a text or a list of parts."""
    turns = field_of(record, reading.input or "messages")
    return as_row(read_turns(turns, "role", "content", MESSAGE_ROLES, record), reading, record)


def sharegpt(record: Record, reading: Reading) -> Row:
    """`conversations`, a list of {from, value} with human and gpt; `system` beside it or in it."""
    turns = read_turns(
        field_of(record, reading.input or "conversations"), "from", "value", SHAREGPT_ROLES, record
    )
    return as_row([*system_turn(record), *turns], reading, record)


SHAPES: dict[str, Shape] = {
    "columns": columns,
    "alpaca": alpaca,
    "sharegpt": sharegpt,
    "messages": messages,
    "prompt-completion": prompt_completion,
    "preference": preference,
}


# --- choosing and applying one -------------------------------------------------------------------


def to_rows(
    table: Table,
    *,
    kind: str,
    shape: str = "auto",
    input: str | None = None,
    output: str | None = None,
    answers: bool = True,
) -> tuple[Rows, tuple[str, ...]]:
    """Read every record as a row.

    Args:
        kind: the task's; decides which names a column of answers usually has.
        shape: `auto` or a key of `SHAPES`.
        input, output: see `Reading`.
        answers: whether a row without an answer is an error.

    Returns:
        The rows in order, and a note that says how they were read.

    Raises:
        DataError: the first record that cannot be read, and how many more there are.
        ConfigError: `output` given for a shape that has no such column.
    """
    if shape in ("document", "sections", "lines"):
        raise ConfigError(
            f"data.shape {shape} is for kind language-model, and the kind is {kind}",
            fix="leave out data.shape, or set kind: language-model",
        )
    if shape == "auto":
        shape, input = detect(table, kind, input, output)
    if shape != "columns" and output is not None:
        raise ConfigError(
            f"data.output is for shape columns, and the shape is {shape}",
            fix="remove data.output, or set data.shape: columns",
        )
    if shape in ("alpaca", "prompt-completion") and input is not None:
        raise ConfigError(
            f"data.input is not for shape {shape}", fix="remove data.input, or set shape: columns"
        )
    reading = Reading(input, output, answers)
    if shape == "columns":
        reading = _guess(table, kind, reading)
        target = f", answer from column {reading.output!r}" if reading.output else ", no answers"
        note = f"read as columns: text from column {reading.input!r}{target}"
    else:
        note = f"read as {shape}"
    rows, first, broken = [], None, 0
    for record in table.records:
        try:
            rows.append(SHAPES[shape](record, reading))
        except DataError as error:
            first, broken = first or error, broken + 1
    if first is not None:
        more = f" (and {broken - 1} more rows cannot be read)" if broken > 1 else ""
        raise DataError(first.problem + more, fix=first.fix)
    return Rows(tuple(rows)), (note,)


def detect(
    table: Table, kind: str, input: str | None, output: str | None
) -> tuple[str, str | None]:
    """The shape that the columns speak of, and the column of turns if it is a conversation."""
    if kind == "generate" and output is None and {"chosen", "rejected"} <= set(table.columns):
        return "preference", input
    first: dict[str, Any] = {}
    for record in table.records:
        for name, value in record.values.items():
            if name not in first and value is not None:
                first[name] = value
    candidates = ("messages", "conversations", "conversation") if input is None else (input,)
    for name in candidates:
        turns = first.get(name)
        turn = turns[0] if isinstance(turns, list) and turns else None
        if isinstance(turn, dict) and output is None:
            if "from" in turn:
                return "sharegpt", name
            return "messages", name
    if input is None and output is None:
        have = set(table.columns)
        if {"instruction", "output"} <= have:
            return "alpaca", None
        if {"prompt", "completion"} <= have:
            return "prompt-completion", None
    return "columns", input


def text_column(table: Table, input: str | None) -> str:
    """The column that holds the text of documents.

    Raises:
        DataError: there is none of that name, or of a usual name.
    """
    if input is not None and input not in table.columns:
        raise _no_column("data.input", input, table.columns)
    column = input or _usual(INPUT_NAMES, table.columns, but=None)
    if column is None:
        raise _unknown("text", "data.input", table.columns)
    return column


def _guess(table: Table, kind: str, reading: Reading) -> Reading:
    have = table.columns
    for field, name in (("data.input", reading.input), ("data.output", reading.output)):
        if name is not None and name not in have:
            raise _no_column(field, name, have)
    text = reading.input or _usual(INPUT_NAMES, have, but=reading.output)
    if text is None:
        raise _unknown("text", "data.input", have)
    names = LABEL_NAMES if kind == "classify" else ANSWER_NAMES
    answer = reading.output or _usual(names, have, but=text)
    if answer is None and reading.answers:
        raise _unknown("label" if kind == "classify" else "answer", "data.output", have)
    if answer == text:
        raise ConfigError(
            f"data.input and data.output are both {text!r}", fix="name two different columns"
        )
    return Reading(text, answer, reading.answers)


def _usual(names: Iterable[str], have: tuple[str, ...], but: str | None) -> str | None:
    folded = {name.casefold().strip(): name for name in reversed(have) if name != but}
    return next((folded[name] for name in names if name in folded), None)


def _no_column(field: str, name: str, have: tuple[str, ...]) -> DataError:
    near = difflib.get_close_matches(name, have, n=1, cutoff=0.5)
    return DataError(
        f"{field} is {name!r}, and there is no such column (there are {listed(have)})",
        fix=f"set {field}: {near[0]}" if near else f"set {field} to one of them",
    )


def _unknown(what: str, field: str, have: tuple[str, ...]) -> DataError:
    return DataError(
        f"no column has a usual name for the {what} (there are {listed(have)})",
        fix=f"set {field} to the column that holds it; a file without a header line needs one",
    )
