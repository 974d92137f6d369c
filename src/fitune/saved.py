"""A run opened again, to answer new rows.

Knows run folders and approaches; knows nothing of training.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

from fitune.approaches.base import Approach, Prediction
from fitune.config import Task
from fitune.data.rows import Row, Rows
from fitune.entries import load_approach, make_work, resolve_also, resolve_metric
from fitune.errors import RunError
from fitune.evaluation.metrics import Metric
from fitune.runs import Run, explain_damage, open_run


def read_task(run: Run) -> Task:
    """The task that a run was started with.

    Raises:
        RunError: damaged, or written by another version of fitune.
    """
    with explain_damage(run.folder / "task.json"):
        return Task.model_validate(run.read("task.json"))


def _warn(text: str) -> None:
    warnings.warn(text, stacklevel=2)


class SavedModel:
    """One rung of a run, ready to answer.

    Args:
        folder: a run folder.
        rung: which rung; None for the recommended one.
        notice: told what the user should know of the answers, e.g. how many texts were cut;
            default: a Python warning.

    Raises:
        RunError: no such run or rung, or the run is not finished and no rung is named.
    """

    def __init__(
        self,
        folder: str | Path,
        rung: str | None = None,
        notice: Callable[[str], None] = _warn,
    ) -> None:
        self.run = open_run(Path(folder))
        # Where the run was trained says nothing of the machine that it answers on.
        self.task = read_task(self.run).model_copy(update={"device": "auto"})
        self.metric: Metric = resolve_metric(self.task)
        self.also: tuple[Metric, ...] = resolve_also(self.task)
        self.rung = rung or _recommended(self.run)
        known = sorted(p.parent.name for p in self.run.folder.glob("rungs/*/rung.json"))
        if self.rung not in known:
            raise RunError(
                f"the run '{folder}' has no finished rung '{self.rung}'",
                fix=f"use one of {', '.join(known)}" if known else "finish the run first",
            )
        with explain_damage(self.run.folder / "data.json"):
            self.labels: tuple[str, ...] = tuple(self.run.read("data.json")["labels"])
        work = make_work(
            self.task,
            self.labels,
            self.metric,
            folder=self.run.rung(self.rung),
            progress=lambda label, done, total: None,
            notice=notice,
            stop_requested=lambda: False,
        )
        self.approach: Approach = load_approach(self.run, self.rung, work)

    def predict(self, texts: Sequence[str]) -> list[Prediction]:
        """Answer texts, in order: ``.text`` is the answer, ``.scores`` the labels' probabilities.

        Raises:
            DataError: a text is longer than the model takes and the task refuses such rows.
        """
        rows = Rows(tuple(Row(text, source=f"text {i + 1}") for i, text in enumerate(texts)))
        return self.predict_rows(rows)

    def predict_rows(
        self, rows: Rows, progress: Callable[[str, int, int], None] = lambda *_: None
    ) -> list[Prediction]:
        """Answer rows, in order."""
        return self.approach.predict(rows, progress) if len(rows) else []


def _recommended(run: Run) -> str:
    with explain_damage(run.folder / "ladder.json"):
        state = run.read("ladder.json") if run.has("ladder.json") else {}
        if recommendation := state.get("recommendation"):
            return str(recommendation["choice"])
    raise RunError(
        f"the run '{run.folder}' is not finished, so none of its rungs is recommended",
        fix=f"go on with `fitune ladder --resume {run.folder}`, or name a rung",
    )
