"""Finished rungs on disk: read again, found by what they were made of, and taken over.

Knows the files of a rung's folder; knows nothing of how a key is made or a rung is run.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from fitune.approaches.base import Prediction, Shown
from fitune.errors import RunError
from fitune.ladder.rung import Rung
from fitune.runs import (
    Run,
    explain_damage,
    read_json,
    read_jsonl,
    replaced_folder,
    write_json,
)

KEY = "key.json"
"""In a rung's folder: the digest of everything that the rung depends on."""

REUSED = "re-used from "
"""How the note begins that tells of an earlier run."""

_LEFT_BEHIND = ("checkpoints", KEY, "rung.json", "judge.json")
"""What is another in another run: a judge compares a rung with the others of its run."""


def read_finished(run: Run, name: str) -> tuple[Rung, list[Prediction]]:
    """A rung that was finished before, and its answers to the test rows, in order.

    Raises:
        RunError: a file is missing or damaged.
    """
    return _read(run.rung(name))


def find(key: str, runs: Iterable[Path], rows: int) -> Path | None:
    """The folder of a finished rung made of the same, in the first of `runs` that has one; what is
    damaged, or has not answered so many rows, is passed over."""
    for run in runs:
        for record in sorted(run.glob(f"rungs/*/{KEY}")):
            try:
                found: object = read_json(record)["key"]
                if found == key and len(_read(record.parent)[1]) == rows:
                    return record.parent
            except (RunError, LookupError, TypeError):
                continue
    return None


def take_over(folder: Path, run: Run, name: str, key: str) -> tuple[Rung, list[Prediction]]:
    """Make an earlier run's rung one of this run, under another name where it has one; it is whole
    but for `rung.json`, as it is yet to be compared with the rung below it.

    Its files are linked where the disk allows: they are only ever replaced as a whole, so that
    neither run changes the other's.

    Raises:
        ResourceError: disk full, no permission.
    """
    rung, predictions = _read(folder)
    origin = folder.parent.parent
    with replaced_folder(run.rung(name)) as partial:
        for path in folder.iterdir():
            if path.name.startswith(".") or path.name in _LEFT_BEHIND:
                continue
            if path.is_dir():
                shutil.copytree(path, partial / path.name, copy_function=_link)
            else:
                _link(path, partial / path.name)
        write_json(partial / KEY, {"key": key})
    said = f"{REUSED}{origin}, where all it depends on was the same."
    notes = (said, *(note for note in rung.notes if not note.startswith(REUSED)))
    rung = replace(rung, name=name, against=None, comparison=None, notes=notes)
    return rung, predictions


def _read(folder: Path) -> tuple[Rung, list[Prediction]]:
    with explain_damage(folder / "rung.json"):
        rung = Rung.from_json(read_json(folder / "rung.json"))
    with explain_damage(folder / "predictions.jsonl"):
        return rung, [_prediction(line) for line in read_jsonl(folder / "predictions.jsonl")]


def _prediction(record: dict[str, Any]) -> Prediction:
    known = {name: value for name, value in record.items() if name != "key"}
    if known.get("scores") is not None:
        known["scores"] = tuple(known["scores"])
    if known.get("passages") is not None:
        known["passages"] = tuple(Shown(**shown) for shown in known["passages"])
    return Prediction(**known)


def _link(source: str | Path, target: str | Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or a file system without links
        shutil.copy2(source, target)
