"""How language models side by side read on a screen.

Knows results of `api.lm` and rich; knows nothing of arguments.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from fitune.cli.screen import Screen
from fitune.ladder.figures import duration, number
from fitune.language_models.figures import Continuation, ModelFigures
from fitune.language_models.probes import DISTANCES, SENTENCES

if TYPE_CHECKING:
    from rich.table import Table

    from fitune.results import LmResult

WIDE = 110
"""Columns from which on there is room for all figures of a model."""

SAMPLED = 2
"""Lines of a sample that are shown."""


def show(screen: Screen, result: LmResult) -> None:
    """Print the table, what each model writes, and the probes."""
    width = screen.console.width
    train, validation, test = result.sequences
    screen.say(
        f"{result.corpus}: {train:,} {result.unit} to learn from ({number(result.train_tokens)} "
        f"{result.tokens}), {validation:,} to stop by, {test:,} to score on",
        style="bold",
    )
    screen.say(f"A vocabulary of {result.vocabulary:,} {result.tokens}.")
    screen.say()
    screen.console.print(scores(result.models, width=width))
    screen.say()
    screen.notes(result.notes)
    _show_samples(screen, result.models)
    _show_continuations(screen, result.models)
    _show_small_language(screen, result.models)
    if result.saved is not None:
        screen.say(f"models: {result.saved}", wrap=False)
    if result.plot is not None:
        screen.say(f"picture: {result.plot}", wrap=False)
    screen.say(f"{duration(result.seconds)} in all.")


def scores(models: Sequence[ModelFigures], *, width: int) -> Table:
    """A row for each model, the best figure of a column in bold."""
    from rich.text import Text

    wide = width >= WIDE
    made = _table()
    made.add_column("model", overflow="fold")
    for name in ("perplexity", "bits/byte", "parameters", "training", "learned/s"):
        made.add_column(name, justify="right", no_wrap=True)
    if wide:
        made.add_column("scored/s", justify="right", no_wrap=True)
        made.add_column("stopped by", no_wrap=True)
    comparable = [model.score.perplexity for model in models if not model.own_tokens]
    lowest = min((model.score.bits_per_byte for model in models), default=0.0)
    for model in models:
        best = not model.own_tokens and model.score.perplexity == min(comparable)
        speed = model.tokens_per_second
        cells = [
            Text(model.name),
            Text(
                f"{model.score.perplexity:,.2f}{'*' if model.own_tokens else ''}",
                "bold" if best else "",
            ),
            Text(
                f"{model.score.bits_per_byte:.3f}",
                "bold" if model.score.bits_per_byte == lowest else "",
            ),
            Text(number(model.parameters)),
            Text("–" if model.train_seconds is None else duration(model.train_seconds)),
            Text("–" if speed is None else number(speed)),
        ]
        if wide:
            cells += [Text(number(model.score_tokens_per_second)), Text(model.ended or "")]
        made.add_row(*cells)
    return made


def _show_samples(screen: Screen, models: Sequence[ModelFigures]) -> None:
    screen.say()
    screen.say("What each writes", style="bold")
    indent = 2 + max(len(model.name) for model in models) + 2
    room = max(20, screen.console.width - indent)
    for model in models:
        # As one paragraph: a sample is looked at, not copied.
        lines = textwrap.wrap(visible(model.sample), room, max_lines=SAMPLED, placeholder=" …")
        head = f"  {model.name}".ljust(indent)
        for line in lines or ["(nothing)"]:
            screen.say(head + line, wrap=False)
            head = " " * indent


def _show_continuations(screen: Screen, models: Sequence[ModelFigures]) -> None:
    """For each beginning, what the models hold likeliest; as many as fit on a line."""
    if not models or not models[0].continuations:
        return
    indent = 2 + max(len(model.name) for model in models) + 2
    room = screen.console.width - indent
    for number_, first in enumerate(models[0].continuations):
        screen.say()
        beginning = textwrap.shorten(visible(first.prefix), screen.console.width - 30)
        screen.say(f"What comes after “{beginning}” (there: {token(first.actual)})", style="bold")
        for model in models:
            cells = _cells(model.continuations[number_], room)
            screen.say(f"  {model.name}".ljust(indent) + cells, wrap=False)


def _cells(said: Continuation, room: int) -> str:
    cells: list[str] = []
    for text, probability in said.likeliest:
        cell = f"{token(text)} {probability:.1%}"
        if len("  ".join([*cells, cell])) > room:
            break
        cells.append(cell)
    return "  ".join(cells)


def _show_small_language(screen: Screen, models: Sequence[ModelFigures]) -> None:
    taught = [(model.name, model.probed) for model in models if model.probed is not None]
    if not taught:
        return
    screen.say()
    screen.say("What each kind of model can learn", style="bold")
    screen.say(
        f"Taught anew on {SENTENCES:,} sentences of a small language such as “the cats really "
        "still sit on a desk”: is the verb in the right number likelier, so many words after the "
        "noun (chance: 50 %)? How likely is a noun with a place that it never met, beside places "
        "that it met? How many times likelier is such a sentence than its words in any order?",
    )
    screen.say()
    made = _table()
    made.add_column("model", overflow="fold", min_width=11)
    for distance in DISTANCES:
        head = {DISTANCES[0]: "1 word", DISTANCES[-1]: f"{distance} words"}.get(distance)
        made.add_column(head or str(distance), justify="right", no_wrap=True)
    made.add_column("new place", justify="right")
    made.add_column("any order", justify="right", no_wrap=True)
    for name, probed in taught:
        made.add_row(
            name,
            *(f"{probed.agreement[distance]:.0%}" for distance in DISTANCES),
            f"{probed.unseen:.2f}×",
            f"10^{probed.scrambled:.1f}",
        )
    screen.console.print(made)
    screen.say()


def token(text: str) -> str:
    """A token as it is shown: in quotes where it begins with, ends with or is white space."""
    shown = visible(text)
    return f"“{shown}”" if shown != shown.strip() or text != text.strip() or not text else shown


def visible(text: str) -> str:
    """Line breaks as ↵, and what cannot be shown as �."""
    text = text.replace("\n", "↵")
    return "".join(c if c.isprintable() else "�" for c in text)


def _table() -> Table:
    from rich import box
    from rich.table import Table

    return Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, show_edge=False)
