"""Documents and the passages they are cut into.

Knows texts and where in them something stands; knows nothing of files, tokens or scores.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading of a document.

    Attributes:
        start: the character its line begins at.
        level: 1 for the highest.
        title: its words, without marks.
    """

    start: int
    level: int
    title: str


@dataclass(frozen=True, slots=True)
class Document:
    """A text and its headings.

    Attributes:
        source: where it was read: a file, or ``file:line`` of a record.
        text: all of it.
        title: what it calls itself; may be empty.
        headings: in the order of the text.
    """

    source: str
    text: str
    title: str = ""
    headings: tuple[Heading, ...] = ()


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of a document.

    Attributes:
        document: the document's source.
        title: the document's.
        headings: those it stands under, the highest first.
        start, end: its characters are ``document.text[start:end]``.
        text: those characters.
    """

    document: str
    title: str
    headings: tuple[str, ...]
    start: int
    end: int
    text: str

    @property
    def place(self) -> str:
        """Where it stands, for people: ``manual.md › Setup › Windows``."""
        return " › ".join([self.title or self.document, *self.headings])
