"""What every test of approaches needs: a task, its work, and rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fitune.approaches.base import Prediction, Work
from fitune.config import Task
from fitune.data.rows import Row, Rows


@pytest.fixture
def make_work(tmp_path: Path) -> Callable[..., Work]:
    """Work for a task of the given fields; notices go into the given list."""

    def make(
        labels: tuple[str, ...] = (),
        *,
        notices: list[str] | None = None,
        folder: str = "work",
        **task: Any,
    ) -> Work:
        fields = {"kind": "classify" if labels else "generate", "data": {"train": "unused.csv"}}

        def score(predictions: list[Prediction], rows: Rows) -> float:
            hits = [p.text == row.answer for p, row in zip(predictions, rows, strict=True)]
            return sum(hits) / len(hits)

        (tmp_path / folder).mkdir(exist_ok=True)
        return Work(
            task=Task.model_validate(fields | task),
            labels=labels,
            folder=tmp_path / folder,
            progress=lambda *told: None,
            notice=(notices if notices is not None else []).append,
            score=score,
            device="cpu",
            dtype="fp32",
            memory_bytes=2**30,
            stop_requested=lambda: False,
        )

    return make


@pytest.fixture
def intent_rows(intents: Path) -> Rows:
    lines = intents.read_text().splitlines()[1:]
    pairs = [line.rpartition(",") for line in lines]
    return Rows(
        tuple(Row(text, label, source=f"row {i}") for i, (text, _, label) in enumerate(pairs))
    )


@pytest.fixture
def quietly() -> Callable[..., None]:
    """A progress callable that says nothing."""
    return lambda *told: None
