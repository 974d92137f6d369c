"""A file, a folder or a Hub id becomes raw records, each with the place where it was read.

Knows file formats, encodings and line numbers; knows nothing of what a record means (`shapes`).
"""

from __future__ import annotations

import codecs
import csv
import difflib
import glob
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fitune.errors import ConfigError, DataError, MissingExtraError, ResourceError

SUFFIXES: dict[str, str] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".txt": "txt",  # decided by its first line
}
HUB = "hub:"


@dataclass(frozen=True, slots=True)
class Record:
    """One record as it stands in the file: column → value, and ``"file:line"``.

    For formats without lines (Parquet, saved datasets) the number is the row, counted from 1.
    """

    values: dict[str, Any]
    source: str


@dataclass(frozen=True)
class Table:
    """Records in file order, and what was guessed while reading them."""

    records: tuple[Record, ...]
    notes: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column of any record, in the order of first appearance."""
        return tuple(dict.fromkeys(name for r in self.records for name in r.values))


@dataclass(frozen=True)
class _Text:
    """The text of one file; `guess` says whether its format may be second-guessed."""

    name: str
    text: str
    guess: bool


def read_table(
    where: str,
    *,
    format: str = "auto",
    encoding: str = "utf-8",
    download: bool = False,
    split: str = "train",
) -> Table:
    """Read every record of `where`.

    Args:
        where: a file (``.gz`` allowed), a glob pattern, a folder of files, a folder written by
            ``datasets.save_to_disk`` (``folder:split`` picks one of several splits), or
            ``hub:ORG/NAME[/CONFIG][:split]``.
        format: ``auto`` (from the suffix) or a key of `READERS` or ``parquet`` / ``dataset``.
        encoding: of text files.
        download: allow ``hub:`` ids.
        split: which split of a dataset with several to take when `where` does not say.

    Raises:
        DataError: not there, not readable, broken or empty; says file, line and fix.
        ConfigError: a Hub id without permission to download, or an unknown encoding.
        ResourceError: no permission, or another refusal of the machine.
        MissingExtraError: `pyarrow` or `datasets` is not installed.
    """
    if where.startswith(HUB):
        return _read_hub(where, download=download, split=split)
    if not where.strip() or "\0" in where:
        raise DataError(f"{where!r} is not the name of a data file", fix="name a file or folder")
    try:
        saved = _saved_dataset(where)
        if saved is not None and format in ("auto", "dataset"):
            return _read_saved(*saved, split=split)
        if format == "dataset":
            raise DataError(
                f"{where} is not a folder written by datasets.save_to_disk",
                fix="name such a folder, or set data.format: auto",
            )
        files = _files(where, format)
        tables = [_read_file(path, format, encoding) for path in files]
    except PermissionError as error:
        raise ResourceError(
            f"no permission to read {error.filename or where}",
            fix="allow reading it (chmod u+r), or copy the file to a folder of yours",
        ) from None
    except OSError as error:
        raise ResourceError(
            f"{where} cannot be read: {error.strerror or error}", fix="check the disk and the name"
        ) from None
    records = tuple(record for table in tables for record in table.records)
    if not records:
        raise DataError(f"{where} holds no rows", fix="name a file with at least one row")
    return Table(records, tuple(note for table in tables for note in table.notes))


# --- finding files -------------------------------------------------------------------------------


def _expand(where: str) -> Path:
    try:
        return Path(where).expanduser()
    except RuntimeError:  # ~nobody: there is no such user
        return Path(where)


def _files(where: str, format: str) -> list[Path]:
    path = _expand(where)
    if path.is_file():
        return [path]
    if path.is_dir():
        wanted = [
            child
            for child in sorted(path.iterdir())
            if child.is_file()
            and not child.name.startswith(".")
            and (format != "auto" or SUFFIXES.get(_suffix(child), "txt") != "txt")
        ]
        if not wanted:
            raise DataError(
                f"the folder {where} holds no data files",
                fix=f"put files in it that end in {_endings()}, or name one file",
            )
        return wanted
    if path.exists():
        raise DataError(f"{where} is not a regular file", fix="name a file or a folder")
    if glob.has_magic(where):
        root = Path(path.anchor)
        found = sorted(root.glob(str(path.relative_to(root))))
        if files := [name for name in found if name.is_file()]:
            return files
        raise DataError(f"no file matches {where}", fix="check the pattern and the folder")
    raise _missing(where, path)


def _missing(where: str, path: Path) -> DataError:
    folder = path.parent
    if not folder.is_dir():
        return DataError(
            f"there is no file {where}: the folder {folder} does not exist",
            fix=f"check the path; relative paths start at {Path.cwd()}",
        )
    names = [child.name for child in folder.iterdir()]
    near = difflib.get_close_matches(path.name, names, n=3, cutoff=0.6)
    fix = f"did you mean {' or '.join(near)}?" if near else f"check the path (from {Path.cwd()})"
    return DataError(f"there is no file {where}", fix=fix.rstrip("?"))


def _suffix(path: Path) -> str:
    name = path.name.lower().removesuffix(".gz")
    return Path(name).suffix


def _endings() -> str:
    return ", ".join(SUFFIXES)


# --- reading one file ----------------------------------------------------------------------------


def _read_file(path: Path, format: str, encoding: str) -> Table:
    known = SUFFIXES.get(_suffix(path)) if format == "auto" else format
    if known is None:
        raise DataError(
            f"the format of {path} is not known from its ending {_suffix(path) or '(none)'!r}",
            fix=f"rename it to end in {_endings()}, or set data.format",
        )
    if known == "parquet":
        return _read_parquet(path)
    text = _decode(_bytes(path), str(path), encoding)
    if not text.strip():
        raise DataError(f"{path} is empty", fix="name a file with at least one row")
    if (position := text.find("\0")) >= 0:
        line = text.count("\n", 0, position) + 1
        raise DataError(
            f"{path}:{line} holds a NUL character, which no text has",
            fix="remove it, or set data.encoding if the file is UTF-16",
        )
    if known == "txt":
        known = {"{": "jsonl", "[": "json"}.get(text.lstrip()[0], "csv")
    return READERS[known](_Text(str(path), text, guess=format == "auto"))


def _bytes(path: Path) -> bytes:
    data = path.read_bytes()
    if path.name.lower().endswith(".gz"):
        try:
            return gzip.decompress(data)
        except (OSError, EOFError, zlib.error):
            raise DataError(
                f"{path} is not a whole gzip file", fix="fetch it again, or drop the ending .gz"
            ) from None
    return data


def _decode(data: bytes, name: str, encoding: str) -> str:
    try:
        codecs.lookup(encoding)
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        before = data[: error.start]
        line = before.count(b"\n") + 1
        column = error.start - (before.rfind(b"\n") + 1) + 1
        raise DataError(
            f"{name}:{line} is not {encoding}: byte {error.start} (0x{data[error.start]:02x}, "
            f"byte {column} of its line) cannot be decoded",
            fix=f"set data.encoding: {_likely_encoding(data)}, or save the file as UTF-8",
        ) from None
    except UnicodeError:
        raise DataError(
            f"{name} cannot be decoded as {encoding}", fix="set data.encoding to what it is"
        ) from None
    except (LookupError, ValueError):
        near = difflib.get_close_matches(encoding, ("utf-8", "utf-16", "latin-1", "cp1252"), n=1)
        raise ConfigError(
            f"data.encoding {encoding!r} is not a text encoding Python knows",
            fix=f"use {near[0] if near else 'utf-8, utf-16, latin-1 or cp1252'}",
        ) from None
    return text.removeprefix("\ufeff")


def _likely_encoding(data: bytes) -> str:
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    for encoding in ("utf-8", "cp1252"):
        try:
            data.decode(encoding)
        except UnicodeDecodeError:
            continue
        return encoding
    return "latin-1"  # gives every byte a character, so it comes last


# --- CSV and TSV ---------------------------------------------------------------------------------


def _read_csv(file: _Text) -> Table:
    delimiter, notes = ",", tuple[str, ...]()
    if file.guess:
        header = file.text.lstrip("\r\n").splitlines()[0]
        # Only a header that is no table with commas may be one with something else.
        others = [mark for mark in (";", "\t", "|") if mark in header]
        if "," not in header and others:
            delimiter = max(others, key=header.count)
            notes = (f"{file.name}: columns are separated by {delimiter!r}, not by commas",)
    return _separated(file, delimiter, notes)


def _read_tsv(file: _Text) -> Table:
    return _separated(file, "\t", ())


def _separated(file: _Text, delimiter: str, notes: tuple[str, ...]) -> Table:
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


def _csv_rows(file: _Text, delimiter: str) -> Iterator[tuple[int, list[str]]]:
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


# --- JSON ----------------------------------------------------------------------------------------


class _Broken(Exception):
    """(position in the text, what is wrong there)."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        seen: set[str] = set()
        key = next(k for k, _ in pairs if k in seen or seen.add(k))  # type: ignore[func-returns-value]
        raise _Broken(None, f"the key {key!r} appears twice in one object")
    return values


_decoder = json.JSONDecoder(object_pairs_hook=_object)
_BLANK = " \t\r\n"


def _skip(text: str, position: int) -> int:
    while position < len(text) and text[position] in _BLANK:
        position += 1
    return position


def _value(text: str, position: int) -> tuple[Any, int]:
    """The JSON value at `position`, and where it ends."""
    try:
        return _decoder.raw_decode(text, position)
    except json.JSONDecodeError as error:
        raise _Broken(error.pos, error.msg) from None
    except _Broken as error:
        raise _Broken(position, error.args[1]) from None
    except RecursionError:
        raise _Broken(position, "objects are nested too deeply") from None
    except ValueError as error:  # e.g. an integer of more than 4,300 digits
        raise _Broken(position, str(error).split(";")[0]) from None


def _members(text: str, position: int) -> tuple[list[tuple[str | None, Any, int]], int]:
    """(key, value, start of the value) of each member of the list or object that begins at
    `position` (the key is None in a list), and where it ends. The json module keeps no positions,
    without which an error could not name its line."""
    close = {"[": "]", "{": "}"}[text[position]]
    members: list[tuple[str | None, Any, int]] = []
    keys: set[str] = set()
    position = _skip(text, position + 1)
    if text[position : position + 1] == close:
        return members, position + 1
    while True:
        key = None
        if close == "}":
            begin = position
            key, position = _value(text, position)
            position = _skip(text, position)
            if not isinstance(key, str) or text[position : position + 1] != ":":
                raise _Broken(begin, "expecting a name in quotation marks and ':'")
            if key in keys:
                raise _Broken(begin, f"the key {key!r} appears twice in one object")
            keys.add(key)
            position = _skip(text, position + 1)
        value, end = _value(text, position)
        members.append((key, value, position))
        position = _skip(text, end)
        mark = text[position : position + 1]
        if mark == close:
            return members, position + 1
        if mark != ",":
            raise _Broken(position, f"expecting ',' or '{close}'")
        position = _skip(text, position + 1)


def _read_json(file: _Text) -> Table:
    text = file.text
    begin = _skip(text, 0)
    try:
        if text[begin] not in "[{":
            raise _Broken(begin, "expecting a list of objects")
        members, end = _members(text, begin)
        if (rest := _skip(text, end)) < len(text):
            if text[begin] == "{" and text[rest] == "{" and "\n" in text[end:rest]:
                return _lines_in_json(file)
            raise _Broken(rest, "expecting the end of the file")
        notes: tuple[str, ...] = ()
        if text[begin] == "{":
            lists = [(key, start) for key, value, start in members if _is_table(value)]
            if len(lists) != 1:
                raise _not_a_table(file.name, members, [str(key) for key, _ in lists])
            key, start = lists[0]
            members, _ = _members(text, start)
            notes = (f"{file.name}: rows are the list under {key!r}",)
    except _Broken as error:
        raise _broken(file, *error.args) from None
    return Table(_records(file, members), notes)


def _records(file: _Text, members: list[tuple[str | None, Any, int]]) -> tuple[Record, ...]:
    """Lines are counted once, from element to element: counting from the top for each is slow."""
    records, line, seen = [], 1, 0
    for _, value, start in members:
        line, seen = line + file.text.count("\n", seen, start), start
        records.append(Record(_as_object(value, f"{file.name}:{line}"), f"{file.name}:{line}"))
    if not records:
        raise DataError(f"{file.name} is an empty list", fix="name a file with at least one row")
    return tuple(records)


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, dict) for v in value)


def _not_a_table(name: str, members: list[Any], lists: list[str]) -> DataError:
    if lists:
        return DataError(
            f"{name} holds {len(lists)} lists of objects ({', '.join(lists)}) and not one",
            fix="save the one you want as a file of its own",
        )
    keys = ", ".join(str(key) for key, _, _ in members[:8]) or "none"
    return DataError(
        f"{name} is one object without a list of objects (its keys: {keys})",
        fix="write a list with one object a row (pandas: to_json(orient='records'))",
    )


def _lines_in_json(file: _Text) -> Table:
    if not file.guess:
        raise DataError(
            f"{file.name} holds one object a line and not one list", fix="set data.format: jsonl"
        )
    table = _read_jsonl(file)
    return Table(table.records, (f"{file.name}: read as JSONL, one object a line",))


def _read_jsonl(file: _Text) -> Table:
    records = []
    begin = 0
    # Not splitlines(): a JSON string may hold U+2028 and its like as they are.
    for number, line in enumerate(file.text.split("\n"), start=1):
        if line.strip(_BLANK):
            try:
                value, end = _value(line, _skip(line, 0))
                if (rest := _skip(line, end)) < len(line):
                    raise _Broken(rest, "expecting the end of the line")
            except _Broken as error:
                raise _broken(file, begin + error.args[0], error.args[1]) from None
            records.append(
                Record(_as_object(value, f"{file.name}:{number}"), f"{file.name}:{number}")
            )
        begin += len(line) + 1
    return Table(tuple(records))


def _broken(file: _Text, position: int, problem: str) -> DataError:
    line = file.text.count("\n", 0, position) + 1
    column = position - (file.text.rfind("\n", 0, position) + 1) + 1
    problem = problem[:1].lower() + problem[1:]
    return DataError(
        f"{file.name}:{line} is not valid JSON at column {column}: {problem}",
        fix="mend this line, or write the file with a JSON library",
    )


def _as_object(value: Any, source: str) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    raise DataError(
        f"{source} is {_kind(value)} and not an object with named columns",
        fix='write each row as {"column": value, ...}',
    )


def _kind(value: Any) -> str:
    names = {list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


READERS: dict[str, Callable[[_Text], Table]] = {
    "csv": _read_csv,
    "tsv": _read_tsv,
    "json": _read_json,
    "jsonl": _read_jsonl,
}


# --- Parquet and Hugging Face datasets -----------------------------------------------------------


def _read_parquet(path: Path) -> Table:
    try:
        import pyarrow as arrow
        from pyarrow import parquet
    except ImportError:
        raise MissingExtraError("pyarrow", extra="data", purpose="reading Parquet files") from None
    try:
        with path.open("rb") as file:
            table = parquet.read_table(file)
        rows = table.to_pylist()
        names = _class_names(table.schema.metadata or {})
    except (arrow.ArrowException, ValueError, OverflowError) as error:
        raise DataError(
            f"{path} is not a readable Parquet file ({_first_line(error)})", fix="write it again"
        ) from None
    return _numbered(rows, str(path), names)


def _class_names(metadata: dict[bytes, bytes]) -> dict[str, list[str]]:
    """Names of class labels, which `datasets` keeps beside the schema of its Parquet files."""
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError):
        return {}
    return {
        column: feature["names"]
        for column, feature in features.items()
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
    }


def _numbered(rows: list[dict[str, Any]], name: str, classes: dict[str, list[str]]) -> Table:
    records = []
    for number, row in enumerate(rows, start=1):
        for column, names in classes.items():
            index = row.get(column)
            if isinstance(index, int):  # -1 means that the row has no label
                row[column] = names[index] if 0 <= index < len(names) else None
        records.append(Record(row, f"{name}:{number}"))
    return Table(tuple(records))


def _saved_dataset(where: str) -> tuple[Path, str | None] | None:
    """The folder and the split asked for, if `where` is a folder that `datasets` saved."""
    folder, _, split = where.rpartition(":")
    for path, part in ((_expand(where), None), (_expand(folder), split)):
        if any((path / name).is_file() for name in ("state.json", "dataset_dict.json")):
            return path, part
    return None


def _datasets(purpose: str) -> Any:
    try:
        import datasets
    except ImportError:
        raise MissingExtraError("datasets", extra="data", purpose=purpose) from None
    return datasets


def _read_saved(path: Path, part: str | None, *, split: str) -> Table:
    datasets = _datasets("reading a saved dataset folder")
    try:
        loaded = datasets.load_from_disk(str(path))
    except PermissionError:
        raise
    except Exception as error:  # the library raises whatever its file readers raise
        raise DataError(
            f"{path} is not a whole saved dataset ({_first_line(error)})",
            fix="save it again with datasets.save_to_disk",
        ) from None
    return _from_datasets(loaded, str(path), part, split)


def _read_hub(where: str, *, download: bool, split: str) -> Table:
    if not download:
        raise ConfigError(
            f"{where} would be fetched from the Hugging Face Hub, and downloads are not allowed",
            fix="set download: true in the task file, or name a local file",
        )
    name, _, part = where.removeprefix(HUB).partition(":")
    pieces = name.split("/")
    if not 1 <= len(pieces) <= 3 or not all(pieces):
        raise ConfigError(
            f"{where} is not the id of a dataset", fix="write hub:ORG/NAME or hub:ORG/NAME:SPLIT"
        )
    datasets = _datasets("reading a dataset from the Hub")
    try:
        loaded = datasets.load_dataset("/".join(pieces[:2]), *pieces[2:])
    except Exception as error:  # no connection, no such id, no permission: a type for each
        raise DataError(
            f"{where} could not be fetched ({_first_line(error)})",
            fix="check the name, the connection and your login, or name a local file",
        ) from None
    return _from_datasets(loaded, HUB + name, part or None, split)


def _from_datasets(loaded: Any, name: str, part: str | None, split: str) -> Table:
    notes: tuple[str, ...] = ()
    if hasattr(loaded, "keys"):  # several splits
        have = list(loaded)
        wanted = part or (split if split in have or len(have) != 1 else have[0])
        if wanted not in have:
            raise DataError(
                f"{name} has no split {wanted!r} (it has {', '.join(have) or 'none'})",
                fix=f"write {name}:SPLIT with one of its splits",
            )
        if part is None and len(have) > 1:
            notes = (f"{name}: the split {wanted!r} of {', '.join(have)}",)
        loaded, name = loaded[wanted], f"{name}:{wanted}"
    elif part is not None and part != str(loaded.split):
        raise DataError(
            f"{name} is a single split ({loaded.split}), not {part!r}", fix=f"write {name}"
        )
    # Pictures and sounds are not text, and decoding them needs packages of their own.
    media = [c for c, f in loaded.features.items() if type(f).__name__ in _MEDIA]
    loaded = loaded.remove_columns(media).with_format(None)
    classes = {c: f.names for c, f in loaded.features.items() if type(f).__name__ == "ClassLabel"}
    table = _numbered(loaded.to_list(), name, classes)
    return Table(table.records, notes)


_MEDIA = ("Image", "Audio", "Video", "Pdf")


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
