"""What a user sees while work goes on.

Knows terminals; knows nothing of the work. Everything goes to stderr, so that stdout holds the
result alone. In a terminal: one moving bar. Elsewhere (a log file, a pipe): a line at each tenth
and at least every ten seconds, so that a log shows life without being flooded.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

    from fitune.ladder.rung import Rung

LONGEST_SILENCE = 10.0
SHORTEST_PAUSE = 1.0


class Watcher:
    """The `on` of `api`'s functions: told what happens, shows nothing. The base of the others."""

    def progress(self, label: str, done: int, total: int) -> None:
        """`done` of `total` steps of `label` are done."""

    def notice(self, text: str) -> None:
        """One sentence the user should read."""

    def rung(self, rung: Rung) -> None:
        """A rung of the ladder is finished."""

    def __enter__(self) -> Watcher:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the terminal as it was."""


class Lines(Watcher):
    """Progress as lines of text.

    Args:
        stream: written to and flushed line by line.
        clock: seconds, monotonic.
    """

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._clock = stream, clock
        self._label = ""
        self._tenth = -1
        self._said = False
        self._last = clock()

    def progress(self, label: str, done: int, total: int) -> None:
        if label != self._label:
            self._label, self._tenth, self._said = label, -1, False
        now = self._clock()
        tenth = 10 * done // total if total else 10
        silence = now - self._last
        finished = self._said and done >= total and self._tenth < 10
        if (
            finished
            or silence >= LONGEST_SILENCE
            or (tenth > self._tenth and silence >= SHORTEST_PAUSE)
        ):
            self._write(f"{label} {done}/{total}")
            self._tenth, self._said, self._last = tenth, True, now

    def notice(self, text: str) -> None:
        self._write(f"note: {text}")

    def rung(self, rung: Rung) -> None:
        self._write(f"done: {one_line(rung)}")

    def _write(self, text: str) -> None:
        self._stream.write(text + "\n")
        self._stream.flush()


class Bar(Watcher):
    """Progress as one moving bar at the foot of a terminal; lines scroll above it."""

    def __init__(self, console: Console) -> None:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self._console = console
        self._bars: Progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._label = ""
        self._bar: TaskID | None = None

    def __enter__(self) -> Watcher:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bars.stop()

    def progress(self, label: str, done: int, total: int) -> None:
        if label != self._label or self._bar is None:
            if self._bar is not None:
                self._bars.remove_task(self._bar)
            self._label, self._bar = label, self._bars.add_task(label, total=total)
        self._bars.update(self._bar, completed=done, total=total)

    def notice(self, text: str) -> None:
        self._console.print(f"• {text}", style="yellow", markup=False, highlight=False)

    def rung(self, rung: Rung) -> None:
        self._console.print(f"✓ {one_line(rung)}", style="green", markup=False, highlight=False)


def one_line(rung: Rung) -> str:
    """A finished rung in a few words."""
    from fitune.ladder.figures import duration, score

    low, high = score(rung.interval.low), score(rung.interval.high)
    return (
        f"{rung.name}: {rung.metric} {score(rung.value)} ({low} to {high}), "
        f"{duration(rung.train_seconds)} of training"
    )
