"""What rungs cost: training once, and answering a month's requests.

Knows rungs' measured times; knows nothing of what anything is worth. All times are of the machine
of this run, one request after the other as the test rows were answered; a price turns hours into
money and changes no comparison.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fitune.ladder.rung import Rung

HOUR = 3600.0


@dataclass(frozen=True)
class Expense:
    """One rung's machine time, in hours, and the money it costs where there is a price.

    Attributes:
        training_hours: once.
        serving_hours: a month.
        training_money, serving_money: the same times the price; None without one.
        on_front: whether no other rung is both better and cheaper: at least as good in one, and
            strictly better in the other.
    """

    rung: str
    value: float
    training_hours: float
    serving_hours: float
    training_money: float | None
    serving_money: float | None
    on_front: bool

    @property
    def first_month_hours(self) -> float:
        return self.training_hours + self.serving_hours


@dataclass(frozen=True)
class BreakEven:
    """From how many requests on a tuned model is cheaper than asking one as it is.

    Attributes:
        asked, tuned: names of the two rungs.
        requests: in all, the first at which the tuned one has cost less; 1 where it always has;
            None where it never will.
    """

    asked: str
    tuned: str
    requests: int | None


@dataclass(frozen=True)
class Costs:
    """All of it.

    Attributes:
        requests_per_month, price_per_hour: as asked; no price: None.
    """

    requests_per_month: int
    price_per_hour: float | None
    expenses: tuple[Expense, ...]
    break_evens: tuple[BreakEven, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def costs(rungs: Sequence[Rung], requests_per_month: int, price_per_hour: float | None) -> Costs:
    """What each rung costs, in the ladder's order, and the break-even of each pair of a model that
    is asked as it is with one that was tuned."""
    asked = [rung for rung in rungs if rung.model is not None and not rung.trainable_parameters]
    tuned = [rung for rung in rungs if rung.model is not None and rung.trainable_parameters]
    first_month = {
        rung.name: rung.train_seconds + _serving_seconds(rung, requests_per_month) for rung in rungs
    }
    expenses = []
    for rung in rungs:
        training = rung.train_seconds / HOUR
        serving = _serving_seconds(rung, requests_per_month) / HOUR
        expenses.append(
            Expense(
                rung.name,
                rung.value,
                training,
                serving,
                None if price_per_hour is None else training * price_per_hour,
                None if price_per_hour is None else serving * price_per_hour,
                not any(_beats(other, rung, first_month) for other in rungs),
            )
        )
    return Costs(
        requests_per_month,
        price_per_hour,
        tuple(expenses),
        tuple(BreakEven(a.name, t.name, break_even(a, t)) for a in asked for t in tuned),
    )


def break_even(asked: Rung, tuned: Rung) -> int | None:
    """The smallest whole number of requests n ≥ 1 at which

        tuned.train + n · tuned.answer < asked.train + n · asked.answer;

    None where there is none (more training, and no quicker answers).
    """
    more = tuned.train_seconds - asked.train_seconds
    saved = (asked.seconds_per_1000 - tuned.seconds_per_1000) / 1000
    if saved > 0:
        return max(1, math.floor(more / saved) + 1)
    return 1 if more + -saved < 0 else None


def _serving_seconds(rung: Rung, requests: int) -> float:
    return rung.seconds_per_1000 * requests / 1000


def _beats(other: Rung, rung: Rung, cost: dict[str, float]) -> bool:
    better, cheaper = other.value - rung.value, cost[rung.name] - cost[other.name]
    return better >= 0 and cheaper >= 0 and better + cheaper > 0
