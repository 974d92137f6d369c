"""What training asks of a kind of model and a way of learning; `tuners` lists those there are.

Knows the questions only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from fitune import config
from fitune.approaches.base import Prediction, Progress, Work
from fitune.data.encoded import Encoded
from fitune.data.rows import Row, Rows
from fitune.models.source import ModelSource
from fitune.training.loop import Trained, Validation
from fitune.training.methods import Method
from fitune.training.objectives import Objective


@dataclass(frozen=True)
class Subject:
    """What is tuned, and for which work: every tuner is made of it.

    Attributes:
        tokenizer: of transformers.
        options: those whose default depends on the rows are not resolved yet.
    """

    source: ModelSource
    tokenizer: Any
    options: config.Finetuned
    work: Work


class Tuner(Protocol):
    """What training needs to know of a kind of model."""

    model: Any

    def build(self, method: Method, options: config.Finetuned) -> None:
        """Load the model and apply the method."""

    def encode_rows(
        self, rows: Rows, *, what: str, max_length: int, **limits: Any
    ) -> tuple[list[Any], list[int], list[str]]:
        """What is learned from rows, as `data.limits.encode_rows` gives it."""

    def objective(self, items: list[Encoded], rows: list[Row], smoothing: float) -> Objective: ...

    def head_parameters(self) -> list[nn.Parameter]:
        """New parameters, which take the head's learning rate."""

    def before_training(self, validation: Sequence[Any]) -> None:
        """Compute what takes the model as it is before its first step."""

    def validate(self, items: list[Encoded], rows: Rows) -> Validation: ...

    def summary(self, trained: Trained) -> str | None:
        """What training changed, in a sentence; None where the untuned model says nothing."""

    def learn_limits(self, train: Rows) -> None:
        """Take from the training rows what answering must know, e.g. how long answers are."""

    def predict(self, rows: Rows, progress: Progress) -> list[Prediction]: ...

    def save(self, folder: Path) -> None: ...

    def load(self, folder: Path) -> None: ...
