"""`fitune ladder`: every approach on the same held-out rows, cheapest first.

Parses, calls `api.ladder` or `api.plan`, prints.
"""

from __future__ import annotations

from argparse import Namespace

from fitune.cli.parser import Parser, require_task
from fitune.cli.screen import Screen


def add_arguments(parser: Parser) -> None:
    parser.add_task()
    parser.add_overrides()
    parser.add_argument(
        "--plan", action="store_true", help="print every rung with every option, and stop"
    )
    parser.add_output()


def run(args: Namespace) -> int:
    require_task(args, "ladder", resumable=not args.plan)
    screen = Screen(args)
    if args.plan:
        return _plan(args, screen)
    from fitune import api

    with screen.watcher() as on:
        result = api.ladder(args.task, overrides=args.overrides, resume=args.resume, on=on)
    if screen.json:
        screen.result(result.to_json())
        return 0
    from fitune.ladder.table import table

    screen.say()
    choice = result.recommendation.choice
    screen.console.print(table(result.rungs, width=screen.console.width, choice=choice))
    screen.say()
    for sentence in result.recommendation.sentences:
        screen.say(sentence, style="bold")
    screen.say()
    screen.how_to_use(result.run)
    return 0


def _plan(args: Namespace, screen: Screen) -> int:
    from fitune import api

    plan = api.plan(args.task, overrides=args.overrides)
    if screen.json:
        screen.result(plan)
    else:
        screen.yaml(plan)
    return 0
