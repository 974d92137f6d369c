"""The fields of a record, read as texts and answers.

Knows records and which values a text or an answer may have; knows nothing of shapes or files.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Any

from fitune.data.table import Record
from fitune.errors import DataError


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


def field_of(record: Record, name: str) -> Any:
    if name not in record.values:
        have = tuple(record.values)
        near = difflib.get_close_matches(name, have, n=1, cutoff=0.5)
        raise DataError(
            f"{record.source} has no column {name!r} (it has {listed(have) or 'none'})",
            fix=f"rename {near[0]!r}, or set data.shape and data.input"
            if near
            else "add it, or set data.shape and data.input",
        )
    return record.values[name]


def as_text(value: Any, name: str, record: Record) -> str:
    """The text as it stands. A text that no file could hold (half a surrogate pair) is refused."""
    if not isinstance(value, str):
        raise DataError(
            f"{record.source}: {name!r} is {named(value)} and not a text",
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


def text_field(record: Record, name: str) -> str:
    text = as_text(field_of(record, name), name, record)
    if not text.strip():
        raise DataError(
            f"{record.source}: the text in {name!r} is empty", fix="fill it in, or remove the row"
        )
    return text


def answer_field(record: Record, name: str | None, reading: Reading) -> str | None:
    """Whole numbers and true/false are labels too, spelled as JSON spells them."""
    if not reading.answers and (name is None or record.values.get(name) in (None, "")):
        return None
    value = field_of(record, name or "label")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    answer = "" if value is None else as_text(value, str(name), record)
    if not answer.strip():
        raise DataError(
            f"{record.source}: the answer in {name!r} is empty", fix="fill it in, or remove the row"
        )
    return answer


def named(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, dict):
        return "an object"
    return f"{str(value)[:40]} ({type(value).__name__})"


def listed(names: tuple[str, ...]) -> str:
    shown = ", ".join(name if len(name) <= 40 else name[:37] + "..." for name in names[:12])
    return shown + (f" and {len(names) - 12} more" if len(names) > 12 else "")
