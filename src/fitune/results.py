"""What the verbs return: typed, and printable as JSON.

Knows figures and paths; knows nothing of how they came about.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fitune.evaluation.significance import Interval
from fitune.hardware import Machine
from fitune.ladder.recommend import Recommendation
from fitune.ladder.rung import Rung


@dataclass(frozen=True)
class LadderResult:
    """Where the run is, its rungs in order, and which one to use."""

    run: Path
    rungs: tuple[Rung, ...]
    recommendation: Recommendation
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "run": str(self.run)}


@dataclass(frozen=True)
class TuneResult:
    """Where the run is, and how the tuned model did on the test rows."""

    run: Path
    rung: Rung
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "run": str(self.run)}


@dataclass(frozen=True)
class EvaluateResult:
    """How a saved rung did on rows.

    Attributes:
        rung: which rung of the run answered.
        rows: how many rows.
        predictions: one record a row: source, text, answer, prediction, scores, stopped.
    """

    rung: str
    metric: str
    value: float
    interval: Interval
    metrics: dict[str, float]
    rows: int
    predictions: tuple[dict[str, Any], ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class ShownRow:
    """A row as a model sees it: (text of the token, whether it is learned, why it is there)."""

    source: str
    tokens: tuple[tuple[str, bool, str], ...]


@dataclass(frozen=True)
class CheckResult:
    """What is in the data, and what may be wrong with it.

    Attributes:
        train, validation, test: row counts.
        labels: for classify.
        findings: what the checks found, worst first.
    """

    train: int
    validation: int
    test: int
    labels: tuple[str, ...]
    notes: tuple[str, ...]
    findings: tuple[Any, ...]
    shown: tuple[ShownRow, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Extra:
    """An optional extra: whether its packages are there, and the command that brings them."""

    name: str
    installed: bool
    command: str


@dataclass(frozen=True)
class OfflineModel:
    """A packaged model: the file it is in, None where it is missing, and the command for it."""

    name: str
    path: Path | None
    command: str


@dataclass(frozen=True)
class DoctorResult:
    """What this machine has and what is missing."""

    machine: Machine
    versions: dict[str, str]
    extras: tuple[Extra, ...]
    models: tuple[OfflineModel, ...]

    def to_json(self) -> dict[str, Any]:
        record = asdict(self)
        for model in record["models"]:
            model["path"] = str(model["path"]) if model["path"] else None
        return record
