"""Pictures of points: quality against cost, and quality against training rows.

Knows figures and axes; knows nothing of HTML. Coordinates are per cent of the picture's width and
height (y downwards), as in `plots`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from fitune.ladder.curve import Curve
from fitune.ladder.figures import duration, score
from fitune.ladder.price import Costs
from fitune.ladder.rung import Rung
from fitune.report.plots import Axis, axis

_DURATIONS = (
    *((1e-3, "1 ms"), (1e-2, "10 ms"), (0.1, "0.1 s"), (1.0, "1 s"), (10.0, "10 s")),
    *((60.0, "1 min"), (600.0, "10 min"), (3600.0, "1 h"), (36e3, "10 h"), (36e4, "100 h")),
    *((36e5, "1,000 h"), (36e6, "10,000 h")),
)
"""Where a scale of time has its marks: about tenfold each."""

_MARKS = 6

_PIECES = 24
"""Straight pieces that a law consists of, before and after the last measured point."""


@dataclass(frozen=True)
class Stroke:
    """A straight line; `kind` is its class in the page's style."""

    x1: float
    y1: float
    x2: float
    y2: float
    kind: str


@dataclass(frozen=True)
class Spot:
    """A point, the mark written into it (may be empty), and all it stands for, in words."""

    x: float
    y: float
    kind: str
    mark: str
    name: str
    said: str


@dataclass(frozen=True)
class Picture:
    """Axes and what is drawn between them; `summary` says it without a picture."""

    x: Axis
    y: Axis
    unit: str
    strokes: tuple[Stroke, ...]
    spots: tuple[Spot, ...]
    summary: str


@dataclass(frozen=True)
class LogAxis(Axis):
    """An axis on which equal factors are equally long."""

    def at(self, value: float) -> float:
        share = math.log(max(value, self.low) / self.low) / math.log(self.high / self.low)
        return round(100 * share, 2)


def quality_against_cost(rungs: Sequence[Rung], costs: Costs, choice: str | None) -> Picture | None:
    """Each rung's metric over the time that training and a month's requests take, and the line of
    those that no other rung betters in both; None for fewer than two rungs."""
    if len(rungs) < 2:
        return None
    seconds = [max(1e-3, 3600 * expense.first_month_hours) for expense in costs.expenses]
    x = _log_axis(min(seconds), max(seconds), _DURATIONS)
    ends = [end for rung in rungs for end in (rung.interval.low, rung.interval.high)]
    y = axis(min(ends), max(ends), 4)
    strokes, spots = [], []
    for number, (rung, expense, cost) in enumerate(
        zip(rungs, costs.expenses, seconds, strict=True), 1
    ):
        kind = "chosen" if rung.name == choice else "on" if expense.on_front else "off"
        at = x.at(cost)
        low, high = _down(y, rung.interval.low), _down(y, rung.interval.high)
        strokes.append(Stroke(at, low, at, high, f"span {kind}"))
        said = f"{score(rung.value)}, {duration(cost)}"
        spots.append(Spot(at, _down(y, rung.value), kind, str(number), rung.name, said))
    front = sorted(
        (spot.x, spot.y)
        for spot, expense in zip(spots, costs.expenses, strict=True)
        if expense.on_front
    )
    for (x1, y1), (x2, y2) in pairwise(front):
        strokes += [Stroke(x1, y1, x2, y1, "front"), Stroke(x2, y1, x2, y2, "front")]
    if front:
        strokes.append(Stroke(*front[-1], 100, front[-1][1], "front"))
    unit = f"training and {costs.requests_per_month:,} answers"
    summary = "; ".join(f"{spot.name}: {spot.said}" for spot in spots)
    return Picture(x, y, unit, tuple(strokes), tuple(spots), summary)


def quality_against_rows(curve: Curve) -> Picture:
    """The points of a learning curve, the law through them, and where it goes on."""
    sizes = [point.rows for point in curve.points] + [told.rows for told in curve.forecasts]
    x = _log_axis(sizes[0], sizes[-1], tuple((rows, f"{rows:,}") for rows in sizes))
    ends = [end for point in curve.points for end in (point.interval.low, point.interval.high)]
    ends += [end for told in curve.forecasts for end in (told.low, told.high)]
    y = axis(min(ends), max(ends), 4)
    last = curve.points[-1].rows
    strokes = [
        Stroke(x.at(one), _down(y, curve.at(one)), x.at(other), _down(y, curve.at(other)), kind)
        for low, high, kind in ((sizes[0], last, "law"), (last, sizes[-1], "law further"))
        for one, other in pairwise(low * (high / low) ** (i / _PIECES) for i in range(_PIECES + 1))
    ]
    spots = []
    for point in curve.points:
        at = x.at(point.rows)
        ends_at = _down(y, point.interval.low), _down(y, point.interval.high)
        strokes.append(Stroke(at, ends_at[0], at, ends_at[1], "span on"))
        name = f"{point.rows:,} rows"
        spots.append(Spot(at, _down(y, point.value), "on", "", name, score(point.value)))
    for told in curve.forecasts:
        at = x.at(told.rows)
        strokes.append(Stroke(at, _down(y, told.low), at, _down(y, told.high), "span further"))
        said = f"{score(told.value)} expected ({score(told.low)} to {score(told.high)})"
        spots.append(Spot(at, _down(y, told.value), "further", "", f"{told.rows:,} rows", said))
    summary = "; ".join(f"{spot.name}: {spot.said}" for spot in spots)
    return Picture(x, y, "training rows", tuple(strokes), tuple(spots), summary)


def _log_axis(low: float, high: float, marks: Sequence[tuple[float, str]]) -> LogAxis:
    """From the last mark at or below `low` to the first at or above `high`."""
    first = max((i for i, (at, _) in enumerate(marks) if at <= low), default=0)
    last = min((i for i, (at, _) in enumerate(marks) if at >= high), default=len(marks) - 1)
    last = max(last, first + 1)
    kept = marks[first : last + 1]
    bare = LogAxis(kept[0][0], max(kept[-1][0], high), ())
    shown = kept if len(kept) <= _MARKS else kept[::2]  # side by side on a narrow screen
    return LogAxis(bare.low, bare.high, tuple((bare.at(at), text) for at, text in shown))


def _down(y: Axis, value: float) -> float:
    return round(100 - y.at(value), 2)
