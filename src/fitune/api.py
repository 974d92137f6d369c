"""One public function a verb: resolves names, ties the rooms together, returns a typed result.

Knows every room below; knows nothing of terminals.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fitune.checking import check_data
from fitune.climbing import climb_task, data_record, labels_of, read_splits, resolved_options
from fitune.config import Task
from fitune.data.load import load_rows
from fitune.data.rows import Rows
from fitune.entries import ladder_entries, resolve_metric
from fitune.errors import ConfigError, DataError
from fitune.estimates import EstimateResult, FittingModels
from fitune.estimating import answer
from fitune.evaluation.significance import interval
from fitune.ladder.asked import Asked
from fitune.ladder.climb import Entry, Watching
from fitune.ladder.further import further_metrics
from fitune.ladder.price import costs
from fitune.ladder.rung import Rung
from fitune.machine import diagnose
from fitune.modelling import Modelling, compare
from fitune.profiling import profile_entry
from fitune.questions import Question
from fitune.results import (
    CheckResult,
    DoctorResult,
    EvaluateResult,
    LadderResult,
    LmResult,
    ProfileResult,
    TuneResult,
)
from fitune.resuming import only, resumed
from fitune.runs import Run
from fitune.saved import SavedModel
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
    **options: Any,
) -> LadderResult:
    """Try every approach on the same held-out rows, cheapest first; recommend one.

    Args:
        task: a task file, or a `Task`; not needed with `resume`.
        overrides: ``"a.b=c"`` changes to the task file.
        resume: a run folder to go on with; its own task counts.
        on: told of progress, notices and finished rungs.
        options: as the command line has them, with underscores, e.g. ``rungs=("linear",)``,
            ``budget_minutes=30``, ``curve="linear"``: see `ladder.asked.Asked`.

    Raises:
        FituneError: any user mistake, in one sentence.
        Interrupted: Ctrl-C or SIGTERM; `resume` goes on.
        TypeError: there is no such option.
    """
    asked = Asked(**options)
    resolved, entries, run = _start(task, overrides, resume, verb="ladder")
    entries = only(entries, asked, run)
    ended = climb_task(resolved, entries, run, on or Silent(), verb="ladder", asked=asked)
    result = ended.climb
    return LadderResult(
        run=ended.run.folder,
        rungs=result.rungs,
        recommendation=result.recommendation,
        diagnoses=result.diagnoses,
        skipped=result.skipped,
        costs=costs(result.rungs, asked.requests, asked.price_per_hour),
        curve=ended.curve,
        notes=ended.notes,
    )


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
    ended = climb_task(resolved, entries, run, on or Silent(), told, verb="tune")
    return TuneResult(ended.run.folder, ended.climb.rungs[0], ended.notes)


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
    splits = read_splits(resolved)
    labels = labels_of(resolved, splits)
    return profile_entry(resolved, entry, splits, labels, steps, on or Silent())


def plan(
    task: str | Path | Task, *, overrides: Sequence[str] = (), rungs: Sequence[str] = ()
) -> dict[str, Any]:
    """What `ladder` would do: the task with every default, the rows, the rungs in order.

    Args:
        rungs: names of those to plan; empty: all.

    Raises:
        FituneError: any user mistake, in one sentence.
    """
    resolved = _task(task, overrides)
    entries = only(ladder_entries(resolved), Asked(rungs=tuple(rungs)), None)
    splits = read_splits(resolved)
    labels = labels_of(resolved, splits)
    return {
        "metric": resolve_metric(resolved).name,
        "data": data_record(splits, labels),
        "rungs": resolved_options(resolved, entries, labels),
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
        metrics=further_metrics(task.kind, metric, predictions, given, saved.labels, saved.also),
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
