"""CSV and TSV: text of separated values → records.

Knows separators and quotes; knows nothing of files' encodings or of what columns mean.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

from fitune.data.table import Record, Table, Text
from fitune.errors import DataError


def read_csv(file: Text) -> Table:
    delimiter, notes = ",", tuple[str, ...]()
    if file.guess:
        header = file.text.lstrip("\r\n").splitlines()[0]
        # Only a header that is no table with commas may be one with something else.
        others = [mark for mark in (";", "\t", "|") if mark in header]
        if "," not in header and others:
            delimiter = max(others, key=header.count)
            notes = (f"{file.name}: columns are separated by {delimiter!r}, not by commas",)
    return _separated(file, delimiter, notes)


def read_tsv(file: Text) -> Table:
    return _separated(file, "\t", ())


def _separated(file: Text, delimiter: str, notes: tuple[str, ...]) -> Table:
    rows = _csv_rows(file, delimiter)
    line, header = next(rows)
    names = [name for name in header if name]
    if not names:
        raise DataError(
            f"{file.name}:{line} has no column names", fix="name the columns in the first line"
        )
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(
            f"{file.name}:{line} names the column {twice[0]!r} twice",
            fix="give every column its own name",
        )
    if len(names) < len(header):
        notes += (f"{file.name}: {len(header) - len(names)} columns without a name are left out",)
    records = []
    for line, fields in rows:
        if len(fields) != len(header):
            raise DataError(
                f"{file.name}:{line} has {len(fields)} fields where the header has {len(header)}",
                fix='put texts that contain the separator or a line break between "quotes"',
            )
        values = {name: field for name, field in zip(header, fields, strict=True) if name}
        records.append(Record(values, f"{file.name}:{line}"))
    if not records:
        raise DataError(
            f"{file.name} has a header line and no rows", fix="name a file with at least one row"
        )
    return Table(tuple(records), notes)


def _csv_rows(file: Text, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """(line on which the row begins, its fields); blank lines are passed over."""
    reader = csv.reader(io.StringIO(file.text, newline=""), delimiter=delimiter, strict=True)
    # A field may be as long as the file; the module's own limit (131,072) would refuse long texts.
    limit = csv.field_size_limit(max(len(file.text), 131_072))
    begin = 1
    try:
        while True:
            begin = reader.line_num + 1
            try:
                fields = next(reader)
            except StopIteration:
                return
            if fields:
                yield begin, fields
    except csv.Error as error:
        problem = str(error)
        if "unexpected end of data" in problem:
            problem = "a quotation mark opened in this row is never closed"
        raise DataError(
            f"{file.name}:{begin} is not valid CSV: {problem}",
            fix='write a quotation mark inside a quoted text twice ("")',
        ) from None
    finally:
        csv.field_size_limit(limit)
