"""metrics.jsonl: what a killed process wrote beyond its checkpoint is taken back."""

from __future__ import annotations

from pathlib import Path

from fitune.runs import read_jsonl
from fitune.training.track import MetricsFile


def test_rewind_takes_back_and_says_what_there_was(tmp_path: Path) -> None:
    made = MetricsFile(tmp_path / "deep" / "metrics.jsonl")
    assert made.rewind(-1) == {}
    for kind, step in [("validation", 0), ("train", 1), ("train", 2), ("validation", 2)]:
        made.write({"kind": kind, "step": step})
    made.write({"kind": "train", "step": 3})
    assert made.rewind(2) == {"train": 3, "validation": 2}
    assert [(r["kind"], r["step"]) for r in read_jsonl(made.path)] == [
        ("validation", 0), ("train", 1), ("train", 2), ("validation", 2),
    ]  # fmt: skip
    assert made.rewind(-1) == {"train": 2, "validation": 2}
    assert read_jsonl(made.path) == []
