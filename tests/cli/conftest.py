"""A stand-in for `fitune.api`: verbs are tested for what they parse, call and print."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import fitune
from fitune.evaluation.significance import Comparison, Interval
from fitune.hardware import Gpu, Machine
from fitune.ladder.price import costs
from fitune.ladder.rung import Rung


def rung(name: str, value: float, against: str | None = None, **other: Any) -> Rung:
    comparison = Comparison(0.1, 0.05, 0.15, 0.001, "McNemar") if against else None
    settings: dict[str, Any] = {
        "use": name,
        "model": None,
        "method": None,
        "metric": "accuracy",
        "value": value,
        "interval": Interval(value - 0.03, value + 0.03),
        "metrics": {"accuracy": value, "macro_f1": value - 0.05},
        "against": against,
        "comparison": comparison,
        "train_rows": 3000,
        "train_seconds": 12.5,
        "seconds_per_1000": 0.8,
        "peak_memory_bytes": 1_500_000_000,
        "parameters": 22_700_000,
        "trainable_parameters": 22_700_000,
        "notes": (),
    }
    return Rung(name=name, **{**settings, **other})


class Result(SimpleNamespace):
    def to_json(self) -> dict[str, Any]:
        return {"result": self.kind, "text": "café ⟦"}


RUNGS = [
    rung("majority", 0.08, trainable_parameters=0, train_seconds=0.001),
    rung("linear", 0.83, "majority", trainable_parameters=260_000),
    rung("finetuned-encoder", 0.87, "linear", use="finetuned", method="full", model="minilm-l6"),
]
RECOMMENDATION = SimpleNamespace(
    choice="finetuned-encoder",
    sentences=(
        "Use finetuned-encoder: it is the best of 3 rungs.",
        "The runner-up, linear with 0.830, is 0.040 lower (p = 0.003).",
    ),
)
TOKENS = [
    ("<|im_start|>", False, "role"),
    ("user\n", False, "role"),
    ("Where is my [card]?\t\x07", False, "prompt"),
    ("card", True, "answer"),
    ("_arrival", True, "answer"),
    ("<|im_end|>", True, "end of turn"),
    ("\n", False, "after the end"),
]
MACHINE = Machine(
    system="Linux x86_64",
    cpu="AMD EPYC 9B45 128-Core Processor",
    cores=2,
    memory_total=24 * 2**30,
    memory_available=20 * 2**30,
    native_bf16=True,
    gpus=(Gpu("NVIDIA H100 80GB HBM3", 80 * 2**30, 79 * 2**30, (9, 0), True),),
    disk_free=77 * 2**30,
)


@dataclass
class FakeApi:
    """Remembers how it was called and answers with fixed results."""

    calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = field(default_factory=list)
    raises: BaseException | None = None
    during: Callable[[Any], None] | None = None
    findings: list[Any] = field(default_factory=list)

    def _answer(self, verb: str, result: Any, args: tuple[Any, ...], options: Any) -> Any:
        self.calls.append((verb, args, dict(options)))
        on = options.get("on")
        if on is not None and self.during is not None:
            self.during(on)
        if self.raises is not None:
            raise self.raises
        return result

    def ladder(self, *args: Any, **options: Any) -> Any:
        result = Result(
            kind="ladder",
            run=Path("runs/pydocs-1"),
            rungs=RUNGS,
            recommendation=RECOMMENDATION,
            diagnoses=(),
            skipped=(),
            costs=costs(RUNGS, 10_000, None),
            curve=None,
            notes=("3 rows were cut.",),
        )
        return self._answer("ladder", result, args, options)

    def plan(self, *args: Any, **options: Any) -> Any:
        plan = {"rungs": [{"name": "linear", "regularization": 10.0, "text": "café"}]}
        return self._answer("plan", plan, args, options)

    def tune(self, *args: Any, **options: Any) -> Any:
        result = Result(kind="tune", run=Path("runs/pydocs-2"), rung=RUNGS[2], notes=())
        return self._answer("tune", result, args, options)

    def evaluate(self, *args: Any, **options: Any) -> Any:
        result = Result(
            kind="evaluate",
            rung="linear",
            rows=600,
            metric="accuracy",
            value=0.83,
            interval=Interval(0.80, 0.86),
            metrics={"accuracy": 0.83, "macro_f1": 0.781},
            predictions=[{"key": "a", "text": "café", "scores": None, "stopped": None}],
        )
        return self._answer("evaluate", result, args, options)

    def check(self, *args: Any, **options: Any) -> Any:
        shown = [SimpleNamespace(source="train.csv:17", tokens=TOKENS)] * options.get("show", 0)
        result = Result(
            kind="check",
            notes=("Read 10,003 rows of train.csv: columns text (input), category (output).",),
            shown=shown,
            train=8002,
            validation=1000,
            test=1001,
            labels=("a", "b"),
            findings=self.findings,
        )
        return self._answer("check", result, args, options)

    def doctor(self, *args: Any, **options: Any) -> Any:
        result = Result(
            kind="doctor",
            machine=MACHINE,
            versions={"fitune": "0.1.0", "torch": "2.13.0+cpu"},
            extras=[
                SimpleNamespace(name="models", installed=True, command=""),
                SimpleNamespace(
                    name="quant", installed=False, command="pip install 'fitune[quant]'"
                ),
            ],
            models=[SimpleNamespace(name="minilm-l6", path=Path("/models/minilm"), command="")],
        )
        return self._answer("doctor", result, args, options)


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> FakeApi:
    fake = FakeApi()
    module = ModuleType("fitune.api")
    for verb in ("ladder", "plan", "tune", "evaluate", "check", "doctor"):
        setattr(module, verb, getattr(fake, verb))
    monkeypatch.setitem(sys.modules, "fitune.api", module)
    monkeypatch.setattr(fitune, "api", module, raising=False)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.delenv("FITUNE_DEBUG", raising=False)
    return fake
