"""Reads what a run folder holds, finished or not.

Knows file names and JSON; knows nothing of HTML. Only `task.json` must be there: an interrupted
run has a report too, of what it got to. A last line that was cut off in a `.jsonl` is left out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from fitune.approaches.base import Shown
from fitune.errors import RunError
from fitune.ladder.asked import USUAL_REQUESTS
from fitune.ladder.budget import Skipped
from fitune.ladder.curve import Curve
from fitune.ladder.diagnose import Diagnosis
from fitune.ladder.price import Costs, costs
from fitune.ladder.rung import Rung

Record = dict[str, Any]
T = TypeVar("T")

TOP = 3
"""So many of the highest label probabilities are kept for each answer."""


@dataclass(frozen=True)
class Question:
    """A test row: what was asked, what was wanted, and the turns before, as (role, text)."""

    text: str
    answer: str
    history: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Answer:
    """One rung's answer to one row.

    Attributes:
        top: the most probable labels with their probability, highest first; empty without scores.
        scores: of every label; empty without.
        passages: what was looked up and shown to the model, best first.
    """

    text: str
    stopped: bool | None = None
    top: tuple[tuple[str, float], ...] = ()
    scores: tuple[float, ...] = ()
    passages: tuple[Shown, ...] = ()


@dataclass(frozen=True)
class RungFolder:
    """One rung as far as it got: `figures` is None until it answered all test rows, and `answers`
    is empty unless there is one for each test row."""

    name: str
    figures: Rung | None = None
    options: Record = field(default_factory=dict)
    records: tuple[Record, ...] = ()
    answers: tuple[Answer, ...] = ()


@dataclass(frozen=True)
class RunFolder:
    """Everything the report shows, as read."""

    task: Record
    environment: Record
    data: Record
    rows: tuple[Question, ...]
    rungs: tuple[RungFolder, ...]
    status: str
    choice: str | None
    sentences: tuple[str, ...]
    diagnoses: tuple[Diagnosis, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    curve: Curve | None = None
    requests_per_month: int = USUAL_REQUESTS
    price_per_hour: float | None = None

    @property
    def costs(self) -> Costs:
        return costs(self.finished, self.requests_per_month, self.price_per_hour)

    @property
    def finished(self) -> list[Rung]:
        return [rung.figures for rung in self.rungs if rung.figures is not None]

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(self.data.get("labels") or ())

    @property
    def metric(self) -> str:
        named = self.finished[0].metric if self.finished else self.task.get("metric")
        return str(named or "score")

    @property
    def focus(self) -> RungFolder | None:
        """The rung to look at closely: the recommended one, else the best that has answers."""
        answered = [(r.figures.value, r) for r in self.rungs if r.answers and r.figures]
        chosen = [rung for _, rung in answered if rung.name == self.choice]
        best = [rung for _, rung in sorted(answered, key=lambda pair: -pair[0])]
        return next(iter(chosen or best), None)


def gather(run: Path) -> RunFolder:
    """Read a run folder.

    Raises:
        RunError: `run` is not a run folder, or one of its files is damaged.
    """
    if not (run / "task.json").is_file():
        raise RunError(
            f"{run} is not a run folder: it has no task.json",
            fix="give the folder that a ladder or tune run printed, such as runs/task-1",
        )
    task, data, ladder = (_json(run / f"{name}.json") for name in ("task", "data", "ladder"))
    rows = tuple(_lines(run / "rows.test.jsonl", _question))
    labels = tuple(data.get("labels") or ())
    recommendation = ladder.get("recommendation") or {}
    drawn = run / "curve" / "curve.json"
    kept = _json(drawn)
    return RunFolder(
        task=task,
        environment=_json(run / "environment.json"),
        data=data,
        rows=rows,
        rungs=tuple(
            _rung(run / "rungs" / name, len(rows), labels)
            for name in _rung_names(run, ladder.get("rungs") or ())
        ),
        status=str(ladder.get("status") or "running"),
        choice=recommendation.get("choice"),
        sentences=tuple(recommendation.get("sentences") or ()),
        diagnoses=_made(run / "ladder.json", ladder.get("diagnoses"), Diagnosis.from_json),
        skipped=_made(run / "ladder.json", ladder.get("skipped"), lambda said: Skipped(**said)),
        curve=next(iter(_made(drawn, [kept] if kept else (), Curve.from_json)), None),
        requests_per_month=int(ladder.get("requests_per_month") or USUAL_REQUESTS),
        price_per_hour=ladder.get("price_per_hour"),
    )


def _made(
    path: Path, records: Sequence[Record] | None, make: Callable[[Record], T]
) -> tuple[T, ...]:
    """What `make` makes of each record of the file `path`."""
    try:
        return tuple(make(record) for record in records or ())
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _damaged(path, str(error)) from error


def _rung_names(run: Path, listed: Sequence[str]) -> list[str]:
    """In the ladder's order; folders that it does not list come last, by name."""
    folder = run / "rungs"
    there = sorted(p.name for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []
    return [*(n for n in listed if n in there), *(n for n in there if n not in listed)]


def _rung(folder: Path, rows: int, labels: tuple[str, ...]) -> RungFolder:
    figures = _json(folder / "rung.json")
    answers = tuple(_lines(folder / "predictions.jsonl", lambda line: _answer(line, labels)))
    try:
        rung = Rung.from_json(figures) if figures else None
    except (KeyError, TypeError) as error:
        raise _damaged(folder / "rung.json", str(error)) from error
    return RungFolder(
        name=folder.name,
        figures=rung,
        options=_json(folder / "options.json"),
        records=tuple(_lines(folder / "metrics.jsonl", dict)),
        answers=answers if len(answers) == rows else (),
    )


def _question(record: Record) -> Question:
    history = tuple((turn["role"], turn["text"]) for turn in record.get("history") or ())
    return Question(record["text"], record.get("answer") or "", history)


def _answer(record: Record, labels: tuple[str, ...]) -> Answer:
    scores = record.get("scores") or ()
    top: tuple[tuple[str, float], ...] = ()
    if len(scores) == len(labels):
        order = sorted(range(len(scores)), key=lambda i: -scores[i])[:TOP]
        top = tuple((labels[i], float(scores[i])) for i in order)
    shown = tuple(Shown(**passage) for passage in record.get("passages") or ())
    return Answer(record["text"], record.get("stopped"), top, tuple(scores), shown)


def _json(path: Path) -> Record:
    """The object in a JSON file; empty when there is no such file."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _damaged(path, str(error)) from error
    if not isinstance(value, dict):
        raise _damaged(path, "it does not hold an object")
    return value


def _lines(path: Path, read: Callable[[Record], T]) -> list[T]:
    """What `read` makes of each object of a JSONL file; empty when there is no such file."""
    if not path.is_file():
        return []
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").rstrip().split("\n")
    except OSError as error:
        raise _damaged(path, str(error)) from error
    made = []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
        except ValueError as error:
            if number == len(lines):  # the process ended while it wrote this line
                break
            raise _damaged(path, f"line {number}: {error}") from error
        try:
            made.append(read(record))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise _damaged(path, f"line {number} lacks {error}") from error
    return made


def _damaged(path: Path, why: str) -> RunError:
    return RunError(f"{path} cannot be read: {why}", fix="restore the file, or run the task again")
