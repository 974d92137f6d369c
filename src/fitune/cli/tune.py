"""`fitune tune`: one fine-tuned approach, trained and scored.

Parses, calls `api.tune`, prints.
"""

from __future__ import annotations

from argparse import Namespace

from fitune.cli.parser import Parser, require_task
from fitune.cli.screen import Screen


def add_arguments(parser: Parser) -> None:
    parser.add_task()
    parser.add_argument(
        "--rung", metavar="NAME", help="which fine-tuned approach, when the task lists several"
    )
    parser.add_overrides()
    parser.add_output()


def run(args: Namespace) -> int:
    require_task(args, "tune")
    from fitune import api

    screen = Screen(args)
    with screen.watcher() as on:
        result = api.tune(
            args.task, overrides=args.overrides, rung=args.rung, resume=args.resume, on=on
        )
    if screen.json:
        screen.result(result.to_json())
        return 0
    from fitune.ladder.table import table

    screen.say()
    screen.console.print(table([result.rung], width=screen.console.width))
    screen.say()
    screen.how_to_use(result.run)
    return 0
