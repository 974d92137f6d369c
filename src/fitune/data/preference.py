"""Pairs of answers to one prompt, one preferred to the other.

Knows the shapes that people keep pairs in; knows nothing of files or of what is learned from them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fitune.data.conversations import MESSAGE_ROLES, as_row, read_turns, system_turn
from fitune.data.fields import Reading, answer_field, as_text, text_field
from fitune.data.rows import Row, Rows
from fitune.data.table import Record
from fitune.errors import DataError

PROMPT_NAMES = ("prompt", "question", "instruction")
"""Columns that hold what both answers answer, the likeliest first."""


def preference(record: Record, reading: Reading) -> Row:
    """`chosen` and `rejected`, each a text, the turns that answer, or a whole conversation.

    What they answer is in `prompt` (or `question`, or `instruction` with an optional `input`), a
    text or a list of messages, unless both are whole conversations.
    """
    chosen, rejected = (_side(record, name, reading) for name in ("chosen", "rejected"))
    if chosen.key != rejected.key:
        raise DataError(
            f"{record.source}: 'chosen' and 'rejected' answer different conversations",
            fix="let both end the same conversation, or keep what they answer in a column 'prompt'",
        )
    return replace(chosen, rejected=rejected.answer)


def _side(record: Record, name: str, reading: Reading) -> Row:
    """The row that one answer of a pair makes."""
    answer = record.values.get(name)
    if isinstance(answer, list) and not _answers_only(answer):
        turns: list[Any] = answer
    else:
        column = reading.input or next((n for n in PROMPT_NAMES if n in record.values), "prompt")
        prompt = record.values.get(column)
        if not isinstance(prompt, list):
            text = text_field(record, column)
            if column == "instruction" and (more := record.values.get("input")) not in (None, ""):
                text = f"{text}\n\n{as_text(more, 'input', record)}"
            if not isinstance(answer, list):
                return Row(
                    text, answer_field(record, name, reading), system_turn(record), record.source
                )
            prompt = [{"role": "user", "content": text}]
        said = answer if isinstance(answer, list) else _as_turns(record, name, reading)
        turns = [*prompt, *said]
    read = read_turns(turns, "role", "content", MESSAGE_ROLES, record)
    return as_row([*system_turn(record), *read], reading, record)


def _answers_only(turns: list[Any]) -> bool:
    """Whether a list of turns begins with the assistant's."""
    first = turns[0] if turns else None
    return isinstance(first, dict) and first.get("role") == "assistant"


def _as_turns(record: Record, name: str, reading: Reading) -> list[dict[str, str]]:
    said = answer_field(record, name, reading)
    return [] if said is None else [{"role": "assistant", "content": said}]


def refuse_unpaired(rows: Rows, what: str) -> None:
    """Only pairs of different answers say what is preferred.

    Raises:
        DataError: a row has no rejected answer, or one equal to the chosen answer.
    """
    for problem, found, fix in (
        (
            "no rejected answer",
            [row for row in rows if not (row.rejected or "").strip()],
            "give columns `prompt`, `chosen` and `rejected` (data.shape: preference), or set "
            "objective: sft",
        ),
        (
            "a rejected answer equal to the chosen one",
            [row for row in rows if row.rejected == row.answer],
            "remove these rows: they say nothing about what is preferred",
        ),
    ):
        if found:
            raise DataError(
                f"{len(found):,} of {len(rows):,} {what} rows have {problem}, such as "
                f"{found[0].source or found[0].text[:40]!r}",
                fix=fix,
            )
