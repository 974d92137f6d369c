"""The ladder as a table for the terminal.

Knows rungs and rich; knows nothing of how the figures were made.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fitune.evaluation.significance import LEVEL
from fitune.ladder.figures import difference, duration, number, p_value, score, size
from fitune.ladder.rung import Rung

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

_UNSTACKED = 113  # columns that one line a rung needs beside the name
_STACKED = 58  # columns that two lines a rung need beside the name


def table(rungs: Sequence[Rung], *, width: int = 80, choice: str | None = None) -> Table:
    """The ladder's table, one row a rung, in the order given; two lines a row where it is narrow.

    Args:
        width: columns of the terminal (``console.width``).
        choice: the name of the recommended rung, marked with an arrow.
    """
    from rich import box
    from rich.table import Table

    wide = width >= _UNSTACKED + max((len(rung.name) for rung in rungs), default=0)
    made = Table(
        box=box.SIMPLE_HEAD,
        padding=(0, 1),
        pad_edge=False,
        collapse_padding=True,
        show_edge=False,
        leading=0 if wide else 1,
    )
    metric = rungs[0].metric if rungs else "metric"
    made.add_column("", width=1, no_wrap=True)
    if wide:
        made.add_column("rung", overflow="fold")
        made.add_column("learned from", justify="right", no_wrap=True)
        made.add_column(f"{metric} (95 %)", justify="right", no_wrap=True)
        made.add_column("against the rung below", justify="right", no_wrap=True)
        for name in ("training", "1,000 answers", "peak memory", "trainable"):
            made.add_column(name, justify="right", no_wrap=True)
    else:
        made.add_column("rung\nlearned from", overflow="fold", min_width=12)
        made.add_column(f"{metric}\n95 % interval", justify="right", no_wrap=True)
        made.add_column("against\nrung below", justify="right", no_wrap=True)
        if width >= 58:  # narrower than a terminal usually is: costs go before the metric does
            made.add_column("training\n1,000 answers", justify="right", no_wrap=True)
        if width >= 72:
            made.add_column("peak memory\ntrainable", justify="right", no_wrap=True)
    for rung in rungs:
        # what the stacked columns leave for the name: broken after a hyphen rather than anywhere
        room = 10_000 if wide else max(12, width - _STACKED)
        name = "\n".join(textwrap.wrap(rung.name, room))
        cells = _cells(rung, name, wide=wide, chosen=rung.name == choice)
        made.add_row(*cells[: len(made.columns)])
    return made


def _cells(rung: Rung, shown: str, *, wide: bool, chosen: bool) -> list[Text]:
    from rich.text import Text

    emphasis = "bold" if chosen else ""
    sure, tone = _against(rung)
    name = Text(shown, emphasis)
    learned = Text(f"{rung.train_rows:,} rows" if rung.train_rows else "no rows", "dim")
    value = Text(score(rung.value), emphasis)
    interval = Text(f"{score(rung.interval.low)}–{score(rung.interval.high)}", "dim")
    change, chance = Text(sure[0], tone), Text(sure[1], "dim")
    training, answers = Text(duration(rung.train_seconds)), Text(duration(rung.seconds_per_1000))
    memory, trainable = (
        Text(size(rung.peak_memory_bytes)),
        Text(number(rung.trainable_parameters)),
    )
    mark = Text("▸" if chosen else "", "bold green")
    if wide:
        both = (
            Text("  ").join([value, interval]),
            Text("  ").join([change, Text(f"{sure[1]:<9}", "dim")]),
        )
        return [mark, name, learned, *both, training, answers, memory, trainable]
    stacks = [(name, learned), (value, interval), (change, chance), (training, answers)]
    return [mark, *(Text("\n").join(stack) for stack in [*stacks, (memory, trainable)])]


def _against(rung: Rung) -> tuple[tuple[str, str], str]:
    """The difference to the rung below and its p-value, and the style that says how sure it is."""
    if rung.comparison is None:
        return ("–", ""), "dim"
    figures = difference(rung.comparison.difference), p_value(rung.comparison.p_value)
    if rung.comparison.p_value >= LEVEL:
        return figures, "dim"
    return figures, "green" if rung.comparison.difference > 0 else "red"
