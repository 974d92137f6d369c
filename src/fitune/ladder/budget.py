"""How long a rung will take, from how long it takes on a few rows.

Knows approaches by their interface and a clock; knows nothing of what an approach does, and of what
is done with the answer.

An approach is fitted to two small numbers of rows and answers as many; a straight line through the
two times, whose start is what loading takes, is drawn on to all rows. Nothing that runs is cut off:
the score of a training that ended half way, at a learning rate that was still high, would tell of
the budget and not of the approach.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from fitune.approaches.base import Approach, Work
from fitune.data.rows import Rows, Splits
from fitune.ladder.figures import duration
from fitune.ladder.subset import capped

PROBES = (16, 64)
"""Training rows of the two trials: enough that loading, which both have, can be told from what
grows with the rows."""


@dataclass(frozen=True)
class Skipped:
    """A rung that was not run, and the reason, as a clause."""

    name: str
    reason: str


class Budget:
    """So many seconds from now.

    Args:
        seconds: None: there is no limit.
    """

    def __init__(self, seconds: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds, self._clock = seconds, clock
        self._start = clock()

    @property
    def left(self) -> float | None:
        """Seconds; None: there is no limit."""
        if self._seconds is None:
            return None
        return max(0.0, self._seconds - (self._clock() - self._start))

    def refusal(self, expected: Callable[[], float]) -> str | None:
        """Why a rung is skipped, as a clause; None: there is time for it.

        Args:
            expected: tells how many seconds the rung takes; not asked where it makes no difference.
        """
        if self.left is None or self._seconds is None:
            return None
        whole = f"the budget of {duration(self._seconds)}"
        if self.left <= 0:
            return f"{whole} was used up"
        needed = expected()
        if needed <= self.left:
            return None
        return (
            f"it would take about {duration(needed)}, and {duration(self.left)} of {whole} is left"
        )


def expected_seconds(
    make: Callable[[Work], Approach], splits: Splits, work: Work, folder: Path
) -> float:
    """Seconds that fitting to the training rows and answering the test rows will take.

    Args:
        make: builds the approach.
        work: what the rung will be given; trials write elsewhere and say nothing.
        folder: where trials may write; left as it was.
    """
    trials = []
    for rows in PROBES:
        part = min(1.0, rows / len(splits.train))
        train = _share(splits.train, part)
        validation = _share(splits.validation, part)
        test = splits.test[: len(train)]
        with TemporaryDirectory(dir=folder, prefix=".trial-") as place:
            quiet = replace(
                work, folder=Path(place), progress=_nothing, notice=_nothing, callbacks=()
            )
            start = time.perf_counter()
            approach = make(quiet)
            approach.fit(train, validation)
            fitted = time.perf_counter()
            approach.predict(test, _nothing)
            trials.append((len(train), len(test), fitted - start, time.perf_counter() - fitted))
            del approach
    (few, few_test, *quick), (many, many_test, *slow) = trials
    fit = _drawn_on((few, quick[0]), (many, slow[0]), len(splits.train))
    return fit + _drawn_on((few_test, quick[1]), (many_test, slow[1]), len(splits.test))


def _drawn_on(first: tuple[int, float], second: tuple[int, float], rows: int) -> float:
    """Seconds for `rows` on the line through (rows, seconds) of two trials."""
    (few, quick), (many, slow) = first, second
    if rows <= many or many <= few:
        return slow
    return slow + max(0.0, slow - quick) / (many - few) * (rows - many)


def _share(rows: Rows, part: float) -> Rows:
    wanted = max(1, round(part * len(rows)))
    return rows if wanted >= len(rows) else capped(rows, wanted)


def _nothing(*told: object) -> None:
    """Trials are not shown."""
