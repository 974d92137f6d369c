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


def explain(run: Path) -> Path:
    """Adds what a ladder with everything asked for leaves: diagnoses, costs, a curve, passages."""
    record = json.loads((run / "ladder.json").read_text())
    names = record["rungs"]
    example = {"row": 1, "text": HOSTILE, "reference": HOSTILE, "answer": HOSTILE, "why": HOSTILE}
    cause = {"name": "information", "count": 9, "share": 0.75, "reasons": [[HOSTILE, 9]],
             "examples": [example], "also_right": [names[0], 4]}  # fmt: skip
    other = {**cause, "name": "capacity", "count": 3, "share": 0.25, "also_right": None}
    record["diagnoses"] = [
        {"rung": name, "rows": 24, "errors": 12, "shown": False, "causes": [cause, other]}
        for name in names
    ]
    record["skipped"] = [{"name": "slow", "reason": f"it would take 2 h {HOSTILE}"}]
    record |= {"requests_per_month": 7000, "price_per_hour": 1.5}
    dump(run / "ladder.json", record)
    spread = {"low": 0.4, "high": 0.8}
    dump(run / "curve" / "curve.json", {
        "rung": names[-1], "metric": "accuracy", "ceiling": 1.0, "floor": 0.1, "gain": 0.2,
        "exponent": 0.5, "fit_p": 0.3, "sentences": ["More rows: it rises.", "So it seems."],
        "points": [{"rows": 100 * 2**i, "value": 0.5 + i / 10, "interval": spread,
                    "train_seconds": 1.0} for i in range(4)],
        "forecasts": [{"rows": n, "value": 0.8, "low": 0.7, "high": 0.9} for n in (1600, 3200)],
    })  # fmt: skip
    folder = run / "rungs" / names[-1]
    figures = json.loads((folder / "rung.json").read_text())
    dump(folder / "rung.json", {**figures, "model": "m", "seconds_per_1000": 1.0})
    first = json.loads((run / "rungs" / names[0] / "rung.json").read_text())
    dump(run / "rungs" / names[0] / "rung.json", {
        **first, "model": "m", "trainable_parameters": 0, "train_seconds": 0.0,
    })  # fmt: skip
    shown = [{"place": f"manual {HOSTILE}", "text": HOSTILE, "score": 1.0, "cited": i == 1}
             for i in range(2)]  # fmt: skip
    answers = (folder / "predictions.jsonl").read_text().splitlines()
    lines(folder / "predictions.jsonl", [{**json.loads(a), "passages": shown} for a in answers])
    return run


@pytest.fixture
def explained(tmp_path: Path) -> Callable[..., Path]:
    """As `make_run`, with everything that may be asked for."""
    return lambda **options: explain(build(tmp_path / "task-1", **options))


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    return lambda **options: build(tmp_path / "task-1", **options)
