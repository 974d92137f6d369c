"""`fitune evaluate`: a saved run answers rows it has not seen.

Parses, calls `api.evaluate`, prints, and writes the answers where asked.
"""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from fitune.cli.parser import Parser
from fitune.cli.screen import Screen
from fitune.ladder.figures import score
from fitune.runs import write_jsonl


def add_arguments(parser: Parser) -> None:
    parser.add_argument("run", metavar="RUN", type=Path, help="a run folder, e.g. runs/pydocs-1")
    parser.add_argument("rows", metavar="ROWS", help="rows with answers: a file, as in a task file")
    parser.add_argument(
        "--rung", metavar="NAME", help="which rung of the run; default: the recommended one"
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE.jsonl", help="write one answer a line to this file"
    )
    parser.add_output()


def run(args: Namespace) -> int:
    from fitune import api

    screen = Screen(args)
    with screen.watcher() as on:
        result = api.evaluate(args.run, args.rows, rung=args.rung, on=on)
    if args.output is not None:
        write_jsonl(args.output, result.predictions)
    if screen.json:
        screen.result(result.to_json())
        return 0
    low, high = score(result.interval.low), score(result.interval.high)
    screen.say(
        f"{result.metric} {score(result.value)}, 95 % interval {low} to {high}, "
        f"on {result.rows:,} rows by '{result.rung}' of {args.run}",
        style="bold",
    )
    others = {name: value for name, value in result.metrics.items() if name != result.metric}
    if others:
        screen.say(", ".join(f"{name} {score(value)}" for name, value in others.items()))
    if args.output is not None:
        screen.say(f"answers: {args.output}")
    return 0
