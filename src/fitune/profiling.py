"""What `tune --profile` does: the first steps of a task's training, measured and thrown away.

Knows entries, rows and the ladder's way of choosing rows; knows nothing of terminals or run
folders: what the approach writes goes to a temporary one.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from fitune.approaches.finetuned import Finetuned
from fitune.approaches.finetuned_profile import profile
from fitune.config import Task
from fitune.data.rows import Splits
from fitune.entries import make_work, resolve_metric
from fitune.ladder.climb import Entry, Watching, naming
from fitune.ladder.subset import capped
from fitune.machine import processor
from fitune.results import ProfileResult
from fitune.signals import StopRequest


def profile_entry(
    task: Task,
    entry: Entry,
    splits: Splits,
    labels: tuple[str, ...],
    steps: int,
    on: Watching,
) -> ProfileResult:
    """Where the time of the first steps of a fine-tuned approach goes.

    Raises:
        FituneError: any user mistake, in one sentence.
        Interrupted: Ctrl-C or SIGTERM.
    """
    notes: list[str] = []

    def notice(text: str) -> None:
        notes.append(text)
        on.notice(text)

    train = splits.train
    if entry.max_train_rows is not None and len(train) > entry.max_train_rows:
        train = capped(train, entry.max_train_rows)
    with tempfile.TemporaryDirectory(prefix="fitune-") as folder, StopRequest() as stop:

        def progress(label: str, done: int, total: int) -> None:
            on.progress(label, done, total)
            if stop.requested:
                raise KeyboardInterrupt

        work = make_work(
            task,
            labels,
            resolve_metric(task),
            folder=Path(folder),
            progress=progress,
            notice=notice,
            stop_requested=lambda: stop.requested,
        )
        with naming(entry.name):
            approach = entry.make(work)
            assert isinstance(approach, Finetuned)
            measured = profile(approach, train, splits.validation, steps)
    return ProfileResult(
        rung=entry.name,
        model=entry.model or "",
        options=approach.options,
        device=processor(work.device),
        profile=measured,
        notes=tuple(notes),
    )
