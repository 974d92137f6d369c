"""A file, a folder or a Hub id becomes raw records, each with the place where it was read.

Knows file formats, encodings and line numbers; knows nothing of what a record means (`shapes`).
"""

from __future__ import annotations

import codecs
import difflib
import glob
import gzip
import zlib
from collections.abc import Callable
from pathlib import Path

from fitune.data.datasets import HUB, read_hub, read_parquet, read_saved, saved_dataset
from fitune.data.json_records import read_json_text, read_jsonl_text
from fitune.data.separated import read_csv, read_tsv
from fitune.data.table import Record, Table, Text, expand
from fitune.errors import ConfigError, DataError, ResourceError

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
PLAIN = {**SUFFIXES, **dict.fromkeys((".txt", ".text", ".md", ".markdown", ".rst"), "txt")}
"""Where files of plain text are wanted, too."""


def read_table(
    where: str,
    *,
    format: str = "auto",
    encoding: str = "utf-8",
    download: bool = False,
    split: str = "train",
    plain: bool = False,
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
        plain: whether text files (`PLAIN`) are what they say, one record each; else the first line
            of a .txt file tells whether it holds rows.

    Raises:
        DataError: not there, not readable, broken or empty; says file, line and fix.
        ConfigError: a Hub id without permission to download, or an unknown encoding.
        ResourceError: no permission, or another refusal of the machine.
        MissingExtraError: `pyarrow` or `datasets` is not installed.
    """
    if where.startswith(HUB):
        return read_hub(where, download=download, split=split)
    if not where.strip() or "\0" in where:
        raise DataError(f"{where!r} is not the name of a data file", fix="name a file or folder")
    try:
        saved = saved_dataset(where)
        if saved is not None and format in ("auto", "dataset"):
            return read_saved(*saved, split=split)
        if format == "dataset":
            raise DataError(
                f"{where} is not a folder written by datasets.save_to_disk",
                fix="name such a folder, or set data.format: auto",
            )
        files = _files(where, format, plain)
        tables = [_read_file(path, format, encoding, plain) for path in files]
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


def _files(where: str, format: str, plain: bool) -> list[Path]:
    path = expand(where)
    if path.is_file():
        return [path]
    if path.is_dir():
        wanted = [
            child
            for child in sorted(path.iterdir())
            if child.is_file()
            and not child.name.startswith(".")
            and (
                format != "auto" or _known(child, plain) not in (None, *([] if plain else ["txt"]))
            )
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


def _known(path: Path, plain: bool) -> str | None:
    return (PLAIN if plain else SUFFIXES).get(_suffix(path))


def _suffix(path: Path) -> str:
    name = path.name.lower().removesuffix(".gz")
    return Path(name).suffix


def _endings() -> str:
    return ", ".join(SUFFIXES)


# --- reading one file ----------------------------------------------------------------------------


def _read_file(path: Path, format: str, encoding: str, plain: bool) -> Table:
    known = _known(path, plain) if format == "auto" else format
    if known is None:
        raise DataError(
            f"the format of {path} is not known from its ending {_suffix(path) or '(none)'!r}",
            fix=f"rename it to end in {_endings()}, or set data.format",
        )
    if known == "parquet":
        return read_parquet(path)
    text = _decode(_bytes(path), str(path), encoding)
    if not text.strip():
        raise DataError(f"{path} is empty", fix="name a file with at least one row")
    if (position := text.find("\0")) >= 0:
        line = text.count("\n", 0, position) + 1
        raise DataError(
            f"{path}:{line} holds a NUL character, which no text has",
            fix="remove it, or set data.encoding if the file is UTF-16",
        )
    if known == "txt" and format == "auto" and not plain:
        known = {"{": "jsonl", "[": "json"}.get(text.lstrip()[0], "csv")
    return READERS[known](Text(str(path), text, guess=format == "auto"))


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


def read_plain(file: Text) -> Table:
    """All of a text file as one record."""
    return Table((Record({"text": file.text}, file.name),))


READERS: dict[str, Callable[[Text], Table]] = {
    "txt": read_plain,
    "csv": read_csv,
    "tsv": read_tsv,
    "json": read_json_text,
    "jsonl": read_jsonl_text,
}
