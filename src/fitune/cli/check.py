"""`fitune check`: what is in the data, what may be wrong with it, and what a model would learn.

Parses, calls `api.check`, prints. Exit code 2 when a finding would make results mean nothing.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any, NoReturn

from fitune.cli.parser import Parser, positive
from fitune.cli.screen import Screen

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from fitune.data.checks import Finding

LEVEL_STYLES = {"error": "bold red", "warning": "yellow", "info": "dim"}
ROWS_NAMED = 4

Token = tuple[str, bool, str]
"""(text, whether it is learned, why)."""


class PrintSchema(argparse.Action):
    """Ends the call before the missing positional argument is complained about."""

    def __call__(self, *_: Any) -> NoReturn:
        from fitune.taskfile import json_schema

        print(json.dumps(json_schema(), indent=2))
        raise SystemExit(0)


def add_arguments(parser: Parser) -> None:
    parser.add_argument(
        "source", metavar="TASK.yaml|DATA", help="a task file, or data as a task file names it"
    )
    parser.add_argument(
        "--show",
        type=positive,
        default=0,
        metavar="N",
        help="print N rows as the tokens a model sees: ⟦learned⟧ and masked",
    )
    parser.add_argument(
        "--kind",
        choices=("classify", "generate", "language-model"),
        help="for DATA: which task it is meant for",
    )
    parser.add_argument("--model", metavar="NAME", help="whose tokens --show prints")
    parser.add_overrides()
    parser.add_argument(
        "--schema",
        action=PrintSchema,
        nargs=0,
        help="print the JSON Schema of task files, for editors, and stop",
    )
    parser.add_output()


def run(args: argparse.Namespace) -> int:
    from fitune import api

    screen = Screen(args)
    with screen.watcher() as on:
        result = api.check(
            args.source,
            overrides=args.overrides,
            show=args.show,
            kind=args.kind,
            model=args.model,
            on=on,
        )
    code = 2 if any(finding.level == "error" for finding in result.findings) else 0
    if screen.json:
        screen.result(result.to_json())
        return code
    screen.notes(result.notes)
    labels = f", {len(result.labels):,} labels" if result.labels else ""
    screen.say(
        f"{result.train:,} training, {result.validation:,} validation and {result.test:,} test "
        f"rows{labels}",
        style="bold",
    )
    screen.say()
    if result.findings:
        screen.console.print(findings_table(result.findings))
    else:
        screen.say("Nothing was found wrong with the data.")
    for row in result.shown:
        _show(screen, row.source, row.tokens)
    return code


def findings_table(findings: Sequence[Finding]) -> Table:
    """What the checks found, with the first rows that each is about."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    made = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, show_edge=False)
    made.add_column("level", no_wrap=True)
    made.add_column("check", no_wrap=True)
    made.add_column("finding", overflow="fold")
    for finding in findings:
        text = Text(finding.message)
        if finding.rows:
            more = ", …" if len(finding.rows) > ROWS_NAMED else ""
            text.append(f"\n{places(finding.rows[:ROWS_NAMED])}{more}", style="dim")
        made.add_row(Text(finding.level, LEVEL_STYLES[finding.level]), finding.check, text)
    return made


def places(sources: Sequence[str]) -> str:
    """Rows by file, each file named once: ``a.csv:3, 7, b.csv:2``."""
    named, last = [], ""
    for source in sources:
        file, _, line = source.rpartition(":")
        named.append(line if file == last else source)
        last = file
    return ", ".join(named)


def _show(screen: Screen, source: str, tokens: Sequence[Token]) -> None:
    learned = sum(token[1] for token in tokens)
    screen.say()
    screen.say(f"{source}: {len(tokens)} tokens, {learned} learned", style="bold")
    screen.console.print(coloured(tokens))
    for state, style, mark in ((True, "green", "⟦learned⟧"), (False, "dim", "masked")):
        reasons = Counter(reason for _, is_learned, reason in tokens if is_learned == state)
        if reasons:
            why = ", ".join(f"{reason} ({count})" for reason, count in reasons.items())
            screen.say(f"  {mark}: {why}", style=style)


def coloured(tokens: Sequence[Token]) -> Text:
    """Tokens as text: learned ones between ⟦ and ⟧, in green, every second one underlined so
    that their borders show; masked ones dim."""
    from rich.text import Text

    text = Text()
    for is_learned, run_of in groupby(tokens, key=lambda token: token[1]):
        if not is_learned:
            text.append("".join(visible(token[0]) for token in run_of), style="dim")
            continue
        text.append("⟦", style="bold green")
        for number, token in enumerate(run_of):
            style = "bold green underline" if number % 2 else "bold green"
            text.append(visible(token[0]), style=style)
        text.append("⟧", style="bold green")
    return text


def visible(text: str) -> str:
    """A token with its line breaks, tabs and unprintable characters made visible."""
    shown = {"\n": "↵\n", "\r": "␍", "\t": "⇥"}
    return "".join(shown.get(c) or (c if c.isprintable() else f"<{ord(c):02X}>") for c in text)
