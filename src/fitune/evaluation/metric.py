"""What a metric is: from predictions and references to one number, higher is better.

Knows strings and sums; knows nothing of any metric in particular. Every metric of fitune's is a sum
of per-row statistics followed by a formula (accuracy: one column and a mean; macro F1: the margins
of the confusion matrix; chrF: n-gram counts). That is why one bootstrap serves them all, at the
price of a matrix product instead of 10,000 evaluations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fitune.errors import ConfigError, DataError, FituneError

Texts = Sequence[str]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Metric:
    """One way of judging answers. Higher is better, always.

    Attributes:
        name: as written in a task file.
        kinds: the task kinds it fits.
        description: one sentence for people.
        function: (predictions, references) → the metric. Raises DataError when the two differ in
            length or are empty.
        per_row: (predictions, references) → float64 [rows] whose mean is the metric; None where the
            metric is not a mean over rows.
        statistics: (predictions, references) → float64 [rows, d], to be summed over rows; None only
            for a user's own function.
        formula: (sums float64 [..., d], rows) → float64 [...]: the metric from the summed
            statistics of so many rows.
        beside: whether it is told beside another metric without being asked for.
    """

    name: str
    kinds: tuple[str, ...]
    description: str
    function: Callable[[Texts, Texts], float]
    per_row: Callable[[Texts, Texts], Floats] | None = None
    statistics: Callable[[Texts, Texts], Floats] | None = None
    formula: Callable[[Floats, int], Floats] | None = None
    beside: bool = True


def mean_over_rows(
    name: str, kinds: tuple[str, ...], per_row: Callable[[Texts, Texts], Floats], description: str
) -> Metric:
    """A metric that is the mean of one score a row."""
    return sum_over_rows(
        name,
        kinds,
        lambda predictions, references: per_row(predictions, references)[:, None],
        lambda sums, rows: sums[..., 0] / rows,
        description,
        per_row,
    )


def sum_over_rows(
    name: str,
    kinds: tuple[str, ...],
    statistics: Callable[[Texts, Texts], Floats],
    formula: Callable[[Floats, int], Floats],
    description: str,
    per_row: Callable[[Texts, Texts], Floats] | None = None,
) -> Metric:
    """A metric that is a formula of statistics summed over rows."""

    def function(predictions: Texts, references: Texts) -> float:
        rows = check_lengths(predictions, references)
        return float(formula(statistics(predictions, references).sum(axis=0), rows))

    return Metric(name, kinds, description, function, per_row, statistics, formula)


def custom_metric(
    name: str, function: Callable[[Texts, Texts], float], kinds: tuple[str, ...] = ()
) -> Metric:
    """A user's own function (predictions, references) → float, higher is better.

    Its intervals cost one call a resample, so 1,000 resamples are drawn instead of 10,000.
    """

    def checked(predictions: Texts, references: Texts) -> float:
        check_lengths(predictions, references)
        try:
            value = function(predictions, references)
        except FituneError:
            raise
        except Exception as error:
            raise ConfigError(
                f"the metric '{name}' failed ({type(error).__name__}: {error})",
                fix="let it return a float for any (predictions, references)",
            ) from error
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = float("nan")
        if not np.isfinite(number):
            raise ConfigError(
                f"the metric '{name}' gave {value!r}, which is not a finite number",
                fix="let it return a float for any rows",
            )
        return number

    return Metric(name, kinds or ("classify", "generate"), f"The function {name}.", checked)


def check_lengths(*columns: Texts) -> int:
    """The common length of all columns; DataError when they differ or hold no row."""
    lengths = [len(column) for column in columns]
    if len(set(lengths)) != 1:
        raise DataError(
            f"predictions and references differ in length: {', '.join(map(str, lengths))}",
            fix="give one prediction for each reference, in the same order",
        )
    if lengths[0] == 0:
        raise DataError("there are no rows to score", fix="give at least one row with an answer")
    return lengths[0]
