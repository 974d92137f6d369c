"""A corpus in three parts: what language models learn from, stop by, and are scored on.

Knows texts and how they are divided; knows nothing of tokens or models.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from fitune.errors import ConfigError, DataError
from fitune.language_models.corpus import UNITS, read_texts

FEWEST = 10
"""Sequences of a corpus that is divided: of fewer, a tenth is none."""

ENOUGH = 20
"""A corpus of so many sections is read in sections where no unit is given."""


@dataclass(frozen=True)
class Corpus:
    """Texts, each of which is one sequence.

    Attributes:
        source: the file or folder, as the user wrote it.
        unit: a name of `corpus.UNITS`.
        train, validation, test: the texts.
    """

    source: str
    unit: str
    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]

    @property
    def separator(self) -> str:
        """What stood after each text."""
        return UNITS[self.unit]


def read_corpus(
    source: str | Path,
    *,
    unit: str = "auto",
    valid: str | float = 0.1,
    test: str | Path | None = None,
) -> Corpus:
    """Read a file or folder and divide it: training texts first, then validation, then test texts.

    Args:
        unit: `lines`, `sections`, `documents`, or `auto`: sections where there are some, else
            lines.
        valid: a file, or the share of the corpus.
        test: a file; None: as large a share of the corpus as `valid` is, or a tenth beside a file.

    Raises:
        ConfigError: a share that leaves nothing, or no such unit.
        DataError: a file is missing, empty or no text, or there are too few sequences.
    """
    path = Path(source).expanduser()
    unit = _unit(path) if unit == "auto" else unit
    share, given = _share(valid)
    texts = _read(path, unit)
    validation = None if given is None else _read(given, unit)
    tested = None if test is None else _read(Path(test).expanduser(), unit)
    parts = (validation is None) + (tested is None)
    if parts and len(texts) < FEWEST:
        raise DataError(
            f"'{source}' has {len(texts)} {unit}, and {FEWEST} are needed to take some of them for "
            "validation and test",
            fix="give more text, another --unit, or files for --valid and --test",
        )
    each = max(1, round(share * len(texts))) if parts else 0
    train, held_out = texts[: len(texts) - parts * each], texts[len(texts) - parts * each :]
    if validation is None:
        validation, held_out = held_out[:each], held_out[each:]
    return Corpus(str(source), unit, train, validation, held_out if tested is None else tested)


def _read(path: Path, unit: str) -> tuple[str, ...]:
    texts = tuple(read_texts(path, unit))
    if not texts:
        raise DataError(f"'{path}' holds no text", fix="give a file with text in it")
    return texts


def _unit(path: Path) -> str:
    sections = sum(1 for _ in islice(read_texts(path, "sections"), ENOUGH))
    return "sections" if sections == ENOUGH else "lines"


def _share(valid: str | float) -> tuple[float, Path | None]:
    """The share of validation texts, and the file they are in instead."""
    try:
        share = float(valid)
    except ValueError:
        return 0.1, Path(str(valid)).expanduser()
    if not 0 < share <= 0.4:
        raise ConfigError(
            f"valid is {valid}, and a share of the corpus is above 0 and at most 0.4",
            fix="set it to 0.1, or name a file",
        )
    return share, None
