"""Documents → passages: pieces of a limited number of tokens, cut where the text itself parts.

Knows headings, paragraphs, lines, sentences and words; knows nothing of files, models or scores.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from fitune.errors import ConfigError
from fitune.retrieval.passages import Document, Passage

Tokens = Callable[[str], Sequence[int]]
"""A text → the character each of its tokens begins at, in order."""

_WORD = re.compile(r"\w+|[^\w\s]")


def words(text: str) -> list[int]:
    """Words and punctuation marks as tokens, where no model's tokenizer is at hand."""
    return [match.start() for match in _WORD.finditer(text)]


@dataclass(frozen=True)
class Chunking:
    """How documents are cut.

    Attributes:
        max_tokens: the most tokens of a passage.
        overlap: the most tokens that a passage repeats of the one before it, so that what stands
            around a cut is whole in one of the two; whole sentences where they fit.

    Raises:
        ConfigError: a passage would repeat half of the one before it, or more.
    """

    max_tokens: int = 200
    overlap: int = 30

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise ConfigError(
                f"max_tokens is {self.max_tokens}, and a passage has at least 1",
                fix="set max_tokens to what the encoder reads, e.g. 200",
            )
        if not 0 <= self.overlap * 2 < self.max_tokens:
            raise ConfigError(
                f"overlap is {self.overlap}, which is not less than half of max_tokens "
                f"({self.max_tokens})",
                fix=f"set overlap from 0 to {(self.max_tokens - 1) // 2}",
            )


def cut(documents: Iterable[Document], chunking: Chunking, tokens: Tokens = words) -> list[Passage]:
    """The passages of `documents`, in order.

    Every character that is not white space is in a passage, and passages of a document begin and
    end in the order of its text. A passage stays under one heading; headings with nothing under
    them stand with what follows. Where a cut falls among paragraphs, lines, sentences and words,
    the first of these that leaves at least half a passage is taken, and a sentence is cut only if
    it is longer than a passage.

    Args:
        tokens: tells where tokens begin. Counted in the document as a whole: a passage alone may
            have a token more or less at either end.
    """
    return [passage for document in documents for passage in _cut(document, chunking, tokens)]


def _cut(document: Document, chunking: Chunking, tokens: Tokens) -> list[Passage]:
    text = document.text
    starts = tokens(text)
    found = []
    for start, end, path in _sections(document):
        marks = _Marks(text, start, end, starts)
        for a, b in _spans(marks, chunking):
            piece = text[a:b]
            left = a + len(piece) - len(piece.lstrip())
            right = a + len(piece.rstrip())
            if left < right:
                found.append(
                    Passage(document.source, document.title, path, left, right, text[left:right])
                )
    return found


_UNDERLINES = " \t\r\n=-"
"""What may stand under a heading without being something that it heads."""


def _sections(document: Document) -> list[tuple[int, int, tuple[str, ...]]]:
    """(start, end, headings it stands under) of each part of the text between headings."""
    text = document.text
    sections: list[tuple[int, int, tuple[str, ...]]] = []
    path: list[tuple[int, str]] = []  # (level, title) of the open headings
    begin = 0  # of the section that is open, its headings included
    words_begin = 0  # after its last heading's line
    for heading in document.headings:
        if text[words_begin : heading.start].strip(_UNDERLINES):
            sections.append((begin, heading.start, tuple(title for _, title in path)))
            begin = heading.start
        path = [(level, title) for level, title in path if level < heading.level]
        path.append((heading.level, heading.title))
        line_end = text.find("\n", heading.start)
        words_begin = len(text) if line_end < 0 else line_end
    sections.append((begin, len(text), tuple(title for _, title in path)))
    return sections


# What parts a text, from the strongest to the weakest. A cut falls after the match.
_PARAGRAPH = re.compile(r"\n[^\S\n]*\n\s*")
_LINE = re.compile(r"\n\s*")
# A mark that ends sentences, then white space and no small letter; in scripts that write without
# spaces, the mark alone.
_SENTENCE = re.compile(r"[.!?…][\"'”’»)\]]*\s+(?=[^\sa-zß-öø-ÿ])|[。！？｡][」』”’）]*\s*|[।۔؟]\s*")
_SPACE = re.compile(r"\s+")


class _Marks:
    """Where the text between `start` and `end` may be cut."""

    def __init__(self, text: str, start: int, end: int, starts: Sequence[int]) -> None:
        self.text, self.start, self.end = text, start, end
        self.starts = starts
        self.levels = [
            [match.end() for match in pattern.finditer(text, start, end)]
            for pattern in (_PARAGRAPH, _LINE, _SENTENCE, _SPACE)
        ]

    def skip(self, at: int) -> int:
        """The first character from `at` that is not white space."""
        match = _SPACE.match(self.text, at, self.end)
        return match.end() if match else at

    def ahead(self, start: int, count: int) -> int:
        """Where the token begins that comes `count` tokens after `start`; at most `end`."""
        index = bisect_left(self.starts, start) + count
        return min(self.starts[index], self.end) if index < len(self.starts) else self.end

    def back(self, end: int, count: int) -> int:
        """Where the last `count` tokens before `end` begin; at least `start`."""
        index = bisect_left(self.starts, end) - count
        return max(self.starts[index], self.start) if index >= 0 else self.start

    def last(self, level: int, low: int, high: int) -> int | None:
        """The last cut of a level with ``low < cut <= high``."""
        cuts = self.levels[level]
        index = bisect_left(cuts, high + 1) - 1
        return cuts[index] if index >= 0 and cuts[index] > low else None

    def first(self, level: int, low: int, high: int) -> int | None:
        """The first cut of a level with ``low <= cut < high``."""
        cuts = self.levels[level]
        index = bisect_left(cuts, low)
        return cuts[index] if index < len(cuts) and cuts[index] < high else None


def _spans(marks: _Marks, chunking: Chunking) -> list[tuple[int, int]]:
    """Where each passage begins and ends; both move on by at least one letter from passage to
    passage, since white space is skipped."""
    spans: list[tuple[int, int]] = []
    start = covered = marks.skip(marks.start)
    while covered < marks.end:
        limit = marks.ahead(start, chunking.max_tokens)
        if limit < marks.end:
            half = marks.ahead(start, chunking.max_tokens // 2)
            limit = _end(marks, covered, half, limit)
        spans.append((start, limit))
        covered = marks.skip(limit)
        start = marks.skip(_restart(marks, chunking.overlap, start, covered))
    return spans


def _end(marks: _Marks, covered: int, half: int, limit: int) -> int:
    """Where a passage that may reach `limit` ends; always beyond what is `covered`."""
    whole, words = (0, 1, 2), (3,)
    for levels, low in ((whole, half), (whole, covered), (words, covered)):
        for level in levels:
            at = marks.last(level, max(low, covered), limit)
            if at is not None:
                return at
    if limit > covered:
        return limit  # inside a word of more tokens than a passage may have
    # One character of many tokens, as byte-level tokenizers make: it cannot be cut.
    index = bisect_left(marks.starts, covered + 1)
    return min(marks.starts[index], marks.end) if index < len(marks.starts) else marks.end


def _restart(marks: _Marks, overlap: int, start: int, end: int) -> int:
    """Where the passage after the one from `start` to `end` begins."""
    if overlap and end < marks.end:
        low = max(marks.back(end, overlap), start + 1)
        for level in range(4):
            at = marks.first(level, low, end)
            if at is not None:
                return at
    return end
