"""`fitune tune`: one fine-tuned approach, trained and scored.

Parses, calls `api.tune` or `api.profile`, prints; a profile is shown by `profile_view`.
"""

from __future__ import annotations

from argparse import Namespace

from fitune.cli.parser import Parser, positive, require_task
from fitune.cli.screen import Screen


def add_arguments(parser: Parser) -> None:
    parser.add_task()
    parser.add_argument(
        "--rung", metavar="NAME", help="which fine-tuned approach, when the task lists several"
    )
    parser.add_argument(
        "--profile",
        type=positive,
        nargs="?",
        const=5,
        metavar="STEPS",
        help="measure the first steps (default: 5), tell where their time goes and what would make "
        "them faster, and keep nothing",
    )
    parser.add_overrides()
    parser.add_output()


def run(args: Namespace) -> int:
    require_task(args, "tune", resumable=args.profile is None)
    from fitune import api

    screen = Screen(args)
    if args.profile is not None:
        return _profile(args, screen)
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


def _profile(args: Namespace, screen: Screen) -> int:
    from fitune import api

    with screen.watcher() as on:
        result = api.profile(
            args.task, overrides=args.overrides, rung=args.rung, steps=args.profile, on=on
        )
    if screen.json:
        screen.result(result.to_json())
        return 0
    from fitune.cli.profile_view import show

    show(screen, result)
    return 0
