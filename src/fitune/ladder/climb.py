"""Runs approaches one after the other on the same test rows, and keeps what each showed.

Knows approaches by their interface, rows and run folders; knows nothing of what an approach does.
Every finished rung is on disk before the next begins, so an interrupted ladder goes on where it
stopped.
"""

from __future__ import annotations

import gc
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

from fitune.approaches.base import Approach, Prediction, Progress, Work
from fitune.data.rows import Row, Splits
from fitune.errors import FituneError, Interrupted
from fitune.evaluation.metrics import Metric
from fitune.evaluation.significance import compare, interval
from fitune.hardware import PeakMemory
from fitune.ladder.asked import Asked
from fitune.ladder.budget import Budget, Skipped, expected_seconds
from fitune.ladder.diagnose import Diagnosis
from fitune.ladder.finished import KEY, find, read_finished, take_over
from fitune.ladder.further import further_metrics
from fitune.ladder.next_step import next_step
from fitune.ladder.recommend import Recommendation, against_best, best_rung, recommend
from fitune.ladder.rung import Rung
from fitune.ladder.subset import capped
from fitune.runs import Run, replaced_folder, write_json, write_jsonl

Answers = Mapping[str, Sequence[Prediction]]
"""By rung, in the order of the test rows."""

WorkFor = Callable[[str, Progress, Callable[[str], None]], Work]
"""(rung name, progress, notice) → the work its approach is given."""


Judged = Callable[[str, Mapping[str, Sequence[str]]], object]
"""(rung, answers to the test rows by name: its own and those to compare them with)."""


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
        key: digest of everything that the rung depends on; None: it is not known, so no rung of an
            earlier run can stand for it.
    """

    name: str
    use: str
    model: str | None
    method: str | None
    max_train_rows: int | None
    make: Callable[[Work], Approach]
    key: str | None = None


@dataclass(frozen=True)
class Climb:
    """What the ladder showed.

    Attributes:
        diagnoses: why each rung's wrong answers are wrong, in order; empty where nothing is wrong
            or right.
        skipped: what the budget left no time for.
    """

    rungs: tuple[Rung, ...]
    recommendation: Recommendation
    diagnoses: tuple[Diagnosis, ...] = ()
    skipped: tuple[Skipped, ...] = ()


@dataclass(frozen=True)
class _Ground:
    """What all rungs have in common; the fields are those of `climb`."""

    splits: Splits
    metric: Metric
    also: Sequence[Metric]
    run: Run
    work_for: WorkFor
    stop_requested: Callable[[], bool]
    on: Watching
    earlier: Sequence[Path]


def climb(
    entries: Sequence[Entry],
    splits: Splits,
    *,
    metric: Metric,
    also: Sequence[Metric] = (),
    target: float | None,
    run: Run,
    work_for: WorkFor,
    stop_requested: Callable[[], bool],
    on: Watching,
    earlier: Sequence[Path] = (),
    budget: Budget | None = None,
    diagnosed: Callable[[Answers], tuple[Diagnosis, ...]] = lambda answers: (),
    documents: bool = False,
    judged: Judged | None = None,
    asked: Asked | None = None,
) -> Climb:
    """Try each entry in order until the target is reached; recommend.

    Args:
        entries: at least one, cheapest first.
        also: metrics to tell besides, of the user's choice.
        work_for: (rung name, progress, notice) → the work its approach is given.
        earlier: run folders whose finished rungs stand for entries of the same key.
        budget: rungs that would take longer than what is left of it are skipped, but for the
            first: without any rung there is nothing to recommend.
        diagnosed: sorts the rungs' errors.
        documents: whether the task has documents that an approach could search.
        judged: compares each rung's answers with those of the rung below and of the best so far.
        asked: kept beside the figures, so that the report tells costs as they were asked for.

    Raises:
        Interrupted: asked to stop; finished rungs and training so far are saved.
    """
    ground = _Ground(splits, metric, also, run, work_for, stop_requested, on, earlier)
    _write_state(run, "running", [])
    write_jsonl(run.folder / "rows.test.jsonl", [_row_record(row) for row in splits.test])
    rungs: list[Rung] = []
    answers: dict[str, list[Prediction]] = {}
    left_out: list[str] = []
    skipped: list[Skipped] = []
    for position, entry in enumerate(entries):
        known = _known(entry, ground)
        if known is None and rungs and budget is not None:
            reason = budget.refusal(partial(_expected, entry, ground))
            if reason is not None:
                skipped.append(Skipped(entry.name, reason))
                on.notice(f"{entry.name}: skipped, as {reason}.")
                continue
        with naming(entry.name):
            rung, answers[entry.name] = known or _try(entry, ground)
        rung = _against(rungs[-1] if rungs else None, rung, answers, ground)
        record = run.rung(rung.name) / "rung.json"
        if not record.is_file() or (known is not None and rung != known[0]):
            write_json(record, rung.to_json())
        _forget_checkpoints(run, entry.name)
        rungs.append(rung)
        on.rung(rung)
        _write_state(run, "running", rungs)
        if judged is not None and len(rungs) > 1:
            names = {rungs[-2].name, best_rung(rungs[:-1]).name, rung.name}
            said = {name: [p.text for p in answers[name]] for name in sorted(names)}
            judged(rung.name, said)
        if target is not None and rung.value >= target:
            left_out = [later.name for later in entries[position + 1 :]]
            break
        if stop_requested() and position + 1 < len(entries):
            raise Interrupted("")
    texts = {name: [prediction.text for prediction in said] for name, said in answers.items()}
    recommendation = recommend(
        rungs,
        target=target,
        against=against_best(metric, rungs, texts, splits.test.answers),
        rows=len(splits.test),
        skipped=left_out,
    )
    diagnoses = diagnosed(answers)
    if diagnoses:
        choice = next(rung for rung in rungs if rung.name == recommendation.choice)
        further = next_step(choice, rungs, diagnoses, target=target, documents=documents)
        recommendation = replace(recommendation, sentences=(*recommendation.sentences, further))
    made = Climb(tuple(rungs), recommendation, diagnoses, tuple(skipped))
    _write_state(run, "target" if left_out else "done", rungs, made, asked)
    return made


@contextmanager
def naming(rung: str) -> Iterator[None]:
    """Let a user's mistake that shows inside say which rung it is about."""
    try:
        yield
    except FituneError as error:
        error.problem = f"{rung}: {error.problem}"
        raise


def _known(entry: Entry, ground: _Ground) -> tuple[Rung, list[Prediction]] | None:
    """A rung that need not be run: finished by an earlier process, or in an earlier run."""
    run = ground.run
    if run.has(f"rungs/{entry.name}/rung.json"):
        return read_finished(run, entry.name)
    if entry.key is None or run.rung(entry.name).exists():  # begun here, to be gone on with
        return None
    found = find(entry.key, ground.earlier, len(ground.splits.test))
    if found is None:
        return None
    rung, answers = take_over(found, run, entry.name, entry.key)
    ground.on.notice(f"{entry.name}: {rung.notes[0]}")
    return rung, answers


def _expected(entry: Entry, ground: _Ground) -> float:
    """Seconds that a rung will take."""
    ground.on.progress(f"{entry.name}: timing a few rows", 0, 1)
    work = ground.work_for(entry.name, lambda *told: None, lambda text: None)
    splits = ground.splits
    if entry.max_train_rows is not None and len(splits.train) > entry.max_train_rows:
        splits = replace(splits, train=capped(splits.train, entry.max_train_rows))
    try:
        seconds = expected_seconds(entry.make, splits, work, ground.run.folder)
    except FituneError as error:  # what so few rows do not allow, all rows may
        ground.on.notice(f"{entry.name}: how long it takes cannot be told ({error.problem}).")
        seconds = 0.0
    ground.on.progress(f"{entry.name}: timing a few rows", 1, 1)
    return seconds


def _against(
    below: Rung | None, rung: Rung, answers: Mapping[str, Sequence[Prediction]], ground: _Ground
) -> Rung:
    """The rung, compared with the one below it here: a finished one may have stood elsewhere."""
    if rung.against == (below.name if below else None):
        return rung
    if below is None:
        return replace(rung, against=None, comparison=None)
    mine, others = ([p.text for p in answers[name]] for name in (rung.name, below.name))
    compared = compare(ground.metric, mine, others, ground.splits.test.answers)
    return replace(rung, against=below.name, comparison=compared)


def _try(entry: Entry, ground: _Ground) -> tuple[Rung, list[Prediction]]:
    """Run an entry. What it leaves on disk is whole but for `rung.json`."""
    splits, metric, run = ground.splits, ground.metric, ground.run
    on, stop_requested = ground.on, ground.stop_requested
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
    work = ground.work_for(entry.name, progress, notice)
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
        metrics=further_metrics(
            work.task.kind, metric, predictions, splits.test, work.labels, ground.also
        ),
        against=None,
        comparison=None,
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
    if entry.key is not None:
        write_json(folder / KEY, {"key": entry.key})
    del approach
    gc.collect()
    return rung, predictions


def _forget_checkpoints(run: Run, name: str) -> None:
    """The rung is whole; what it could have gone on from is several times its model's size."""
    shutil.rmtree(run.rung(name) / "checkpoints", ignore_errors=True)


def _stopping(predictions: list[Prediction]) -> list[str]:
    known = [p.stopped for p in predictions if p.stopped is not None]
    if not known:
        return []
    return [f"{sum(known):,} of {len(known):,} answers ended by themselves, before the limit."]


def _row_record(row: Row) -> dict[str, object]:
    return {
        "key": row.key,
        "text": row.text,
        "answer": row.answer,
        "history": [asdict(turn) for turn in row.history],
        "source": row.source,
    }


def _write_state(
    run: Run,
    status: str,
    rungs: Sequence[Rung],
    made: Climb | None = None,
    asked: Asked | None = None,
) -> None:
    state: dict[str, object] = {
        "status": status,
        "rungs": [rung.name for rung in rungs],
        "recommendation": asdict(made.recommendation) if made else None,
    }
    if made is not None:
        state["diagnoses"] = [diagnosis.to_json() for diagnosis in made.diagnoses]
        state["skipped"] = [asdict(rung) for rung in made.skipped]
    if asked is not None:
        state["requests_per_month"] = asked.requests
        state["price_per_hour"] = asked.price_per_hour
    write_json(run.folder / "ladder.json", state)
