"""Always the most frequent answer: what any other approach must beat.

Knows answers only; looks at no text.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from fitune import config
from fitune.approaches.base import Cost, Prediction, Progress, Work
from fitune.data.rows import Rows
from fitune.runs import read_json, write_json


class Majority:
    """The most frequent training answer; for classify, with the training rows' label shares."""

    def __init__(self, options: config.Majority, work: Work) -> None:
        self._options = options
        self.labels = work.labels
        self.answer = ""
        self.shares: tuple[float, ...] | None = None
        self.rows = 0

    def fit(self, train: Rows, validation: Rows) -> None:
        self.rows = len(train)
        counts = Counter(train.answers)
        # Ties go to the alphabetically first, so that row order has no influence.
        self.answer = min(counts, key=lambda answer: (-counts[answer], answer))
        if self.labels:
            self.shares = tuple(counts[label] / len(train) for label in self.labels)

    def predict(self, rows: Rows, progress: Progress) -> list[Prediction]:
        return [Prediction(self.answer, self.shares) for _ in rows]

    @property
    def cost(self) -> Cost:
        return Cost(parameters=1, trainable_parameters=1, rows=self.rows)

    @property
    def options(self) -> dict[str, Any]:
        return self._options.model_dump()

    def save(self, folder: Path) -> None:
        write_json(folder / "majority.json", {"answer": self.answer, "shares": self.shares})

    @classmethod
    def load(cls, folder: Path, work: Work) -> Majority:
        made = cls(config.Majority(), work)
        saved = read_json(folder / "majority.json")
        made.answer = saved["answer"]
        made.shares = tuple(saved["shares"]) if saved["shares"] else None
        return made
