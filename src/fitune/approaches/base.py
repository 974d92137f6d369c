"""What every way of applying a model must do: learn from rows, answer rows, say its cost.

Knows rows and the task file; knows nothing of other approaches, of the ladder or of metrics.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from fitune.config import Task
from fitune.data.rows import Rows
from fitune.errors import ConfigError
from fitune.training.callbacks import Callback

Progress = Callable[[str, int, int], None]
"""(what is being done, how many are done, of how many)."""

Score = Callable[[list["Prediction"], Rows], float]
"""The task's metric, higher is better."""


@dataclass(frozen=True)
class Prediction:
    """One answer.

    Attributes:
        text: the label, or the generated answer.
        scores: for classify, the probability of each label, in the order of the task's labels.
        stopped: for generate, whether the model ended its answer by itself.
        passages: what was looked up and shown to the model, best first; None where nothing is.
    """

    text: str
    scores: tuple[float, ...] | None = None
    stopped: bool | None = None
    passages: tuple[Shown, ...] | None = None


@dataclass(frozen=True)
class Shown:
    """A passage that a model was shown.

    Attributes:
        place: where it stands, for people: a document and its headings, or a training row.
        text: its words, as shown.
        score: the retriever's.
        cited: whether the answer names it.
    """

    place: str
    text: str
    score: float
    cited: bool = False


@dataclass(frozen=True)
class Cost:
    """What an approach weighs.

    Attributes:
        parameters: numbers the approach needs to answer.
        trainable_parameters: those of them learned from the task's rows.
        rows: training rows that it learned from, or shows to its model.
    """

    parameters: int
    trainable_parameters: int
    rows: int


@dataclass(frozen=True)
class Work:
    """What an approach is given to work with.

    Attributes:
        task: the task file.
        labels: for classify, every label, sorted; empty for generate.
        folder: where the approach may write; kept between an interrupted run and its resumption.
        progress: called as work goes on.
        notice: takes one sentence the user should read.
        score: the task's metric, for choosing on validation rows.
        device: `cpu` or `cuda`.
        dtype: what `auto` means on this machine, `bf16` where it multiplies bf16 natively.
        memory_bytes: memory that may be used, for choosing how much is computed at once.
        stop_requested: asked between steps; True once Ctrl-C or SIGTERM arrived.
        callbacks: the user's own, told of training.
    """

    task: Task
    labels: tuple[str, ...]
    folder: Path
    progress: Progress
    notice: Callable[[str], None]
    score: Score
    device: str
    dtype: str
    memory_bytes: int
    stop_requested: Callable[[], bool]
    callbacks: tuple[Callback, ...] = ()


class Approach(Protocol):
    """One way of applying a model. Construct it with its options and the work."""

    def fit(self, train: Rows, validation: Rows) -> None:
        """Learn from `train`; choose by `validation`. Test rows are never passed."""

    def predict(self, rows: Rows, progress: Progress) -> list[Prediction]:
        """Answer each row, in order."""

    @property
    def cost(self) -> Cost:
        """Valid after `fit`."""

    @property
    def options(self) -> dict[str, Any]:
        """Every option with its resolved default, as JSON. Valid after `fit`."""

    def save(self, folder: Path) -> None:
        """Write what `load` needs, without pickle."""

    @classmethod
    def load(cls, folder: Path, work: Work) -> Approach:
        """Read what `save` wrote; the result answers exactly as before."""


def check_labels(use: str, work: Work) -> None:
    """
    Raises:
        ConfigError: the task of an approach that chooses among labels has none.
    """
    if not work.labels:
        raise ConfigError(
            f"approach '{use}' chooses among labels, and the task's kind is '{work.task.kind}'",
            fix="remove it from approaches, or set kind: classify",
        )
