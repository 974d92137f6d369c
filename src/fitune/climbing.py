"""A task climbed from its rows to its report, in a run folder that can be gone on with.

Knows the task, its entries and the run; knows nothing of options as a verb has them.
"""

from __future__ import annotations

import contextlib
import shlex
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fitune.approaches.base import Progress, Work
from fitune.config import Task
from fitune.data.load import load_splits
from fitune.data.rows import Rows, Splits
from fitune.entries import make_work, resolve_also, resolve_metric
from fitune.errors import FituneError, Interrupted
from fitune.ladder.asked import Asked
from fitune.ladder.budget import Budget
from fitune.ladder.climb import Climb, Entry, Watching, climb, naming
from fitune.ladder.curve import Curve, draw_curve
from fitune.ladder.diagnose import diagnose
from fitune.ladder.judge import judge_rung
from fitune.machine import environment
from fitune.report.write import write_report
from fitune.resuming import earlier_runs, go_on, passages_of, rung_keys
from fitune.runs import Run, create_run, locked, write_json
from fitune.signals import StopRequest
from fitune.training.callbacks import Callback


@dataclass(frozen=True)
class Ended:
    """What a whole climb left.

    Attributes:
        notes: what happened to the rows, one sentence each.
    """

    run: Run
    climb: Climb
    curve: Curve | None
    notes: tuple[str, ...]


def read_splits(task: Task) -> Splits:
    return load_splits(task.data, task.kind, download=task.download)


def labels_of(task: Task, splits: Splits) -> tuple[str, ...]:
    """For classify, every label, sorted; empty otherwise."""
    if task.kind != "classify":
        return ()
    everything = (*splits.train, *splits.validation, *splits.test)
    return Rows(everything).labels


def resolved_options(task: Task, entries: list[Entry], labels: tuple[str, ...]) -> dict[str, Any]:
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


def data_record(splits: Splits, labels: tuple[str, ...]) -> dict[str, Any]:
    """What a run folder says of its rows, as JSON."""
    return {
        "notes": list(splits.notes),
        "train": len(splits.train),
        "validation": len(splits.validation),
        "test": len(splits.test),
        "labels": list(labels),
        "hash": splits.content_hash,
    }


def climb_task(
    task: Task,
    entries: list[Entry],
    run: Run | None,
    on: Watching,
    callbacks: tuple[Callback, ...] = (),
    *,
    verb: str,
    asked: Asked | None = None,
) -> Ended:
    """Read the rows, make the run unless there is one, and climb in it.

    Args:
        asked: of the ladder; None where one approach is trained alone.

    Raises:
        FituneError: any user mistake; a run in which nothing was learned yet is removed.
        Interrupted: asked to stop, with the command that goes on.
    """
    with StopRequest() as stop:
        on.progress("reading rows", 0, 1)
        splits = read_splits(task)
        on.progress("reading rows", 1, 1)
        labels = labels_of(task, splits)
        for note in splits.notes:
            on.notice(note)
        options = resolved_options(task, entries, labels)
        new = run is None
        run = run or create_run(Path(task.output), task.name)
        with locked(run):
            try:
                if new:
                    _record(run, task, verb, entries, data_record(splits, labels))
                else:
                    go_on(run, task, splits)
                if asked is not None:
                    metric = resolve_metric(task).name
                    entries = rung_keys(entries, options, task, splits, metric, environment())
                climbing = _Climbing(run, task, entries, splits, labels, stop, on, callbacks)
                result, curve = climbing.climb(asked), None
                if asked is not None and asked.curve is not None:
                    curve = climbing.curve(result, asked.curve or result.recommendation.choice)
            except (Interrupted, KeyboardInterrupt) as error:
                _report_unfinished(run)
                words = ["--resume", str(run.folder), *(asked.flags if asked else ())]
                command = f"fitune {verb} {shlex.join(words)}"
                raise Interrupted(command) from error
            except FituneError:
                if new and not any(path.is_file() for path in run.folder.glob("rungs/**/*")):
                    shutil.rmtree(run.folder, ignore_errors=True)  # nothing was learned yet
                else:
                    _report_unfinished(run)
                raise
            write_report(run.folder)
    return Ended(run, result, curve, splits.notes)


@dataclass(frozen=True)
class _Climbing:
    """What every part of a climb needs."""

    run: Run
    task: Task
    entries: list[Entry]
    splits: Splits
    labels: tuple[str, ...]
    stop: StopRequest
    on: Watching
    callbacks: tuple[Callback, ...]

    def climb(self, asked: Asked | None) -> Climb:
        task, run = self.task, self.run
        minutes = asked.budget_minutes if asked else None
        reuse = asked is not None and not asked.fresh
        return climb(
            self.entries,
            self.splits,
            metric=resolve_metric(task),
            target=task.target,
            run=run,
            work_for=lambda name, progress, notice: self._work(run.rung(name), progress, notice),
            stop_requested=self._stop_requested,
            on=self.on,
            earlier=earlier_runs(Path(task.output), run) if reuse else (),
            budget=None if minutes is None else Budget(60 * minutes),
            diagnosed=lambda answers: diagnose(
                task.kind, self.labels, self.splits, answers, passages_of(task)
            ),
            documents=bool(task.data.documents),
            asked=asked or Asked(),
            also=resolve_also(task),
            judged=None if task.judge is None else self._judge,
        )

    def curve(self, result: Climb, name: str) -> Curve | None:
        """What more training rows would bring the rung `name`; None where it was not run."""
        rung = next((rung for rung in result.rungs if rung.name == name), None)
        if rung is None:
            self.on.notice(f"{name}: no learning curve, as the rung was not run.")
            return None
        return draw_curve(
            next(entry for entry in self.entries if entry.name == name),
            rung,
            self.splits,
            metric=resolve_metric(self.task),
            run=self.run,
            work_for=self._work,
            stop_requested=self._stop_requested,
            on=self.on,
        )

    def _work(self, folder: Path, progress: Progress, notice: Callable[[str], None]) -> Work:
        return make_work(
            self.task,
            self.labels,
            resolve_metric(self.task),
            folder=folder,
            progress=progress,
            notice=notice,
            stop_requested=self._stop_requested,
            callbacks=self.callbacks,
        )

    def _stop_requested(self) -> bool:
        return self.stop.requested

    def _judge(self, name: str, answers: Mapping[str, Sequence[str]]) -> None:
        assert self.task.judge is not None
        judge_rung(
            self.task.judge,
            self.run,
            self.splits.test,
            name,
            answers,
            instruction=self.task.instruction,
            progress=self.on.progress,
            notice=lambda text: self.on.notice(f"{name}: {text}"),
            stop_requested=self._stop_requested,
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
