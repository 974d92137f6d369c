"""Where the output of a verb goes, and as what.

Knows stdout, stderr, `--json` and `--quiet`; knows nothing of what is shown.
"""

from __future__ import annotations

import json
import shlex
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fitune.cli.progress import Bar, Lines, Watcher

if TYPE_CHECKING:
    from rich.console import Console


class Screen:
    """stdout for the result, stderr for everything else.

    Args:
        args: parsed by `Parser`, with `json` and `quiet`.

    Attributes:
        json: the result is printed as JSON and nothing else is written to stdout.
        console: stdout, for rich.
    """

    def __init__(self, args: Namespace) -> None:
        from rich.console import Console

        self.json: bool = args.json
        self.quiet: bool = args.quiet
        self.console: Console = Console(highlight=False, markup=False, emoji=False)

    def watcher(self) -> Watcher:
        """For api's `on`: silent when asked to be, and when JSON is read by a program."""
        terminal = sys.stderr.isatty()
        if self.quiet or (self.json and not terminal):
            return Watcher()
        if terminal:
            from rich.console import Console

            return Bar(Console(stderr=True, highlight=False, markup=False, emoji=False))
        return Lines(sys.stderr)

    def result(self, record: Any) -> None:
        """Print a result's JSON."""
        ascii_only = (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
        print(json.dumps(record, indent=2, ensure_ascii=ascii_only, default=str))

    def say(self, text: str = "", style: str | None = None, *, wrap: bool = True) -> None:
        """Print text. Lines are wrapped in a terminal only, where `wrap` allows it: a path or a
        command must stay whole to be copied or searched for."""
        soft = not (wrap and self.console.is_terminal)
        self.console.print(text, style=style, soft_wrap=soft)

    def notes(self, notes: Sequence[str]) -> None:
        """Print sentences, one a line."""
        for note in notes:
            self.say(f"• {note}")

    def yaml(self, record: Any) -> None:
        """Print nested values so that they can be pasted into a task file."""
        import yaml

        text = yaml.safe_dump(record, sort_keys=False, allow_unicode=True, width=88)
        print(text, end="")

    def pairs(self, title: str, pairs: Mapping[str, str]) -> None:
        """Print a heading and `name  value` lines."""
        width = max(map(len, pairs), default=0)
        self.say(title, style="bold")
        for name, value in pairs.items():
            self.say(f"  {name:<{width}}  {value}", wrap=False)
        self.say()

    def how_to_use(self, run: Path) -> None:
        """Print where a run is and the two ways of using it."""
        code = f"import fitune; print(fitune.load({str(run)!r}).predict(['…']))"
        self.say(f"run    {run}  (open {run / 'report.html'} in a browser)", wrap=False)
        self.say(f"score  fitune evaluate {shlex.quote(str(run))} ROWS.csv", wrap=False)
        self.say(f'use    python -c "{code}"', wrap=False)
