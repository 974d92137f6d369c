"""Passages → a row that shows them: numbered, before what the row asks, within a token limit.

Knows rows, passages and a tokenizer; knows nothing of how passages were found or of models. They
enter through the row's text, so that the template stays the one owner of what a model sees.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fitune.approaches.base import Shown
from fitune.data.rows import Row
from fitune.models.quiet import quiet
from fitune.retrieval.chunking import Chunking, cut, words
from fitune.retrieval.passages import Document

NOTHING = "No passage was found."
"""Said where nothing was found or nothing fits: a model that sees no passages would else be told to
answer from them."""


@dataclass(frozen=True)
class Room:
    """How much a model may be shown.

    Attributes:
        tokenizer: the model's.
        length: a row → its tokens as the model is given them, instruction and turns included.
        context: most tokens of the passages, numbers included.
        limit: most tokens of a row.
    """

    tokenizer: Any
    length: Callable[[Row], int]
    context: int
    limit: int

    def over(self, row: Row, passages: Sequence[str]) -> int:
        """By how many tokens `row` with these passages passes a limit; 0 or less where it fits."""
        return max(
            self.tokens(numbered(passages)) - self.context,
            self.length(with_passages(row, passages)) - self.limit,
        )

    def tokens(self, text: str) -> int:
        with quiet():  # texts longer than the model reads are what is being found out
            return len(self.tokenizer(text, add_special_tokens=False).input_ids)


def token_starts(tokenizer: Any, text: str) -> list[int]:
    """The character that each token of a text begins at."""
    if not tokenizer.is_fast:  # slow ones do not tell
        return words(text)
    with quiet():
        spans = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    return [start for start, _ in spans["offset_mapping"]]


@dataclass(frozen=True)
class InContext:
    """A row with what was found for it.

    Attributes:
        row: shows the passages.
        shown: them, in the order of their numbers.
        cut: whether of the only one just the beginning fits.
        crowded: whether some do not fit.
    """

    row: Row
    shown: tuple[Shown, ...]
    cut: bool
    crowded: bool


def in_context(row: Row, found: Sequence[Shown], room: Room) -> InContext:
    """`row` with as many of the passages `found` as fit, the best ones, whole.

    Where not even the first fits, its beginning is shown, up to the end of a sentence or else of a
    word.
    """
    for count in range(len(found), 0, -1):
        if room.over(row, [passage.text for passage in found[:count]]) <= 0:
            shown = tuple(found[:count])
            break
    else:
        shown = _beginning(row, found[0], room) if found else ()
    return InContext(
        with_passages(row, [passage.text for passage in shown]),
        shown,
        cut=bool(shown) and shown[0].text != found[0].text,
        crowded=len(shown) < len(found),
    )


def _beginning(row: Row, passage: Shown, room: Room) -> tuple[Shown, ...]:
    """As much of `passage` as fits; nothing where not a token does."""
    text = passage.text
    starts = token_starts(room.tokenizer, text)
    size = min(room.context, len(starts) - 1)
    while size >= 1:
        # Tokens were counted within the whole passage: its beginning alone may have others.
        beginning = cut([Document("", text)], Chunking(size, 0), lambda _: starts)[0].text
        over = room.over(row, [beginning])
        if over <= 0:
            return (replace(passage, text=beginning),)
        size -= over
    return ()


def with_passages(row: Row, passages: Sequence[str]) -> Row:
    """`row` with `passages` before its text; without any, it says so."""
    shown = f"Passages:\n{numbered(passages)}" if passages else NOTHING
    return replace(row, text=f"{shown}\n\nQuestion: {row.text}")


def numbered(passages: Sequence[str]) -> str:
    """``[1] …``, ``[2] …``, a blank line between."""
    return "\n\n".join(f"[{number}] {text}" for number, text in enumerate(passages, start=1))
