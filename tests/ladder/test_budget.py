"""Expected times: drawn on from two trials by a clock that the test winds."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from fitune.approaches.base import Cost, Prediction, Work
from fitune.config import Task
from fitune.data.rows import Row, Rows, Splits
from fitune.ladder.budget import Budget, expected_seconds


def rows(name: str, count: int) -> Rows:
    return Rows(tuple(Row(f"{name} {i}", "ab"[i % 2]) for i in range(count)))


SPLITS = Splits(rows("train", 1600), rows("validation", 160), rows("test", 400))


class Timed:
    """Takes seconds that are a straight line in the rows."""

    def __init__(self, clock: list[float], seen: list[Any], work: Work) -> None:
        self.clock, self.seen, self.work, self.cost = clock, seen, work, Cost(1, 1, 1)
        self.options: dict[str, Any] = {}

    def fit(self, train: Rows, validation: Rows) -> None:
        self.seen.append((len(train), len(validation), self.work.folder))
        (self.work.folder / "written.txt").write_text("")
        self.work.notice("not shown")
        self.clock[0] += 3.0 + 0.1 * len(train) + 0.05 * len(validation)

    def predict(self, given: Rows, progress: Any) -> list[Prediction]:
        assert set(given) <= set(SPLITS.test)
        self.clock[0] += 1.0 + 0.2 * len(given)
        return [Prediction("a")] * len(given)

    def save(self, folder: Path) -> None: ...


def test_loading_is_told_from_what_grows_with_the_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, seen = [0.0], []
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])

    def said(text: str) -> None:
        raise AssertionError(text)

    work = Work(Task(kind="classify", data={"train": "x"}), ("a", "b"), tmp_path / "rung",
                lambda *told: None, said, lambda p, r: 0.0, "cpu", "fp32", 10**9,
                lambda: False)  # fmt: skip
    found = expected_seconds(lambda w: Timed(clock, seen, w), SPLITS, work, tmp_path)
    truth = 3.0 + 0.1 * 1600 + 0.05 * 160 + 1.0 + 0.2 * 400
    assert found == pytest.approx(truth, rel=0.02)
    assert [(train, validation) for train, validation, _ in seen] == [(16, 2), (64, 6)]
    assert list(tmp_path.iterdir()) == [], "trials leave nothing behind"


def test_without_a_limit_nothing_is_asked() -> None:
    def never() -> float:
        raise AssertionError

    assert Budget(None).refusal(never) is None and Budget(None).left is None
