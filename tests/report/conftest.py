"""A run folder as a ladder leaves it, small enough to read."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

HOSTILE = (
    "<script>alert('x')</script><img src=http://evil.example/x.png onerror=\"alert(1)\"> & \x00"
)
LABELS = ["<b>bold</b>", "email", "json", "שלום"]


def dump(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def lines(path: Path, records: Sequence[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")


def rung(name: str, **other: Any) -> dict[str, Any]:
    return {
        "name": name, "use": "linear", "model": None, "method": None, "metric": "accuracy",
        "value": 0.5, "interval": {"low": 0.4, "high": 0.6}, "metrics": {"macro_f1": 0.44},
        "against": None, "comparison": None, "train_rows": 100, "train_seconds": 98.0,
        "seconds_per_1000": 2.5, "peak_memory_bytes": 2**30, "parameters": 22_700_000,
        "trainable_parameters": 4_880_000, "notes": [], **other,
    }  # fmt: skip


def build(
    run: Path,
    rows: int = 24,
    labels: Sequence[str] = LABELS,
    rungs: int = 3,
    kind: str = "classify",
) -> Path:
    """Rung i answers every (i + 2)-th row wrongly, with a probability that grows with the row."""
    names = [f"rung-{i}" for i in range(rungs)]
    truth = [labels[i % len(labels)] for i in range(rows)]
    texts = [HOSTILE if i == 1 else f"text number {i} \ud800" for i in range(rows)]
    turns = [{"role": "system", "text": f"be brief {HOSTILE}"}]
    dump(run / "task.json", {"name": "t", "kind": kind, "metric": None, "target": 0.55,
                             "instruction": HOSTILE, "data": {"train": HOSTILE}})  # fmt: skip
    dump(run / "environment.json", {"python": "3.11.7", "packages": {"torch": "2.13.0"}})
    dump(run / "data.json", {"notes": [f"note {HOSTILE}"], "train": 1234, "validation": 56,
                             "test": rows, "labels": list(labels), "hash": "abc"})  # fmt: skip
    lines(run / "rows.test.jsonl", [
        {"key": str(i), "text": text, "answer": answer, "history": turns if i == 1 else []}
        for i, (text, answer) in enumerate(zip(texts, truth, strict=True))
    ])  # fmt: skip
    for i, name in enumerate(names):
        folder = run / "rungs" / name
        records = []
        for row, answer in enumerate(truth):
            wrong = row % (i + 2) == 0
            said = labels[(labels.index(answer) + 1) % len(labels)] if wrong else answer
            sure = 0.5 + 0.5 * row / rows
            scores = [(1 - sure) / (len(labels) - 1)] * len(labels)
            scores[labels.index(said)] = sure
            records.append({"key": str(row), "text": said, "stopped": None,
                            "scores": scores if kind == "classify" else None})  # fmt: skip
        lines(folder / "predictions.jsonl", records)
        dump(folder / "options.json", {"rank": 16, "model": f"{name}-model"})
        comparison = {"difference": 0.1, "low": 0.02, "high": 0.2, "p_value": 0.003,
                      "test": "exact McNemar test"}  # fmt: skip
        dump(folder / "rung.json", rung(
            name, value=0.5 + i / 10, interval={"low": 0.4 + i / 10, "high": 0.6 + i / 10},
            metric="accuracy" if kind == "classify" else "token_f1",
            against=names[i - 1] if i else None, comparison=comparison if i else None,
            notes=[f"rung note {HOSTILE}"],
        ))  # fmt: skip
    lines(run / "rungs" / names[-1] / "metrics.jsonl", [
        {"kind": "train", "step": s, "epoch": s / 100, "loss": 3 / s} for s in range(1, 401)
    ] + [
        {"kind": "validation", "step": 100 * e, "epoch": float(e), "loss": 1 / e, "score": e / 10}
        for e in range(1, 5)
    ])  # fmt: skip
    dump(run / "ladder.json", {"status": "done", "rungs": names, "recommendation": {
        "choice": names[-1], "sentences": [f"Use {names[-1]}: it is best.", "Others are worse."],
    }})  # fmt: skip
    return run


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    return lambda **options: build(tmp_path / "task-1", **options)
