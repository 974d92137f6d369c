"""One public function a verb: resolves names, ties the rooms together, returns a typed result.

Knows every room below; knows nothing of terminals.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fitune.checking import check_data
from fitune.config import Task
from fitune.data.load import load_rows, load_splits
from fitune.data.rows import Rows, Splits
from fitune.entries import ladder_entries, make_work, resolve_metric
from fitune.errors import ConfigError, Interrupted, RunError
from fitune.evaluation.metrics import METRICS
from fitune.evaluation.significance import interval
from fitune.hardware import this_machine
from fitune.ladder.climb import Climb, Entry, Watching, climb
from fitune.ladder.rung import Rung
from fitune.machine import diagnose, versions
from fitune.report.write import write_report
from fitune.results import (
    CheckResult,
    DoctorResult,
    EvaluateResult,
    LadderResult,
    TuneResult,
)
from fitune.runs import Run, create_run, locked, open_run, write_json
from fitune.saved import SavedModel
from fitune.signals import StopRequest
from fitune.taskfile import load_task


class Silent:
    """The default for `on`: nobody is told."""

    def progress(self, label: str, done: int, total: int) -> None:
        """Not shown."""

    def notice(self, text: str) -> None:
        """Not shown."""

    def rung(self, rung: Rung) -> None:
        """Not shown."""


def ladder(
    task: str | Path | Task | None = None,
    *,
    overrides: Sequence[str] = (),
    resume: str | Path | None = None,
    on: Watching | None = None,
) -> LadderResult:
    """Try every approach on the same held-out rows, cheapest first; recommend one.

    Args:
        task: a task file, or a `Task`; not needed with `resume`.
        overrides: ``"a.b=c"`` changes to the task file.
        resume: a run folder to go on with; its own task counts.
        on: told of progress, notices and finished rungs.

    Raises:
        FituneError: any user mistake, in one sentence.
        Interrupted: Ctrl-C or SIGTERM; `resume` goes on.
    """
    resolved, entries, run = _start(task, overrides, resume, tuned_only=False, rung=None)
    made, result, notes = _climb(resolved, entries, run, on or Silent(), verb="ladder")
    return LadderResult(made.folder, result.rungs, result.recommendation, notes)


def tune(
    task: str | Path | Task | None = None,
    *,
    overrides: Sequence[str] = (),
    rung: str | None = None,
    resume: str | Path | None = None,
    on: Watching | None = None,
) -> TuneResult:
    """Train one fine-tuned approach of a task and answer its test rows.

    Args:
        rung: its name, where the task lists several.

    Raises: as `ladder`.
    """
    resolved, entries, run = _start(task, overrides, resume, tuned_only=True, rung=rung)
    made, result, notes = _climb(resolved, entries, run, on or Silent(), verb="tune")
    return TuneResult(made.folder, result.rungs[0], notes)


def plan(task: str | Path | Task, *, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """What `ladder` would do: the task with every default, the rows, the rungs in order.

    Raises:
        FituneError: any user mistake, in one sentence.
    """
    resolved = _task(task, overrides)
    entries = ladder_entries(resolved)
    splits = _splits(resolved)
    labels = _labels(resolved, splits)
    return {
        "metric": resolve_metric(resolved).name,
        "data": _data_record(splits, labels),
        "rungs": _options(resolved, entries, labels),
    }


def evaluate(
    run: str | Path, rows: str | Path, *, rung: str | None = None, on: Watching | None = None
) -> EvaluateResult:
    """Let a saved rung answer rows it has not seen, and score the answers.

    Args:
        run: a run folder.
        rows: a file with answers, read as the run's task file says (shape, columns, encoding).
        rung: which rung; default: the recommended one.

    Raises:
        FituneError: any user mistake, in one sentence.
    """
    watcher = on or Silent()
    notes: list[str] = []

    def notice(text: str) -> None:
        notes.append(text)
        watcher.notice(text)

    saved = SavedModel(run, rung, notice)
    given = load_rows(str(rows), saved.task.data, saved.task.kind, download=saved.task.download)
    metric = saved.metric
    predictions = saved.predict_rows(given, watcher.progress)
    texts, references = [p.text for p in predictions], given.answers
    further = {
        name: other.function(texts, references)
        for name, other in METRICS.items()
        if saved.task.kind in other.kinds and name != metric.name
    }
    return EvaluateResult(
        rung=saved.rung,
        metric=metric.name,
        value=metric.function(texts, references),
        interval=interval(metric, texts, references),
        metrics=further,
        rows=len(given),
        predictions=tuple(
            {
                "source": row.source,
                "text": row.text,
                "answer": row.answer,
                "prediction": prediction.text,
                "scores": prediction.scores,
                "stopped": prediction.stopped,
            }
            for row, prediction in zip(given, predictions, strict=True)
        ),
        notes=tuple(notes),
    )


def load(run: str | Path, rung: str | None = None) -> SavedModel:
    """Open a run to answer new texts: ``load(run).predict(["…"])``.

    Raises:
        RunError: see `SavedModel`.
    """
    return SavedModel(run, rung)


def check(
    source: str | Path,
    *,
    overrides: Sequence[str] = (),
    show: int = 0,
    kind: str | None = None,
    model: str | None = None,
    on: Watching | None = None,
) -> CheckResult:
    """Look at data before learning from it.

    Args:
        source: a task file, or data as a task file names it.
        show: so many training rows are returned as tokens.
        kind: for data: `classify` or `generate`; default: classify where answers repeat.
        model: whose tokens to show; default: the task's first fine-tuned or prompted model.

    Raises:
        FituneError: any user mistake, in one sentence.
    """
    return check_data(source, overrides, show, kind, model, on or Silent())


def doctor() -> DoctorResult:
    """What this machine has, what is missing, how to get it."""
    return diagnose()


def _task(task: str | Path | Task, overrides: Sequence[str]) -> Task:
    if isinstance(task, Task):
        if overrides:
            raise ConfigError(
                "overrides apply to a task file, and a Task was given",
                fix="use task.model_copy(update=…) instead",
            )
        return task
    return load_task(task, overrides)


def _splits(task: Task) -> Splits:
    return load_splits(task.data, task.kind, download=task.download)


def _labels(task: Task, splits: Splits) -> tuple[str, ...]:
    if task.kind != "classify":
        return ()
    everything = (*splits.train, *splits.validation, *splits.test)
    return Rows(everything).labels


def _options(task: Task, entries: list[Entry], labels: tuple[str, ...]) -> dict[str, Any]:
    """Every rung's options, from approaches made for it: contradictions show before work begins."""
    rungs = {}
    for entry in entries:
        work = make_work(
            task,
            labels,
            resolve_metric(task),
            folder=Path(task.output),
            progress=lambda label, done, total: None,
            notice=lambda text: None,
            stop_requested=lambda: False,
        )
        rungs[entry.name] = entry.make(work).options
    return rungs


def _data_record(splits: Splits, labels: tuple[str, ...]) -> dict[str, Any]:
    return {
        "notes": list(splits.notes),
        "train": len(splits.train),
        "validation": len(splits.validation),
        "test": len(splits.test),
        "labels": list(labels),
        "hash": splits.content_hash,
    }


def _start(
    task: str | Path | Task | None,
    overrides: Sequence[str],
    resume: str | Path | None,
    *,
    tuned_only: bool,
    rung: str | None,
) -> tuple[Task, list[Entry], Run | None]:
    if resume is not None:
        if overrides:
            raise ConfigError(
                "overrides cannot change a run that has begun",
                fix="leave out --set, or start a new run",
            )
        run: Run | None = open_run(Path(resume))
        assert run is not None
        resolved = Task.model_validate(run.read("task.json"))
        if task is not None and _task(task, ()) != resolved:
            raise RunError(
                f"the task given differs from the one that run '{resume}' was started with",
                fix="leave the task out, or start a new run",
            )
        rung = rung or run.read("verb.json")["rung"]
    elif task is None:
        raise ConfigError("there is no task", fix="give a task file, or a run to resume")
    else:
        run, resolved = None, _task(task, overrides)
    resolve_metric(resolved)
    entries = ladder_entries(resolved)
    if tuned_only:
        entries = [_tuned(entries, rung)]
    return resolved, entries, run


def _tuned(entries: list[Entry], rung: str | None) -> Entry:
    tuned = [entry for entry in entries if entry.use == "finetuned"]
    names = ", ".join(entry.name for entry in tuned)
    if not tuned:
        raise ConfigError(
            "the task lists no approach with `use: finetuned`", fix="add one, or use fitune ladder"
        )
    if rung is None and len(tuned) > 1:
        raise ConfigError(
            f"the task lists {len(tuned)} fine-tuned approaches ({names})",
            fix="name one with --rung",
        )
    for entry in tuned:
        if rung in (None, entry.name):
            return entry
    raise ConfigError(f"there is no fine-tuned approach '{rung}'", fix=f"use one of {names}")


def _climb(
    task: Task, entries: list[Entry], run: Run | None, on: Watching, *, verb: str
) -> tuple[Run, Climb, tuple[str, ...]]:
    on.progress("reading rows", 0, 1)
    splits = _splits(task)
    on.progress("reading rows", 1, 1)
    labels = _labels(task, splits)
    metric = resolve_metric(task)
    for note in splits.notes:
        on.notice(note)
    record = _data_record(splits, labels)
    _options(task, entries, labels)
    made = run is None
    run = run or create_run(Path(task.output), task.name)
    with locked(run), StopRequest() as stop:
        if made:
            write_json(run.folder / "data.json", record)
            write_json(run.folder / "environment.json", environment())
            write_json(
                run.folder / "verb.json",
                {"verb": verb, "rung": entries[0].name if verb == "tune" else None},
            )
            # Last: a folder counts as a run once its task is there.
            write_json(run.folder / "task.json", task.model_dump(mode="json"))
        elif run.has("data.json") and run.read("data.json")["hash"] != record["hash"]:
            raise RunError(
                f"the rows changed since run '{run.folder}' was started, so its rungs could not "
                "be compared",
                fix="restore the data files, or start a new run",
            )
        try:
            result = climb(
                entries,
                splits,
                metric=metric,
                target=task.target,
                run=run,
                work_for=lambda name, progress, notice: make_work(
                    task,
                    labels,
                    metric,
                    folder=run.rung(name),
                    progress=progress,
                    notice=notice,
                    stop_requested=lambda: stop.requested,
                ),
                stop_requested=lambda: stop.requested,
                on=on,
            )
        except (Interrupted, KeyboardInterrupt) as error:
            raise Interrupted(f"fitune {verb} --resume {run.folder}") from error
        write_report(run.folder)
    return run, result, splits.notes


def environment() -> dict[str, Any]:
    """Versions and hardware, for the run folder."""
    import torch

    return {
        "python": sys.version.split()[0],
        "versions": versions(),
        "threads": torch.get_num_threads(),
        "machine": this_machine(load_torch=True).to_json(),
    }
