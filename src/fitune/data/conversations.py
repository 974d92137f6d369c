"""Turns of a conversation, read from the lists that people keep them in.

Knows roles and the two spellings of a turn; knows nothing of columns or files.
"""

from __future__ import annotations

from typing import Any

from fitune.data.fields import Reading, as_text, named
from fitune.data.rows import Role, Row, Turn
from fitune.data.table import Record
from fitune.errors import DataError

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


def system_turn(record: Record) -> tuple[Turn, ...]:
    value = record.values.get("system")
    if value in (None, ""):
        return ()
    return (Turn("system", as_text(value, "system", record)),)


def read_turns(
    value: Any, who: str, what: str, roles: dict[str, Role], record: Record
) -> list[Turn]:
    """An empty system turn says nothing and is left out; any other empty turn is an error."""
    if not isinstance(value, list) or not value:
        raise DataError(
            f"{record.source}: the conversation is {named(value) if value != [] else 'empty'}",
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
        return as_text(value, name, record)
    for part in value:
        if not isinstance(part, dict) or part.get("type") != "text":
            kind = part.get("type") if isinstance(part, dict) else named(part)
            raise DataError(
                f"{record.source}: {name} has a part of type {kind!r}",
                fix="keep only parts of type 'text'",
            )
    return "".join(as_text(part.get("text"), name, record) for part in value)


def as_row(turns: list[Turn], reading: Reading, record: Record) -> Row:
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
