"""A run that goes on: what must be as it was when it began, and what may be another.

Knows run folders, tasks and rows; knows nothing of what is computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fitune.config import MAY_CHANGE, Task
from fitune.data.rows import Splits
from fitune.errors import ConfigError, RunError
from fitune.runs import Run, explain_damage, open_run, write_json
from fitune.saved import read_task
from fitune.taskfile import parse_task


def resumed(
    folder: Path,
    task: Task | None,
    overrides: Sequence[str],
    verb: str,
    rung: str | None,
) -> tuple[Run, Task, str | None]:
    """A run to go on with, its task, and the rung that it tunes; nothing is written.

    Args:
        task: to be compared, with the overrides applied; None: the run's own counts.
        overrides: for the run's own task.
        verb: that is to go on.
        rung: that is to be tuned; None: the one that the run tunes.

    Raises:
        ConfigError: an override changes what must stay as it was, or no field at all.
        RunError: no run, damaged, of another verb, rung or task.
    """
    run = open_run(folder)
    known = read_task(run)
    wanted = task or parse_task(known.model_dump(), overrides, where=str(folder / "task.json"))
    if _fixed(wanted) != _fixed(known):
        if overrides:
            raise ConfigError(
                f"of a run that has begun, --set can change only {' and '.join(MAY_CHANGE)}",
                fix="leave out the other --set, or start a new run",
            )
        raise RunError(
            f"the task given differs from the one that run '{folder}' was started with",
            fix="leave the task out, or start a new run",
        )
    with explain_damage(folder / "verb.json"):
        started = run.read("verb.json")
        its_verb, its_rung = str(started["verb"]), started["rung"]
    if its_verb != verb:
        raise RunError(
            f"the run '{folder}' was started by fitune {its_verb}, not by fitune {verb}",
            fix=f"go on with `fitune {its_verb} --resume {folder}`",
        )
    if rung not in (None, its_rung):
        raise RunError(
            f"the run '{folder}' tunes '{its_rung}', not '{rung}'",
            fix="leave out --rung, or start a new run",
        )
    return run, wanted, its_rung


def go_on(run: Run, task: Task, splits: Splits) -> None:
    """Refuse other rows than the run was started with, and record what was changed.

    Raises:
        RunError: the rows differ.
    """
    with explain_damage(run.folder / "data.json"):
        known = run.read("data.json")["hash"]
    if known != splits.content_hash:
        raise RunError(
            f"the rows changed since run '{run.folder}' was started, so its rungs could not be "
            "compared",
            fix="restore the data files, or start a new run",
        )
    if read_task(run) != task:
        write_json(run.folder / "task.json", task.model_dump(mode="json"))


def _fixed(task: Task) -> dict[str, Any]:
    """A task without what may change."""
    facts = task.model_dump(mode="json")
    for approach in facts["approaches"]:
        for name in MAY_CHANGE:
            approach.pop(name, None)
    return facts
