"""Records as they stand in a file, before anyone knows what they mean.

Knows columns and where each record was read; knows nothing of formats, tasks or labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any


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
class Text:
    """The text of one file; `guess` says whether its format may be second-guessed."""

    name: str
    text: str
    guess: bool


def expand(where: str) -> Path:
    """`where` as a path, with ``~`` replaced where there is such a user."""
    try:
        return Path(where).expanduser()
    except RuntimeError:  # ~nobody: there is no such user
        return Path(where)
