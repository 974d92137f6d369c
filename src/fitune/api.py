"""One public function a verb: resolves names, ties the rooms together, returns a typed result.

Knows every room below; knows nothing of terminals.
"""

from __future__ import annotations

import contextlib
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fitune.checking import check_data
from fitune.config import Task
from fitune.data.load import load_rows, load_splits
from fitune.data.rows import Rows, Splits
from fitune.entries import ladder_entries, make_work, resolve_metric
from fitune.errors import ConfigError, DataError, FituneError, Interrupted
from fitune.estimating import answer
from fitune.evaluation.significance import interval
from fitune.ladder.climb import Climb, Entry, Watching, climb, further_metrics, naming
from fitune.ladder.rung import Rung
from fitune.machine import diagnose, environment
from fitune.modelling import Modelling, compare
from fitune.profiling import profile_entry
from fitune.questions import Question
from fitune.report.write import write_report
from fitune.results import (
    CheckResult,
    DoctorResult,
    EstimateResult,
    EvaluateResult,
    FittingModels,
    LadderResult,
    LmResult,
    ProfileResult,
    TuneResult,
)
from fitune.resuming import go_on, resumed
from fitune.runs import Run, create_run, locked, write_json
from fitune.saved import SavedModel
from fitune.signals import StopRequest
from fitune.taskfile import load_task
from fitune.training.callbacks import Callback, check_callbacks


class Silent:
    """The default for `on`: nobody is told."""

    def progress(self, label: str, done: int, total: int) -> None:
        """Not shown."""

    def notice(self, text: str) -> None:
        """Not shown."""

    def rung(self, rung: Rung) -> None:
        """Not shown."""


def estimate(
    model: str | Path | None = None, *, on: Watching | None = None, **options: Any
) -> EstimateResult | FittingModels:
    """Will it fit? The memory that a model needs to train or to answer, from its config alone.

    Args:
        model: a name or a file, see `questions.Question`; None: which models of the catalogue fit.
        on: told of progress.
        options: as the command line has them, with underscores, e.g. ``method="qlora"``,
            ``seq=2048``, ``budget="24GiB"``: see `questions.Question`.

    Raises:
        FituneError: any user mistake, in one sentence.
        TypeError: there is no such option.
    """
    return answer(Question(None if model is None else str(model), **options), on or Silent())


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
    resolved, entries, run = _start(task, overrides, resume, verb="ladder")
    made, result, notes = _climb(resolved, entries, run, on or Silent(), verb="ladder")
    return LadderResult(made.folder, result.rungs, result.recommendation, notes)


def tune(
    task: str | Path | Task | None = None,
    *,
    overrides: Sequence[str] = (),
    rung: str | None = None,
    resume: str | Path | None = None,
    callbacks: Sequence[Callback] = (),
    on: Watching | None = None,
) -> TuneResult:
    """Train one fine-tuned approach of a task and answer its test rows.

    Args:
        rung: its name, where the task lists several.
        callbacks: told of each step, evaluation and checkpoint: see `fitune.Callback`.

    Raises: as `ladder`.
        TrainingError: a callback failed.
    """
    told = check_callbacks(callbacks)
    resolved, entries, run = _start(task, overrides, resume, verb="tune", rung=rung)
    made, result, notes = _climb(resolved, entries, run, on or Silent(), told, verb="tune")
    return TuneResult(made.folder, result.rungs[0], notes)


def profile(
    task: str | Path | Task,
    *,
    overrides: Sequence[str] = (),
    rung: str | None = None,
    steps: int = 5,
    on: Watching | None = None,
) -> ProfileResult:
    """Take the first steps of what `tune` would do, and tell where their time goes.

    Args:
        rung: its name, where the task lists several.
        steps: that are measured.

    Raises:
        FituneError: any user mistake, in one sentence.
    """
    resolved, (entry,), _ = _start(task, overrides, None, verb="tune", rung=rung)
    splits = _splits(resolved)
    labels = _labels(resolved, splits)
    return profile_entry(resolved, entry, splits, labels, steps, on or Silent())


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
    task, metric = saved.task, saved.metric
    given = load_rows(str(rows), task.data, task.kind, download=task.download)
    _refuse_strange_labels(given, saved)
    predictions = saved.predict_rows(given, watcher.progress)
    texts, references = [p.text for p in predictions], given.answers
    return EvaluateResult(
        rung=saved.rung,
        metric=metric.name,
        value=metric.function(texts, references),
        interval=interval(metric, texts, references),
        metrics=further_metrics(task.kind, metric, texts, references),
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


def lm(corpus: str | Path, *, on: Watching | None = None, **options: Any) -> LmResult:
    """Language models side by side: n-gram, hidden Markov, recurrent networks, transformer.

    Args:
        corpus: a text file, or a folder of them.
        on: told of progress.
        options: as the command line has them, with underscores, e.g. ``tokens="characters"``,
            ``models="ngram,lstm"``: see `modelling.Modelling`.

    Raises:
        FituneError: any user mistake, in one sentence.
        TypeError: there is no such option.
    """
    return compare(Modelling(str(corpus), **options), on or Silent())


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
        kind: for data: `classify`, `generate` or `language-model`; default: classify where answers
            repeat.
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
        with naming(entry.name):
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
    verb: str,
    rung: str | None = None,
) -> tuple[Task, list[Entry], Run | None]:
    """The task, its entries, and the run to go on with."""
    run = None
    if resume is not None:
        given = None if task is None else _task(task, overrides)
        run, resolved, rung = resumed(Path(resume), given, overrides, verb, rung)
    elif task is None:
        raise ConfigError("there is no task", fix="give a task file, or a run to resume")
    else:
        resolved = _task(task, overrides)
    resolve_metric(resolved)
    entries = ladder_entries(resolved)
    return resolved, [_tuned(entries, rung)] if verb == "tune" else entries, run


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
    task: Task,
    entries: list[Entry],
    run: Run | None,
    on: Watching,
    callbacks: tuple[Callback, ...] = (),
    *,
    verb: str,
) -> tuple[Run, Climb, tuple[str, ...]]:
    """Read the rows, make the run unless there is one, and climb in it."""
    with StopRequest() as stop:
        on.progress("reading rows", 0, 1)
        splits = _splits(task)
        on.progress("reading rows", 1, 1)
        labels = _labels(task, splits)
        for note in splits.notes:
            on.notice(note)
        _options(task, entries, labels)
        new = run is None
        run = run or create_run(Path(task.output), task.name)
        with locked(run):
            try:
                if new:
                    _record(run, task, verb, entries, _data_record(splits, labels))
                else:
                    go_on(run, task, splits)
                result = _climb_in(run, task, entries, splits, labels, stop, on, callbacks)
            except (Interrupted, KeyboardInterrupt) as error:
                _report_unfinished(run)
                command = f"fitune {verb} --resume {shlex.quote(str(run.folder))}"
                raise Interrupted(command) from error
            except FituneError:
                if new and not any(path.is_file() for path in run.folder.glob("rungs/**/*")):
                    shutil.rmtree(run.folder, ignore_errors=True)  # nothing was learned yet
                else:
                    _report_unfinished(run)
                raise
            write_report(run.folder)
    return run, result, splits.notes


def _climb_in(
    run: Run,
    task: Task,
    entries: list[Entry],
    splits: Splits,
    labels: tuple[str, ...],
    stop: StopRequest,
    on: Watching,
    callbacks: tuple[Callback, ...],
) -> Climb:
    metric = resolve_metric(task)
    return climb(
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
            callbacks=callbacks,
        ),
        stop_requested=lambda: stop.requested,
        on=on,
    )


def _record(run: Run, task: Task, verb: str, entries: list[Entry], data: dict[str, Any]) -> None:
    write_json(run.folder / "data.json", data)
    write_json(run.folder / "environment.json", environment())
    rung = entries[0].name if verb == "tune" else None
    write_json(run.folder / "verb.json", {"verb": verb, "rung": rung})
    # Last: a folder counts as a run once its task is there.
    write_json(run.folder / "task.json", task.model_dump(mode="json"))


def _report_unfinished(run: Run) -> None:
    """A report of what there is; what stopped the run matters more than why there is none."""
    with contextlib.suppress(FituneError):
        write_report(run.folder)


def _refuse_strange_labels(rows: Rows, saved: SavedModel) -> None:
    """No prediction can be right on a label that the run never saw."""
    strange = [row for row in rows if saved.labels and row.answer not in saved.labels]
    if strange:
        first = strange[0]
        raise DataError(
            f"{len(strange):,} of {len(rows):,} rows have a label that run '{saved.run.folder}' "
            f"does not know, such as '{first.answer}' ({first.source})",
            fix="remove these rows, or run the ladder on data that has such labels",
        )
