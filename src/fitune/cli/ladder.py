"""`fitune ladder`: every approach on the same held-out rows, cheapest first.

Parses, calls `api.ladder` or `api.plan`, prints; what is behind the recommendation is shown by
`ladder_view`.
"""

from __future__ import annotations

from argparse import Namespace

from fitune.cli.parser import Parser, positive, require_task
from fitune.cli.screen import Screen

_ASKED = ("rungs", "budget_minutes", "fresh", "curve", "requests_per_month", "price_per_hour")
"""Options of `api.ladder` that are handed on where they are given."""


def add_arguments(parser: Parser) -> None:
    parser.add_task()
    parser.add_overrides()
    parser.add_argument(
        "--plan", action="store_true", help="print every rung with every option, and stop"
    )
    parser.add_argument(
        "--rungs", metavar="A,B", help="run only these, by name; with --resume, these as well"
    )
    parser.add_argument(
        "--budget-minutes",
        type=float,
        metavar="M",
        help="skip rungs that a trial on a few rows expects to take more than what is left of it",
    )
    parser.add_argument(
        "--fresh",
        action="store_true",
        help="run every rung, also where an earlier run has finished one that is made of the same",
    )
    parser.add_argument(
        "--curve",
        nargs="?",
        const="",
        metavar="RUNG",
        help="fit a rung (default: the recommended one) on parts of the training rows, and tell "
        "what more rows would bring",
    )
    parser.add_argument(
        "--requests-per-month",
        type=positive,
        metavar="N",
        help="tell costs for so many (default: 10,000)",
    )
    parser.add_argument(
        "--price-per-hour",
        type=float,
        metavar="X",
        help="of the machine: tell costs in money, and not in hours only",
    )
    parser.add_output()


def run(args: Namespace) -> int:
    require_task(args, "ladder", resumable=not args.plan)
    screen = Screen(args)
    if args.plan:
        return _plan(args, screen)
    from fitune import api

    given = ((name, getattr(args, name)) for name in _ASKED)
    asked = {name: value for name, value in given if value is not None and value is not False}
    with screen.watcher() as on:
        result = api.ladder(args.task, overrides=args.overrides, resume=args.resume, on=on, **asked)
    if screen.json:
        screen.result(result.to_json())
        return 0
    from fitune.cli.ladder_view import show

    show(screen, result, costs="requests_per_month" in asked or "price_per_hour" in asked)
    screen.say()
    screen.how_to_use(result.run)
    return 0


def _plan(args: Namespace, screen: Screen) -> int:
    from fitune import api

    named = {"rungs": tuple(args.rungs.split(","))} if args.rungs else {}
    plan = api.plan(args.task, overrides=args.overrides, **named)
    if screen.json:
        screen.result(plan)
    else:
        screen.yaml(plan)
    return 0
