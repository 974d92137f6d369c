"""Files and folders → documents.

Knows formats of documents; knows nothing of passages, tokens or searches.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from fitune.data.fields import as_text, listed
from fitune.data.readers import read_table
from fitune.data.table import Record, expand
from fitune.errors import DataError, ResourceError
from fitune.retrieval.html import html_text
from fitune.retrieval.markdown import markdown_headings
from fitune.retrieval.passages import Document
from fitune.retrieval.pdf import pdf_text

TEXT_NAMES = ("text", "passage", "content", "contents", "context", "body", "document", "article")
"""Columns of records that may hold a document's text, the likeliest first."""

TITLE_NAMES = ("title", "heading", "name", "subject")
"""Columns of records that may hold a document's title."""


def read_documents(where: str) -> tuple[tuple[Document, ...], tuple[str, ...]]:
    """The documents of a file, or of all files under a folder, and notes on what was left out.

    In a folder, files of other kinds than `FORMATS` and hidden ones are left out, and so are files
    and records without text; each sort is counted in a note. Documents stand in the order of their
    paths.

    Raises:
        DataError: there is no such file, no document in it, or a file is damaged.
        ResourceError: no permission to read.
        MissingExtraError: a PDF file without the `pypdf` package.
    """
    path = expand(where)
    try:
        if path.is_dir():
            return _read_folder(path)
        if not path.is_file():
            raise _missing(where, path)
        if path.suffix.lower() not in FORMATS:
            raise DataError(
                f"{where} is not a document that can be read, by its ending "
                f"{path.suffix or '(none)'!r}",
                fix=f"give files that end in {', '.join(FORMATS)}",
            )
        documents = [document for document in _read_file(path) if document.text.strip()]
        if not documents:
            raise DataError(f"{where} holds no text", fix="give a file with text in it")
        return tuple(documents), ()
    except PermissionError as error:
        raise ResourceError(
            f"no permission to read {error.filename or where}", fix="allow reading it (chmod u+r)"
        ) from None
    except OSError as error:
        raise ResourceError(
            f"{where} cannot be read: {error.strerror or error}", fix="check the disk and the name"
        ) from None


def _read_folder(folder: Path) -> tuple[tuple[Document, ...], tuple[str, ...]]:
    documents: list[Document] = []
    others: Counter[str] = Counter()
    blank = 0
    for path in sorted(folder.rglob("*")):
        if any(part.startswith(".") for part in path.relative_to(folder).parts):
            continue
        if not path.is_file():
            continue
        if path.suffix.lower() not in FORMATS:
            others[path.suffix.lower() or "no ending"] += 1
        else:
            for document in _read_file(path):
                if document.text.strip():
                    documents.append(document)
                else:
                    blank += 1
    if not documents:
        raise DataError(
            f"the folder {folder} holds no documents",
            fix=f"put files with text in it that end in {', '.join(FORMATS)}",
        )
    notes = []
    if others:
        kinds = ", ".join(f"{count:,} {ending}" for ending, count in sorted(others.items()))
        notes.append(f"{folder}: {others.total():,} files of other kinds left out ({kinds})")
    if blank:
        notes.append(f"{folder}: {blank:,} documents without text left out")
    return tuple(documents), tuple(notes)


def _missing(where: str, path: Path) -> DataError:
    names = [child.name for child in path.parent.iterdir()] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, names, n=1)
    return DataError(
        f"there is no file or folder {where}",
        fix=f"did you mean {near[0]}" if near else f"check the path (from {Path.cwd()})",
    )


def _read_file(path: Path) -> Iterator[Document]:
    if path.read_bytes().strip():
        yield from FORMATS[path.suffix.lower()](path)
    else:
        yield Document(str(path), "")


def _text(path: Path) -> str:
    """A whole text file, as UTF-8; refused where it holds bytes that no text has."""
    text: str = read_table(str(path), format="txt").records[0].values["text"]
    return text


def _plain(path: Path) -> Iterator[Document]:
    yield Document(str(path), _text(path))


def _markdown(path: Path) -> Iterator[Document]:
    text = _text(path)
    headings = markdown_headings(text)
    title = headings[0].title if headings and headings[0].level == 1 else ""
    yield Document(str(path), text, title, headings)


def _html(path: Path) -> Iterator[Document]:
    text, title, headings = html_text(_text(path))
    yield Document(str(path), text, title, headings)


def _pdf(path: Path) -> Iterator[Document]:
    text, title = pdf_text(path)
    yield Document(str(path), text, title)


def _records(path: Path) -> Iterator[Document]:
    """One document a record: the text of its text column, and its title where there is one."""
    table = read_table(str(path))
    column = next((name for name in TEXT_NAMES if name in table.columns), None)
    if column is None:
        raise DataError(
            f"{path} has no column with the text of documents (it has {listed(table.columns)})",
            fix=f"name it {TEXT_NAMES[0]} ({', '.join(TEXT_NAMES[1:])} are known, too)",
        )
    title = next((name for name in TITLE_NAMES if name in table.columns), None)
    for record in table.records:
        yield Document(
            record.source, _value(record, column), _value(record, title) if title else ""
        )


def _value(record: Record, column: str) -> str:
    value = record.values.get(column)
    return "" if value is None else as_text(value, column, record)


FORMATS: dict[str, Callable[[Path], Iterator[Document]]] = {
    **dict.fromkeys((".txt", ".text", ".rst"), _plain),
    **dict.fromkeys((".md", ".markdown"), _markdown),
    **dict.fromkeys((".html", ".htm", ".xhtml"), _html),
    ".pdf": _pdf,
    **dict.fromkeys((".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet"), _records),
}
"""Ending → what reads the documents of such a file."""
