"""What a run that goes on may have otherwise than it began, and that it is recorded."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fitune.config import Task
from fitune.data.load import load_splits
from fitune.errors import ConfigError, RunError
from fitune.resuming import go_on, resumed
from fitune.runs import Run, write_json
from fitune.taskfile import parse_task

SMALLER = "approaches.1.micro_batch_tokens=64"


@pytest.fixture
def begun(tmp_path: Path, intents: Path) -> Callable[[], tuple[Run, Task]]:
    """A run that began to tune its second approach."""

    def begin() -> tuple[Run, Task]:
        tuned = {"use": "finetuned", "name": "b", "model": "minilm-l6", "epochs": 2}
        task = parse_task(
            {
                "kind": "classify",
                "data": {"train": str(intents)},
                "approaches": [{"use": "majority"}, tuned],
            }
        )
        run = Run(tmp_path / "task-1")
        write_json(run.folder / "verb.json", {"verb": "tune", "rung": "b"})
        write_json(run.folder / "data.json", {"hash": rows(task).content_hash})
        write_json(run.folder / "task.json", task.model_dump(mode="json"))
        return run, task

    return begin


def rows(task: Task) -> Any:
    return load_splits(task.data, task.kind, download=False)


def test_the_cut_of_a_batch_may_change_and_is_recorded(begun: Any) -> None:
    run, task = begun()
    changes = [SMALLER, "approaches.1.checkpoint_steps=7"]
    _, wanted, rung = resumed(run.folder, None, changes, "tune", None)
    assert rung == "b"
    assert json.loads((run.folder / "task.json").read_text()) == task.model_dump(mode="json")
    go_on(run, wanted, rows(wanted))
    _, again, _ = resumed(run.folder, None, [], "tune", "b")
    tuned = again.approaches[1]
    assert (tuned.micro_batch_tokens, tuned.checkpoint_steps, tuned.epochs) == (64, 7, 2)


def test_a_task_file_may_say_so_as_well(begun: Any) -> None:
    run, task = begun()
    changed = parse_task(task.model_dump(), [SMALLER])
    assert resumed(run.folder, changed, [], "tune", None)[1] == changed
    other = parse_task(task.model_dump(), ["approaches.1.epochs=3"])
    with pytest.raises(RunError, match="the task given differs"):
        resumed(run.folder, other, [], "tune", None)


@pytest.mark.parametrize("change", ["seed=1", "approaches.1.epochs=3", "approaches.1.batch_size=8"])
def test_nothing_else_may(begun: Any, change: str) -> None:
    run, _ = begun()
    with pytest.raises(ConfigError, match="only micro_batch_tokens and checkpoint_steps"):
        resumed(run.folder, None, [SMALLER, change], "tune", None)


@pytest.mark.parametrize("change", ["approaches.2.micro_batch_tokens=64", SMALLER + "x", "x=1"])
def test_a_change_must_be_one(begun: Any, change: str) -> None:
    run, _ = begun()
    with pytest.raises(ConfigError):
        resumed(run.folder, None, [change], "tune", None)


def test_other_rows_are_refused_and_nothing_is_recorded(begun: Any, intents: Path) -> None:
    run, task = begun()
    _, wanted, _ = resumed(run.folder, None, [SMALLER], "tune", None)
    intents.write_text(intents.read_text().replace("card", "cards"))
    with pytest.raises(RunError, match="the rows changed"):
        go_on(run, wanted, rows(wanted))
    assert json.loads((run.folder / "task.json").read_text()) == task.model_dump(mode="json")
