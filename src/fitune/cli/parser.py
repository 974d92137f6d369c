"""How the words of a command line are read, and what is said when they are wrong.

Knows argparse; knows nothing of what a verb does.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NoReturn

from fitune.errors import ConfigError


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` whose complaints are one sentence and exit code 2."""

    def __init__(self, *, prog: str, description: str) -> None:
        super().__init__(prog=prog, description=description, allow_abbrev=False)

    def parse_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def]  # as argparse
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            from fitune.taskproblems import near, short

            word = unknown[0].partition("=")[0]
            if not word.startswith("-"):
                self.error(f"'{short(word, quote=False)}' is one argument too many")
            options = [o for action in self._actions for o in action.option_strings]
            raise ConfigError(
                f"`{self.prog}` has no option '{short(word, quote=False)}'",
                fix=near(word, [o for o in options if o.startswith("--")]),
            )
        return parsed

    def error(self, message: str) -> NoReturn:
        message = message.replace("the following arguments are required:", "you did not give")
        raise ConfigError(message, fix=f"see `{self.prog} --help`")

    def add_task(self) -> None:
        """`TASK.yaml` and `--resume`, for verbs that train: one of them is needed."""
        self.add_argument(
            "task", metavar="TASK.yaml", nargs="?", help="the task file; not needed with --resume"
        )
        self.add_argument(
            "--resume", type=Path, metavar="RUN", help="go on with this unfinished run folder"
        )

    def add_overrides(self) -> None:
        """`--set`, for verbs that read a task file."""
        self.add_argument(
            "--set",
            dest="overrides",
            action="append",
            default=[],
            metavar="FIELD=VALUE",
            help="change a field of the task file, e.g. data.max_rows.train=100 or "
            "approaches.0.rank=8; may be repeated",
        )

    def add_output(self) -> None:
        """`--json` and `--quiet`, for every verb."""
        self.add_argument("--json", action="store_true", help="print the result as JSON")
        self.add_argument("--quiet", action="store_true", help="print the result only")


def require_task(args: argparse.Namespace, verb: str, *, resumable: bool = True) -> None:
    """Refuse a call with neither a task file nor a run to go on with, before anything loads."""
    if args.task is None and not (resumable and args.resume is not None):
        raise ConfigError("you did not give TASK.yaml", fix=f"see `fitune {verb} --help`")


def positive(word: str) -> int:
    """An argument that counts something."""
    try:
        number = int(word)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"'{word}' is not a whole number above 0")
    return number
