"""Text files as sequences, one after the other, never all in memory.

Knows files and lines; knows nothing of tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fitune.errors import ConfigError, DataError, ResourceError

UNITS: dict[str, str] = {"lines": "\n", "sections": "\n\n", "documents": ""}
"""What a sequence is → what separates two: a line, lines up to an empty one, or a whole file."""

ENDINGS = (".txt", ".text", ".md", ".rst")


def read_texts(corpus: Path, unit: str = "lines") -> Iterator[str]:
    """The sequences of a text file, or of every text file under a folder in the order of names.

    Lines and sections that are white space only are left out.

    Raises:
        ConfigError: no such unit.
        DataError: not there, no text file in the folder, or not UTF-8.
        ResourceError: no permission.
    """
    if unit not in UNITS:
        raise ConfigError(f"there is no unit '{unit}'", fix=f"use {', '.join(UNITS)}")
    return _texts(_files(corpus), unit)


def _texts(files: list[Path], unit: str) -> Iterator[str]:
    for path in files:
        try:
            with path.open(encoding="utf-8", newline=None) as file:
                if unit == "documents":
                    text = file.read()
                    if text.strip():
                        yield text
                elif unit == "lines":
                    yield from (line.rstrip("\n") for line in file if line.strip())
                else:
                    yield from _sections(file)
        except UnicodeDecodeError as error:
            raise DataError(
                f"{path} is not UTF-8: byte 0x{error.object[error.start]:02x} cannot be decoded",
                fix="save it as UTF-8",
            ) from None
        except PermissionError:
            raise ResourceError(
                f"no permission to read {path}", fix="allow reading it (chmod u+r)"
            ) from None


def _sections(lines: Iterator[str]) -> Iterator[str]:
    kept: list[str] = []
    for line in lines:
        if line.strip():
            kept.append(line)
        elif kept:
            yield "".join(kept).rstrip("\n")
            kept = []
    if kept:
        yield "".join(kept).rstrip("\n")


def _files(corpus: Path) -> list[Path]:
    if corpus.is_file():
        return [corpus]
    if corpus.is_dir():
        found = [path for path in sorted(corpus.rglob("*")) if path.suffix.lower() in ENDINGS]
        if files := [path for path in found if path.is_file()]:
            return files
        raise DataError(
            f"the folder {corpus} holds no text files",
            fix=f"put files in it that end in {', '.join(ENDINGS)}, or name one file",
        )
    raise DataError(f"there is no file {corpus}", fix=f"check the path (from {Path.cwd()})")
