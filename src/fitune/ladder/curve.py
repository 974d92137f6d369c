"""What more training rows would bring: a rung fitted on parts of them, and a law drawn on.

Knows approaches by their interface, and run folders; knows nothing of what an approach does. Each
part is on disk before the next begins, so that an interrupted curve goes on where it stopped.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fitune.approaches.base import Progress, Work
from fitune.data.rows import Rows, Splits
from fitune.errors import DataError, Interrupted
from fitune.evaluation.metrics import Metric
from fitune.evaluation.significance import LEVEL, Interval, interval
from fitune.ladder.climb import Entry, Watching, naming
from fitune.ladder.figures import p_value, score
from fitune.ladder.finished import read_finished
from fitune.ladder.power_law import Floats, PowerLaw, fit
from fitune.ladder.rung import Rung
from fitune.ladder.subset import capped, nested
from fitune.runs import Run, explain_damage, read_json, read_jsonl, write_json, write_jsonl

PARTS = (8, 4, 2)
"""A rung is fitted on one in so many of its training rows; on all of them it already was."""

FURTHER = (2, 4)
"""Times its training rows that the law is drawn on to: beyond, no one should believe it."""

FEWEST = 4
"""Rows in the smallest part."""

RESAMPLES = 1_000
SLOW_RESAMPLES = 100
"""For a metric of the user's own, which is called once for each."""


@dataclass(frozen=True)
class Point:
    """The metric of the test rows after learning from `rows` rows."""

    rows: int
    value: float
    interval: Interval
    train_seconds: float


@dataclass(frozen=True)
class Forecast:
    """What the law says of `rows` rows; the interval is over test rows (bootstrap)."""

    rows: int
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Curve:
    """A rung's metric over the number of its training rows.

    Attributes:
        ceiling: the metric at its best; the error is what is missing to it.
        floor, gain, exponent: of the law: error(n) = floor + gain · (n / rows) ^ −exponent, where
            `rows` are those of the last point.
        fit_p: chance of points at least as far from the law were it true; below 0.05 the law does
            not hold.
        sentences: what it all says.
    """

    rung: str
    metric: str
    ceiling: float
    points: tuple[Point, ...]
    floor: float
    gain: float
    exponent: float
    fit_p: float
    forecasts: tuple[Forecast, ...]
    sentences: tuple[str, ...]

    def at(self, rows: float) -> float:
        """The metric that the law says."""
        error = self.floor + self.gain * (rows / self.points[-1].rows) ** -self.exponent
        return self.ceiling - error

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Curve:
        points = tuple(
            Point(**{**point, "interval": Interval(**point["interval"])})
            for point in record["points"]
        )
        forecasts = tuple(Forecast(**forecast) for forecast in record["forecasts"])
        sentences = tuple(record["sentences"])
        return cls(**{**record, "points": points, "forecasts": forecasts, "sentences": sentences})


def draw_curve(
    entry: Entry,
    rung: Rung,
    splits: Splits,
    *,
    metric: Metric,
    run: Run,
    work_for: Callable[[Path, Progress, Callable[[str], None]], Work],
    stop_requested: Callable[[], bool],
    on: Watching,
) -> Curve:
    """Fit the entry on parts of its training rows, each within the next, and draw the law on.

    What is made is `curve/curve.json` of the run, and `curve/<rung>/<rows>/` for each part.

    Args:
        rung: what the entry did with all of its rows.
        work_for: (folder, progress, notice) → the work an approach is given.

    Raises:
        DataError: too few training rows.
        Interrupted: asked to stop; finished parts are saved.
    """
    train = splits.train
    if entry.max_train_rows is not None and len(train) > entry.max_train_rows:
        train = capped(train, entry.max_train_rows)
    if len(train) < FEWEST * PARTS[0]:
        raise DataError(
            f"a learning curve needs {FEWEST * PARTS[0]} training rows, and there are {len(train)}",
            fix="leave out --curve, or give more rows",
        )
    sizes = [len(train) // part for part in PARTS]
    answers: list[list[str]] = []
    points: list[Point] = []
    for part in nested(train, sizes):
        folder = run.folder / "curve" / entry.name / str(len(part))
        if not (folder / "point.json").is_file():
            with naming(entry.name):
                _learn(entry, part, splits, metric, folder, work_for, stop_requested, on)
        with explain_damage(folder / "point.json"):
            record = read_json(folder / "point.json")
            points.append(Point(**{**record, "interval": Interval(**record["interval"])}))
        with explain_damage(folder / "predictions.jsonl"):
            answers.append([line["text"] for line in read_jsonl(folder / "predictions.jsonl")])
    _, whole = read_finished(run, rung.name)
    points.append(Point(len(train), rung.value, rung.interval, rung.train_seconds))
    answers.append([prediction.text for prediction in whole])
    curve = drawn_on(rung.name, metric, points, answers, splits.test.answers)
    write_json(run.folder / "curve" / "curve.json", curve.to_json())
    return curve


def _learn(
    entry: Entry,
    part: Rows,
    splits: Splits,
    metric: Metric,
    folder: Path,
    work_for: Callable[[Path, Progress, Callable[[str], None]], Work],
    stop_requested: Callable[[], bool],
    on: Watching,
) -> None:
    def progress(label: str, done: int, total: int) -> None:
        on.progress(f"{entry.name} on {len(part):,} rows: {label}", done, total)
        if stop_requested() and label == "answering":
            raise Interrupted("")

    approach = entry.make(work_for(folder, progress, lambda text: None))
    started = time.perf_counter()
    approach.fit(part, splits.validation)
    seconds = time.perf_counter() - started
    if stop_requested():
        raise Interrupted("")
    said = [prediction.text for prediction in approach.predict(splits.test, progress)]
    references = splits.test.answers
    point = Point(
        len(part), metric.function(said, references), interval(metric, said, references), seconds
    )
    write_jsonl(folder / "predictions.jsonl", [{"text": text} for text in said])
    write_json(folder / "point.json", asdict(point))
    del approach
    gc.collect()


def drawn_on(
    rung: str,
    metric: Metric,
    points: Sequence[Point],
    answers: Sequence[Sequence[str]],
    references: Sequence[str],
) -> Curve:
    """The law through the points, and what it says of more rows.

    Each resample of the test rows gives every point another value and so another law; the spread
    of what these laws say is the interval. It does not hold what other training rows of the same
    number would have given.

    Args:
        points: ascending by rows.
        answers: the test rows' answers at each point.
    """
    ceiling = 0.0 if metric.name.startswith("neg_") else 1.0
    rows = np.array([point.rows for point in points], dtype=np.float64)
    errors = ceiling - np.array([[point.value for point in points]])
    resampled = ceiling - _resampled(metric, answers, references)
    spread = resampled.std(axis=0)
    weights = 1 / np.maximum(spread, max(spread.max() / 100, 1e-9)) ** 2
    law, laws = fit(rows, errors, weights), fit(rows, resampled, weights)
    forecasts = []
    for times in FURTHER:
        more = int(rows[-1]) * times
        low, high = np.quantile(ceiling - laws.at(more), [LEVEL / 2, 1 - LEVEL / 2])
        forecasts.append(Forecast(more, ceiling - float(law.at(more)[0]), float(low), float(high)))
    fit_p = _goodness(law, rows, errors[0], weights)
    return Curve(
        rung,
        metric.name,
        ceiling,
        tuple(points),
        float(law.floor[0]),
        float(law.gain[0]),
        float(law.exponent[0]),
        fit_p,
        tuple(forecasts),
        _said(rung, metric.name, points[-1], forecasts, fit_p),
    )


def _resampled(
    metric: Metric, answers: Sequence[Sequence[str]], references: Sequence[str]
) -> Floats:
    """The metric at each point on each resample of the test rows, the same rows for all points,
    float64 [resamples, points]."""
    rng = np.random.default_rng(0)
    count = len(references)
    if metric.statistics is None or metric.formula is None:
        drawn = [rng.integers(count, size=count).tolist() for _ in range(SLOW_RESAMPLES)]
        return np.array(
            [
                [
                    metric.function([said[i] for i in rows], [references[i] for i in rows])
                    for said in answers
                ]
                for rows in drawn
            ]
        )
    draws = np.stack(
        [np.bincount(rng.integers(count, size=count), minlength=count) for _ in range(RESAMPLES)]
    ).astype(np.float64)
    tables = [metric.statistics(said, references) for said in answers]
    return np.stack([metric.formula(draws @ table, count) for table in tables], axis=1)


def _goodness(law: PowerLaw, rows: Floats, errors: Floats, weights: Floats) -> float:
    """Of a χ² test of the residuals, in standard errors of the points."""
    from scipy.stats import chi2

    said = np.array([float(law.at(n)[0]) for n in rows])
    return float(chi2.sf((weights * (errors - said) ** 2).sum(), max(1, len(rows) - 3)))


def _said(
    rung: str, metric: str, last: Point, forecasts: Sequence[Forecast], fit_p: float
) -> tuple[str, ...]:
    told = " and ".join(
        f"{score(forecast.value)} with {times} times the rows "
        f"(95 % interval {score(forecast.low)} to {score(forecast.high)})"
        for times, forecast in zip(FURTHER, forecasts, strict=True)
    )
    first = (
        f"More rows: {rung} has {metric} {score(last.value)} after {last.rows:,} rows; drawn on, "
        f"its learning curve reaches {told}."
    )
    furthest = forecasts[-1]
    if fit_p < LEVEL:
        second = (
            f"Do not rely on it: the points do not lie on a curve of this form ({p_value(fit_p)})."
        )
    elif furthest.value - last.value < 0.0005:
        second = "The curve is flat: more rows like these would not help as far as it can tell."
    elif furthest.low <= last.value:
        second = "That is not certain: with other test rows the curve would be flat."
    else:
        second = "The interval is over test rows; other training rows would add to it."
    return first, second
