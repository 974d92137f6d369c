"""Runs approaches one after the other on the same test rows, and keeps what each showed.

Knows approaches by their interface, rows and run folders; knows nothing of what an approach does.
Every finished rung is on disk before the next begins, so an interrupted ladder goes on where it
stopped.
"""

from __future__ import annotations

import gc
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Protocol

from fitune.approaches.base import Approach, Prediction, Progress, Work
from fitune.data.rows import Row, Rows, Splits
from fitune.data.splits import quotas
from fitune.errors import FituneError, Interrupted
from fitune.evaluation.metrics import METRICS, Metric
from fitune.evaluation.significance import compare, interval
from fitune.hardware import PeakMemory
from fitune.ladder.recommend import Recommendation, against_best, recommend
from fitune.ladder.rung import Rung
from fitune.runs import (
    Run,
    explain_damage,
    read_jsonl,
    replaced_folder,
    write_json,
    write_jsonl,
)


class Watching(Protocol):
    """Who is told what happens."""

    def progress(self, label: str, done: int, total: int) -> None: ...
    def notice(self, text: str) -> None: ...
    def rung(self, rung: Rung) -> None: ...


@dataclass(frozen=True)
class Entry:
    """One approach to try.

    Attributes:
        name: unique within the ladder.
        use, model, method: as in `rung.Rung`.
        max_train_rows: learn from this many training rows at most.
        make: builds the approach from its work; loads no weights.
    """

    name: str
    use: str
    model: str | None
    method: str | None
    max_train_rows: int | None
    make: Callable[[Work], Approach]


@dataclass(frozen=True)
class Climb:
    """What the ladder showed."""

    rungs: tuple[Rung, ...]
    recommendation: Recommendation


def climb(
    entries: Sequence[Entry],
    splits: Splits,
    *,
    metric: Metric,
    target: float | None,
    run: Run,
    work_for: Callable[[str, Progress, Callable[[str], None]], Work],
    stop_requested: Callable[[], bool],
    on: Watching,
) -> Climb:
    """Try each entry in order until the target is reached; recommend.

    Args:
        entries: at least one, cheapest first.
        work_for: (rung name, progress, notice) → the work its approach is given.

    Raises:
        Interrupted: asked to stop; finished rungs and training so far are saved.
    """
    references = splits.test.answers
    _write_state(run, "running", [], None)
    write_jsonl(run.folder / "rows.test.jsonl", [_row_record(row) for row in splits.test])
    rungs: list[Rung] = []
    answers: dict[str, list[str]] = {}
    skipped: list[str] = []
    for position, entry in enumerate(entries):
        record = run.rung(entry.name) / "rung.json"
        if record.is_file():
            rung, answers[entry.name] = _finished(run, entry.name)
            _forget_checkpoints(run, entry.name)
        else:
            below = rungs[-1] if rungs else None
            below_answers = answers[below.name] if below else None
            with naming(entry.name):
                rung, answers[entry.name] = _try(
                    entry, splits, metric, run, work_for, stop_requested, on, below, below_answers
                )
        rungs.append(rung)
        on.rung(rung)
        _write_state(run, "running", rungs, None)
        if target is not None and rung.value >= target:
            skipped = [later.name for later in entries[position + 1 :]]
            break
        if stop_requested() and position + 1 < len(entries):
            raise Interrupted("")
    recommendation = recommend(
        rungs,
        target=target,
        against=against_best(metric, rungs, answers, references),
        rows=len(splits.test),
        skipped=skipped,
    )
    _write_state(run, "target" if skipped else "done", rungs, recommendation)
    return Climb(tuple(rungs), recommendation)


@contextmanager
def naming(rung: str) -> Iterator[None]:
    """Let a user's mistake that shows inside say which rung it is about."""
    try:
        yield
    except FituneError as error:
        error.problem = f"{rung}: {error.problem}"
        raise


def _finished(run: Run, name: str) -> tuple[Rung, list[str]]:
    """A rung of an earlier process, and its answers."""
    with explain_damage(run.rung(name) / "rung.json"):
        rung = Rung.from_json(run.read(f"rungs/{name}/rung.json"))
    with explain_damage(run.rung(name) / "predictions.jsonl"):
        lines = read_jsonl(run.rung(name) / "predictions.jsonl")
        return rung, [line["text"] for line in lines]


def _try(
    entry: Entry,
    splits: Splits,
    metric: Metric,
    run: Run,
    work_for: Callable[[str, Progress, Callable[[str], None]], Work],
    stop_requested: Callable[[], bool],
    on: Watching,
    below: Rung | None,
    below_answers: list[str] | None,
) -> tuple[Rung, list[str]]:
    folder = run.rung(entry.name)
    notes: list[str] = []

    def progress(label: str, done: int, total: int) -> None:
        on.progress(f"{entry.name}: {label}", done, total)

    def notice(text: str) -> None:
        if text not in notes:
            notes.append(text)
            on.notice(f"{entry.name}: {text}")

    def interruptible(label: str, done: int, total: int) -> None:
        progress(label, done, total)
        if stop_requested():
            raise Interrupted("")

    train = splits.train
    if entry.max_train_rows is not None and len(train) > entry.max_train_rows:
        train = capped(train, entry.max_train_rows)
        notice(f"was given {len(train):,} of {len(splits.train):,} training rows (max_train_rows).")
    work = work_for(entry.name, progress, notice)
    with PeakMemory("cuda" if work.device == "cuda" else "cpu") as peak:
        approach = entry.make(work)
        started = time.perf_counter()
        approach.fit(train, splits.validation)
        train_seconds = time.perf_counter() - started
        if stop_requested():
            raise Interrupted("")
        started = time.perf_counter()
        predictions = approach.predict(splits.test, interruptible)
        seconds = time.perf_counter() - started
    predicted = [prediction.text for prediction in predictions]
    references = splits.test.answers
    rung = Rung(
        name=entry.name,
        use=entry.use,
        model=entry.model,
        method=approach.options.get("method", entry.method),
        metric=metric.name,
        value=metric.function(predicted, references),
        interval=interval(metric, predicted, references),
        metrics=further_metrics(work.task.kind, metric, predicted, references),
        against=below.name if below else None,
        comparison=compare(metric, predicted, below_answers, references)
        if below_answers is not None
        else None,
        train_rows=approach.cost.rows,
        train_seconds=train_seconds,
        seconds_per_1000=1000 * seconds / len(splits.test),
        peak_memory_bytes=peak.bytes,
        parameters=approach.cost.parameters,
        trainable_parameters=approach.cost.trainable_parameters,
        notes=(*notes, *_stopping(predictions)),
    )
    with replaced_folder(folder / "model") as model:
        approach.save(model)
    write_json(folder / "options.json", approach.options)
    write_jsonl(
        folder / "predictions.jsonl",
        [
            {"key": row.key, **asdict(prediction)}
            for row, prediction in zip(splits.test, predictions, strict=True)
        ],
    )
    write_json(folder / "rung.json", rung.to_json())
    _forget_checkpoints(run, entry.name)
    del approach
    gc.collect()
    return rung, predicted


def _forget_checkpoints(run: Run, name: str) -> None:
    """The rung is whole; what it could have gone on from is several times its model's size."""
    shutil.rmtree(run.rung(name) / "checkpoints", ignore_errors=True)


def further_metrics(
    kind: str, metric: Metric, predicted: list[str], references: list[str]
) -> dict[str, float]:
    """What the other metrics for this kind of task say of the same answers, by name."""
    return {
        name: other.function(predicted, references)
        for name, other in METRICS.items()
        if kind in other.kinds and name != metric.name
    }


def _stopping(predictions: list[Prediction]) -> list[str]:
    known = [p.stopped for p in predictions if p.stopped is not None]
    if not known:
        return []
    return [f"{sum(known):,} of {len(known):,} answers ended by themselves, before the limit."]


def capped(rows: Rows, most: int) -> Rows:
    """`most` rows by content hash, kept in order; each label keeps its share, and at least one."""
    by_label: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        by_label.setdefault(row.answer or "", []).append(index)
    if len(by_label) > most:  # free answers: no shares to keep
        by_label = {"": list(range(len(rows)))}
    share = quotas({label: len(members) for label, members in by_label.items()}, most, minimum=1)
    kept: list[int] = []
    for label, members in by_label.items():
        members.sort(key=lambda i: rows[i].content_hash)
        kept += members[: share[label]]
    return Rows(tuple(rows[i] for i in sorted(kept)))


def _row_record(row: Row) -> dict[str, object]:
    return {
        "key": row.key,
        "text": row.text,
        "answer": row.answer,
        "history": [asdict(turn) for turn in row.history],
        "source": row.source,
    }


def _write_state(
    run: Run, status: str, rungs: Sequence[Rung], recommendation: Recommendation | None
) -> None:
    write_json(
        run.folder / "ladder.json",
        {
            "status": status,
            "rungs": [rung.name for rung in rungs],
            "recommendation": asdict(recommendation) if recommendation else None,
        },
    )
