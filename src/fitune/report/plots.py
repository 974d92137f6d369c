"""The geometry of the plots: numbers in, coordinates out.

Knows axes and points; knows nothing of HTML. Coordinates are per cent of the plot's width and
height (y downwards), so a plot stretches with the page while its text keeps its size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from fitune.ladder.rung import Rung
from fitune.report.gather import Record, RungFolder

POINTS = 160
"""A training curve is averaged down to at most so many points."""


@dataclass(frozen=True)
class Axis:
    """A linear axis with round ticks: (position in per cent, label)."""

    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]

    def at(self, value: float) -> float:
        return round(100 * (value - self.low) / (self.high - self.low), 2)


@dataclass(frozen=True)
class Dot:
    """A rung's value and interval on the axis, in per cent."""

    rung: Rung
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Dots:
    """All rungs on one axis, and where the target lies."""

    axis: Axis
    dots: tuple[Dot, ...]
    target: float | None


@dataclass(frozen=True)
class Curve:
    """One line of a panel: its points in per cent, and what it says without a picture."""

    name: str
    points: tuple[tuple[float, float], ...]
    dotted: bool
    summary: str

    @property
    def path(self) -> str:
        return "M" + "L".join(f"{x:g} {y:g}" for x, y in self.points)


@dataclass(frozen=True)
class Panel:
    """A learning-curve plot over epochs."""

    title: str
    x: Axis
    y: Axis
    curves: tuple[Curve, ...]
    caption: str


def axis(low: float, high: float, ticks: int = 5) -> Axis:
    """Round numbers that enclose low … high, with about that many steps of 1, 2 or 5 × 10ⁿ."""
    if high - low < 1e-9 * max(1.0, abs(high)):
        low, high = low - 0.5 * max(abs(low), 0.1), high + 0.5 * max(abs(high), 0.1)
    rough = (high - low) / ticks
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(s * power for s in (1, 2, 5, 10) if s * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    start, end = first * step, last * step
    marks = tuple(
        (round(100 * i / (last - first), 2), f"{(first + i) * step + 0.0:.{decimals}f}")
        for i in range(last - first + 1)
    )
    return Axis(start, end, tuple((at, text.replace("-", "−")) for at, text in marks))


def dots(rungs: Sequence[Rung], target: float | None) -> Dots | None:
    """Each rung's metric with its interval; None without rungs."""
    if not rungs:
        return None
    ends = [end for rung in rungs for end in (rung.interval.low, rung.interval.high)]
    if target is not None:
        ends.append(target)
    scale = axis(min(ends), max(ends))
    return Dots(
        scale,
        tuple(
            Dot(r, scale.at(r.value), scale.at(r.interval.low), scale.at(r.interval.high))
            for r in rungs
        ),
        None if target is None else scale.at(target),
    )


def learning_curves(rung: RungFolder, metric: str) -> list[Panel]:
    """The rung's loss and its validation score over epochs; empty for a rung that did not train."""
    train = _points(rung.records, "train", "loss")
    checked = _points(rung.records, "validation", "loss")
    scores = _points(rung.records, "validation", "score")
    panels = []
    if train or checked:
        panels.append(
            _panel("Loss", [("training", _thinned(train), False), ("validation", checked, True)])
        )
    if scores:
        best = max(scores, key=lambda point: point[1])
        caption = f"best {best[1]:.3f} after epoch {best[0]:.3g}".replace("-", "−")
        panels.append(_panel(f"Validation {metric}", [("validation", scores, True)], caption))
    return panels


Points = list[tuple[float, float]]


def _points(records: Sequence[Record], kind: str, name: str) -> Points:
    """(epoch, value) of the records that have one; what is not a finite number cannot be drawn."""
    found = []
    for record in records:
        at, value = record.get("epoch"), record.get(name)
        drawable = all(isinstance(v, (int, float)) and math.isfinite(v) for v in (at, value))
        if record.get("kind") == kind and drawable:
            found.append((float(at or 0), float(value or 0)))
    return found


def _thinned(points: Points) -> Points:
    """The mean of each of at most POINTS equal runs of points."""
    if len(points) <= POINTS:
        return points
    edges = [round(i * len(points) / POINTS) for i in range(POINTS + 1)]
    runs = [points[a:b] for a, b in pairwise(edges)]
    return [(sum(x for x, _ in r) / len(r), sum(y for _, y in r) / len(r)) for r in runs]


def _panel(title: str, lines: list[tuple[str, Points, bool]], caption: str = "") -> Panel:
    lines = [line for line in lines if line[1]]
    x = axis(0.0, max(at for _, points, _ in lines for at, _ in points) or 1.0, 4)
    values = [value for _, points, _ in lines for _, value in points]
    y = axis(min(values), max(values), 4)
    curves = tuple(
        Curve(
            name,
            tuple((x.at(at), round(100 - y.at(value), 2)) for at, value in points),
            dotted,
            f"{name} from {points[0][1]:.3f} to {points[-1][1]:.3f}",
        )
        for name, points, dotted in lines
    )
    return Panel(title, x, y, curves, caption)
