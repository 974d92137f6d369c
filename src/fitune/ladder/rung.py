"""What is known of one rung of the ladder once it answered the test rows.

Knows figures only; knows nothing of how they were made or shown.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from fitune.evaluation.significance import Comparison, Interval


@dataclass(frozen=True)
class Rung:
    """One row of the ladder's table.

    Attributes:
        name: unique within the ladder.
        use: the approach (`majority`, `finetuned`, …).
        model: the model's name, None where there is none.
        method: for `finetuned`, which parameters trained (`full`, `lora`, …).
        metric: the task's metric; `value` is its value on the test rows.
        interval: 95 % interval of `value` (bootstrap over test rows).
        metrics: further metrics of the same predictions, by name.
        against: the name of the rung below it was compared with; None for the first.
        comparison: this rung minus the rung below, paired over the same test rows.
        train_rows: rows it learned from (examples shown, for few-shot).
        train_seconds: wall time of `fit`.
        seconds_per_1000: wall time of 1,000 answers, from the time of the test rows.
        peak_memory_bytes: peak resident memory of the process (device memory on CUDA) in this rung.
        parameters, trainable_parameters: see `approaches.base.Cost`.
        notes: sentences the user should read.
    """

    name: str
    use: str
    model: str | None
    method: str | None
    metric: str
    value: float
    interval: Interval
    metrics: dict[str, float]
    against: str | None
    comparison: Comparison | None
    train_rows: int
    train_seconds: float
    seconds_per_1000: float
    peak_memory_bytes: int
    parameters: int
    trainable_parameters: int
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Rung:
        comparison = record["comparison"]
        return cls(
            **{
                **record,
                "interval": Interval(**record["interval"]),
                "comparison": Comparison(**comparison) if comparison else None,
                "notes": tuple(record["notes"]),
            }
        )
