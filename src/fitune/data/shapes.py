"""A raw record becomes a row: which part is the text, which the answer, which came before.

Knows the shapes people keep rows in, by their column names; knows nothing of files or splits.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from fitune.data.rows import Role, Row, Rows, Turn
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
MESSAGE_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
}
SHAREGPT_ROLES: dict[str, Role] = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
}


@dataclass(frozen=True)
class Reading:
    """How records are to be read.

    Attributes:
        input, output: the columns of text and answer, for shape `columns`; for conversations
            `input` names the column that holds the turns.
        answers: whether a row without an answer is an error.
    """

    input: str | None = None
    output: str | None = None
    answers: bool = True


Shape = Callable[[Record, Reading], Row]
"""Raises DataError that names the record's source."""


# --- the shapes ----------------------------------------------------------------------------------


def columns(record: Record, reading: Reading) -> Row:
    """One column is the text, one the answer."""
    text = _text(record, reading.input or INPUT_NAMES[0])
    return Row(text, _answer(record, reading.output, reading), source=record.source)


def alpaca(record: Record, reading: Reading) -> Row:
    """`instruction`, optional `input` (set below it after a blank line), `output`; `system`."""
    text = _text(record, "instruction")
    if (more := record.values.get("input")) not in (None, ""):
        text = f"{text}\n\n{_string(more, 'input', record)}"
    return Row(text, _answer(record, "output", reading), _system(record), record.source)


def prompt_completion(record: Record, reading: Reading) -> Row:
    """`prompt` and `completion`, each a text or a list of messages."""
    prompt = record.values.get("prompt")
    if isinstance(prompt, list):
        completion = record.values.get("completion")
        turns = prompt + (completion if isinstance(completion, list) else [])
        if isinstance(completion, str):
            turns = [*prompt, {"role": "assistant", "content": completion}]
        return _conversation(
            _turns(turns, "role", "content", MESSAGE_ROLES, record), reading, record
        )
    return Row(
        _text(record, "prompt"),
        _answer(record, "completion", reading),
        _system(record),
        record.source,
    )


def messages(record: Record, reading: Reading) -> Row:
    """OpenAI's: `messages`, a list of {role, content}; content is a text or a list of parts."""
    turns = _value(record, reading.input or "messages")
    return _conversation(_turns(turns, "role", "content", MESSAGE_ROLES, record), reading, record)


def sharegpt(record: Record, reading: Reading) -> Row:
    """`conversations`, a list of {from, value} with human and gpt; `system` beside it or in it."""
    turns = _turns(
        _value(record, reading.input or "conversations"), "from", "value", SHAREGPT_ROLES, record
    )
    return _conversation([*_system(record), *turns], reading, record)


SHAPES: dict[str, Shape] = {
    "columns": columns,
    "alpaca": alpaca,
    "sharegpt": sharegpt,
    "messages": messages,
    "prompt-completion": prompt_completion,
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
    if shape == "auto":
        shape, input = detect(table, input, output)
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


def detect(table: Table, input: str | None, output: str | None) -> tuple[str, str | None]:
    """The shape that the columns speak of, and the column of turns if it is a conversation."""
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
        f"{field} is {name!r}, and there is no such column (there are {_listed(have)})",
        fix=f"set {field}: {near[0]}" if near else f"set {field} to one of them",
    )


def _unknown(what: str, field: str, have: tuple[str, ...]) -> DataError:
    return DataError(
        f"no column has a usual name for the {what} (there are {_listed(have)})",
        fix=f"set {field} to the column that holds it; a file without a header line needs one",
    )


def _listed(names: tuple[str, ...]) -> str:
    shown = ", ".join(name if len(name) <= 40 else name[:37] + "..." for name in names[:12])
    return shown + (f" and {len(names) - 12} more" if len(names) > 12 else "")


# --- reading values ------------------------------------------------------------------------------


def _value(record: Record, name: str) -> Any:
    if name not in record.values:
        have = tuple(record.values)
        near = difflib.get_close_matches(name, have, n=1, cutoff=0.5)
        raise DataError(
            f"{record.source} has no column {name!r} (it has {_listed(have) or 'none'})",
            fix=f"rename {near[0]!r}, or set data.shape and data.input"
            if near
            else "add it, or set data.shape and data.input",
        )
    return record.values[name]


def _string(value: Any, name: str, record: Record) -> str:
    """The text as it stands. A text that no file could hold (half a surrogate pair) is refused."""
    if not isinstance(value, str):
        raise DataError(
            f"{record.source}: {name!r} is {_named(value)} and not a text",
            fix="write it as a text between quotation marks, or name another column",
        )
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise DataError(
                f"{record.source}: {name!r} holds half of a surrogate pair "
                f"(\\u{ord(value[error.start]):04x}) at character {error.start + 1}",
                fix="write the file again with whole characters",
            ) from None
    return value


def _text(record: Record, name: str) -> str:
    text = _string(_value(record, name), name, record)
    if not text.strip():
        raise DataError(
            f"{record.source}: the text in {name!r} is empty", fix="fill it in, or remove the row"
        )
    return text


def _answer(record: Record, name: str | None, reading: Reading) -> str | None:
    """Whole numbers and true/false are labels too, spelled as JSON spells them."""
    if not reading.answers and (name is None or record.values.get(name) in (None, "")):
        return None
    value = _value(record, name or LABEL_NAMES[0])
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    answer = "" if value is None else _string(value, str(name), record)
    if not answer.strip():
        raise DataError(
            f"{record.source}: the answer in {name!r} is empty", fix="fill it in, or remove the row"
        )
    return answer


def _named(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, dict):
        return "an object"
    return f"{str(value)[:40]} ({type(value).__name__})"


# --- conversations -------------------------------------------------------------------------------


def _system(record: Record) -> tuple[Turn, ...]:
    value = record.values.get("system")
    if value in (None, ""):
        return ()
    return (Turn("system", _string(value, "system", record)),)


def _turns(value: Any, who: str, what: str, roles: dict[str, Role], record: Record) -> list[Turn]:
    """An empty system turn says nothing and is left out; any other empty turn is an error."""
    if not isinstance(value, list) or not value:
        raise DataError(
            f"{record.source}: the conversation is {_named(value) if value != [] else 'empty'}",
            fix=f"write a list of turns, each with {who!r} and {what!r}",
        )
    turns = []
    for number, item in enumerate(value, start=1):
        if not isinstance(item, dict) or who not in item or what not in item:
            raise DataError(
                f"{record.source}: turn {number} lacks {who!r} or {what!r}",
                fix=f"write each turn as an object with {who!r} and {what!r}",
            )
        role = roles.get(item[who]) if isinstance(item[who], str) else None
        if role is None:
            raise DataError(
                f"{record.source}: turn {number} has the unknown role {item[who]!r}",
                fix=f"use one of {', '.join(roles)}",
            )
        text = _content(item[what], f"turn {number}", record)
        if text.strip():
            turns.append(Turn(role, text))
        elif role != "system":
            raise DataError(
                f"{record.source}: turn {number} ({item[who]}) is empty",
                fix="fill it in, or remove the row",
            )
    return turns


def _content(value: Any, name: str, record: Record) -> str:
    if not isinstance(value, list):
        return _string(value, name, record)
    for part in value:
        if not isinstance(part, dict) or part.get("type") != "text":
            kind = part.get("type") if isinstance(part, dict) else _named(part)
            raise DataError(
                f"{record.source}: {name} has a part of type {kind!r}",
                fix="keep only parts of type 'text'",
            )
    return "".join(_string(part.get("text"), name, record) for part in value)


def _conversation(turns: list[Turn], reading: Reading, record: Record) -> Row:
    answer = None
    *before, last = turns or [Turn("system", "")]
    if last.role == "assistant":
        answer = last.text
        *before, last = before or [Turn("system", "")]
    elif reading.answers:
        raise DataError(
            f"{record.source}: the last turn is not the assistant's",
            fix="end the conversation with the answer to learn, or remove the row",
        )
    if last.role != "user":
        raise DataError(
            f"{record.source}: the answer does not follow a turn of the user",
            fix="put the user's turn before it, or remove the row",
        )
    return Row(last.text, answer, tuple(before), record.source)
