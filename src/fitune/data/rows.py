"""What a row of data is, and what a set of them is.

Knows the row's content and its hash; knows nothing of files, tokens or models.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of a conversation."""

    role: Role
    text: str


@dataclass(frozen=True)
class Row:
    """One example: what the model is given, and what it should answer.

    Attributes:
        text: the text to classify, or the last user turn.
        answer: the label, or the reference answer; None when it is to be predicted.
        history: the turns before `text`, oldest first (system prompt, earlier questions and
            answers); empty for plain tasks.
        source: where the row was read, ``"train.csv:17"``; not part of its identity.
        rejected: of a pair, the answer that `answer` is preferred to; None for rows without one.
    """

    text: str
    answer: str | None = None
    history: tuple[Turn, ...] = ()
    source: str = ""
    rejected: str | None = None

    @cached_property
    def key(self) -> str:
        """SHA-256 (32 hex digits) of what the model is given; the answer is left out, so that
        two rows with the same question always fall into the same split."""
        return _digest([[t.role, t.text] for t in self.history] + [["user", self.text]])

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 (32 hex digits) of the whole content, the answers included."""
        pair = [] if self.rejected is None else [self.rejected]
        return _digest([self.key, self.answer, *pair])

    @property
    def turns(self) -> tuple[Turn, ...]:
        """The conversation up to and including the user's last turn."""
        return (*self.history, Turn("user", self.text))


@dataclass(frozen=True)
class Rows(Sequence[Row]):
    """An ordered, immutable set of rows."""

    rows: tuple[Row, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]  # int → Row, slice → Rows
        if isinstance(index, slice):
            return Rows(self.rows[index])
        return self.rows[index]

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    @property
    def texts(self) -> list[str]:
        return [row.text for row in self.rows]

    @property
    def whole_texts(self) -> list[str]:
        """All that each row says before its answer: earlier turns and its text, a line each."""
        return ["\n".join(turn.text for turn in row.turns) for row in self.rows]

    @property
    def answers(self) -> list[str]:
        """The answers; rows without one give an empty string."""
        return [row.answer or "" for row in self.rows]

    @property
    def labels(self) -> tuple[str, ...]:
        """The distinct answers, sorted: the label set of a classification task."""
        return tuple(sorted({row.answer for row in self.rows if row.answer is not None}))

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 (32 hex digits) of all rows in order."""
        return _digest([row.content_hash for row in self.rows])


@dataclass(frozen=True)
class Splits:
    """The rows to learn from, to choose by, and to be judged on.

    Attributes:
        notes: what happened on the way, one sentence each with counts (duplicates dropped, rows
            capped, shape detected, …), to be shown to the user.
    """

    train: Rows
    validation: Rows
    test: Rows
    notes: tuple[str, ...] = ()

    @property
    def content_hash(self) -> str:
        return _digest(
            [self.train.content_hash, self.validation.content_hash, self.test.content_hash]
        )


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, ensure_ascii=False).encode()).hexdigest()[:32]
