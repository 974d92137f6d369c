"""What the verbs return: typed, and printable as JSON.

Knows figures and paths; knows nothing of how they came about.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fitune.evaluation.significance import Interval
from fitune.hardware import Machine
from fitune.ladder.budget import Skipped
from fitune.ladder.curve import Curve
from fitune.ladder.diagnose import Diagnosis
from fitune.ladder.price import Costs
from fitune.ladder.recommend import Recommendation
from fitune.ladder.rung import Rung
from fitune.language_models.figures import ModelFigures
from fitune.training.profile import Profile


@dataclass(frozen=True)
class LadderResult:
    """Where the run is, its rungs in order, which one to use, and what is behind that.

    Attributes:
        diagnoses: why each rung's wrong answers are wrong.
        skipped: rungs that the budget left no time for.
        costs: of training and of a month's requests.
        curve: what more training rows would bring; None where it was not asked for.
    """

    run: Path
    rungs: tuple[Rung, ...]
    recommendation: Recommendation
    diagnoses: tuple[Diagnosis, ...]
    skipped: tuple[Skipped, ...]
    costs: Costs
    curve: Curve | None
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
class ProfileResult:
    """Where the time of the first steps of a training goes.

    Attributes:
        rung, model: as in the task file.
        options: of the approach, every one with its value.
        device: what computed, in words.
        profile: what was measured.
    """

    rung: str
    model: str
    options: dict[str, Any]
    device: str
    profile: Profile
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "profile": self.profile.to_json()}


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


@dataclass(frozen=True)
class LmResult:
    """Language models side by side on one corpus.

    Attributes:
        corpus: as the user wrote it.
        unit: what a sequence is: lines, sections or documents.
        tokens: words, characters or subwords.
        vocabulary: how many there are.
        train_tokens: of the training texts, ends of sequences not counted.
        sequences: of training, validation and test.
        models: in the order asked for.
        saved, plot: what was written; None where it was not asked for.
        seconds: that all of it took.
    """

    corpus: str
    unit: str
    tokens: str
    vocabulary: int
    train_tokens: int
    sequences: tuple[int, int, int]
    models: tuple[ModelFigures, ...]
    notes: tuple[str, ...]
    saved: Path | None
    plot: Path | None
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """A perplexity that is infinite is null."""
        return {**asdict(self), "models": [model.to_json() for model in self.models]}
