"""Plain text becomes documents: whole files or records, or pieces of a file.

Knows files of text and where one may be cut; knows nothing of tokens.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from fitune.config import Data
from fitune.data.fields import as_text
from fitune.data.readers import read_table
from fitune.data.rows import Row, Rows
from fitune.data.shapes import text_column
from fitune.data.table import Record
from fitune.errors import ConfigError, DataError

SECTION = 4_000
"""Most characters of a section, about 1,000 tokens: as many as a row usually has."""

SECTIONS = 50
"""At least so many sections are made of a file, as far as its blank lines allow: fewer could not be
divided into training, validation and test documents."""

Piece = tuple[int, str]
"""On which line it begins, and the text."""


def document(text: str) -> Iterator[Piece]:
    """All of it."""
    yield 1, text


def lines(text: str) -> Iterator[Piece]:
    """Each line that says something."""
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, line.removesuffix("\r")


def sections(text: str) -> Iterator[Piece]:
    """Paragraphs that follow each other, as many as `SECTION` characters hold.

    A longer paragraph is a section of its own. Where there is no blank line, lines stand for
    paragraphs.
    """
    most = max(200, min(SECTION, len(text) // SECTIONS))
    ends = [match.end() for match in re.finditer(r"\n[ \t\r]*\n\s*", text)]
    if not ends:
        ends = [match.end() for match in re.finditer(r"\n", text)]
    start, end, line = 0, 0, 1
    for cut in [*ends, len(text)]:
        if cut - start > most and end > start:
            if text[start:end].strip():
                yield line, text[start:end].rstrip()
            line += text.count("\n", start, end)
            start = end
        end = cut
    if text[start:].strip():
        yield line, text[start:].rstrip()


CUTS: dict[str, Callable[[str], Iterator[Piece]]] = {
    "document": document,
    "sections": sections,
    "lines": lines,
}
"""`data.shape` → the documents in a text."""


def read_documents(
    where: str, data: Data, *, split: str, download: bool, carved: bool
) -> tuple[Rows, tuple[str, ...]]:
    """The documents of `where`, and how they were read.

    Args:
        where: as `data.train`.
        carved: whether other splits are taken from these documents, so that one file alone must be
            cut.

    Raises:
        DataError: there is no text, or no column that holds it.
        ConfigError: the shape is not one of documents, or `output` is given.
    """
    if data.shape not in ("auto", *CUTS):
        raise ConfigError(
            f"data.shape is {data.shape}, and kind language-model reads documents",
            fix=f"set data.shape: {', '.join(CUTS)}, or leave it out",
        )
    if data.output is not None:
        raise ConfigError(
            f"data.output is {data.output!r}, and kind language-model has no answers",
            fix="remove data.output; data.input names the column with the text",
        )
    table = read_table(
        where,
        format=data.format,
        encoding=data.encoding,
        download=download,
        split=split,
        plain=True,
    )
    column = text_column(table, data.input)
    shape = data.shape
    if shape == "auto":
        shape = "sections" if carved and len(table.records) == 1 else "document"
    rows = [row for record in table.records for row in _rows(record, column, shape)]
    if not rows:
        raise DataError(f"{where} holds no text", fix="name files with text in them")
    note = f"{where} read as {len(rows):,} documents" + (
        f" ({shape} of {len(table.records):,} text{'s' if len(table.records) > 1 else ''})"
        if shape != "document"
        else ""
    )
    return Rows(tuple(rows)), (*table.notes, note)


def _rows(record: Record, column: str, shape: str) -> Iterator[Row]:
    value = record.values.get(column)
    text = as_text("" if value is None else value, column, record)
    if not text.strip():
        raise DataError(
            f"{record.source}: the text in {column!r} is empty", fix="fill it in, or remove the row"
        )
    for line, piece in CUTS[shape](text):
        yield Row(piece, source=record.source if line == 1 else f"{record.source}:{line}")
