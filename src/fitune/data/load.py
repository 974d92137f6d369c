"""The rows a task file asks for: read, shaped, split, and what happened on the way.

Knows the `data` section of a task file and ties readers, shapes, samples and splits together;
knows nothing of models.
"""

from __future__ import annotations

import difflib

from fitune.config import Data
from fitune.data.documents import read_documents
from fitune.data.readers import read_table
from fitune.data.rows import Row, Rows, Splits
from fitune.data.samples import SAMPLES
from fitune.data.shapes import to_rows
from fitune.data.splits import split_rows
from fitune.errors import ConfigError

SAMPLE = "sample:"


def load_splits(data: Data, kind: str, *, download: bool = False) -> Splits:
    """Read the task's rows and split them.

    Args:
        data: the task file's `data`.
        kind: the task's.
        download: whether ``hub:`` ids may be fetched.

    Returns:
        The splits; `notes` say in order what was detected, left out and capped.

    Raises:
        DataError, ConfigError, ResourceError, MissingExtraError: see `readers.read_table`,
        `shapes.to_rows` and `splits.split_rows`.
    """
    given: dict[str, Rows | None] = {}
    notes: list[str] = []
    for name in ("train", "validation", "test"):
        where = getattr(data, name)
        given[name] = None
        if where is not None:
            given[name], said = read_rows(where, data, kind, split=name, download=download)
            notes += [f"data.{name}: {sentence}" for sentence in said]
    train = given["train"]
    assert train is not None  # the task file requires it
    splits = split_rows(
        train,
        given["validation"],
        given["test"],
        kind=kind,
        validation_fraction=data.validation_fraction,
        test_fraction=data.test_fraction,
        seed=data.split_seed,
        max_rows=data.max_rows,
    )
    return Splits(splits.train, splits.validation, splits.test, (*notes, *splits.notes))


def load_rows(
    where: str,
    data: Data,
    kind: str,
    *,
    download: bool = False,
    answers: bool = True,
) -> Rows:
    """Read one set of rows with the format, shape, columns and encoding of `data`.

    Args:
        where: as `data.train`.
        answers: False allows rows without an answer (`Row.answer` is None).

    Raises:
        as `load_splits`.
    """
    return read_rows(where, data, kind, split="test", download=download, answers=answers)[0]


def read_rows(
    where: str,
    data: Data,
    kind: str,
    *,
    split: str = "train",
    download: bool = False,
    answers: bool = True,
) -> tuple[Rows, tuple[str, ...]]:
    """As `load_rows`, with the notes; `split` is taken of a dataset that has several."""
    if where.startswith(SAMPLE):
        return _sample(where, data, kind)
    if kind == "language-model":
        carved = split == "train" and (data.validation is None or data.test is None)
        return read_documents(where, data, split=split, download=download, carved=carved)
    table = read_table(
        where, format=data.format, encoding=data.encoding, download=download, split=split
    )
    rows, notes = to_rows(
        table, kind=kind, shape=data.shape, input=data.input, output=data.output, answers=answers
    )
    return rows, (*table.notes, *(f"{where} {note}" for note in notes))


def _sample(where: str, data: Data, kind: str) -> tuple[Rows, tuple[str, ...]]:
    name = where.removeprefix(SAMPLE)
    if name not in SAMPLES:
        near = difflib.get_close_matches(name, SAMPLES, n=1)
        raise ConfigError(
            f"there is no sample {name!r}",
            fix=f"did you mean {SAMPLE}{near[0]}" if near else f"use {SAMPLE}{', '.join(SAMPLES)}",
        )
    if data.input or data.output:
        raise ConfigError(f"data.input and data.output do not apply to {where}", fix="remove them")
    rows = SAMPLES[name]("classify" if kind == "classify" else "generate")
    if kind == "language-model":  # what would be asked about is read
        rows = Rows(tuple(Row(row.text, source=row.source) for row in rows))
    labels = f" and {len(rows.labels)} labels" if kind == "classify" else ""
    return rows, (f"{where} has {len(rows):,} rows{labels} on this Python",)
