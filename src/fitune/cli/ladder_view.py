"""How a ladder reads on a screen: the table, the recommendation, and what is behind it.

Knows results of `api.ladder` and rich; knows nothing of arguments.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fitune.cli.screen import Screen
from fitune.ladder.figures import amount, number, score
from fitune.ladder.table import table

if TYPE_CHECKING:
    from rich.table import Table

    from fitune.ladder.curve import Curve
    from fitune.ladder.diagnose import Diagnosis
    from fitune.ladder.price import Costs, Expense
    from fitune.results import LadderResult

SHOWN = 100
"""Characters of a row's text, and of an answer."""


def show(screen: Screen, result: LadderResult, *, costs: bool) -> None:
    """Print it all; costs where they are asked for."""
    width = screen.console.width
    choice = result.recommendation.choice
    screen.say()
    screen.console.print(table(result.rungs, width=width, choice=choice))
    screen.say()
    for sentence in result.recommendation.sentences:
        screen.say(sentence, style="bold")
    for rung in result.skipped:
        screen.say(f"Skipped {rung.name}: {rung.reason}.")
    for diagnosis in result.diagnoses:
        if diagnosis.rung == choice and diagnosis.errors:
            _show_errors(screen, diagnosis)
    if result.curve is not None:
        _show_curve(screen, result.curve)
    if costs:
        _show_costs(screen, result.costs)


def _show_errors(screen: Screen, diagnosis: Diagnosis) -> None:
    screen.say()
    screen.say(
        f"The {diagnosis.errors:,} errors of {diagnosis.rung} in {diagnosis.rows:,} test rows",
        style="bold",
    )
    for cause in diagnosis.causes:
        why = "; ".join(f"{reason} ({count:,})" for reason, count in cause.reasons[:2])
        more = f"; {len(cause.reasons) - 2} more" if len(cause.reasons) > 2 else ""
        screen.say(f"  {cause.count:>5,}  {cause.share:>4.0%}  {cause.name}: {why}{more}")
    screen.say(f"For example, of {diagnosis.causes[0].name}:")
    for example in diagnosis.causes[0].examples:
        screen.say(f"  • {_short(example.text)}")
        screen.say(
            f"    wanted: {_short(example.reference)}   answered: {_short(example.answer)}",
            style="dim",
        )


def _show_curve(screen: Screen, curve: Curve) -> None:
    screen.say()
    made = _table()
    made.add_column("training rows", justify="right")
    made.add_column(curve.metric, justify="right")
    made.add_column("95 % interval", justify="right")
    for point in curve.points:
        made.add_row(
            f"{point.rows:,}",
            score(point.value),
            _interval(point.interval.low, point.interval.high),
        )
    for forecast in curve.forecasts:
        made.add_row(
            f"{forecast.rows:,}",
            f"{score(forecast.value)}?",
            _interval(forecast.low, forecast.high),
            style="dim",
        )
    screen.console.print(made)
    for sentence in curve.sentences:
        screen.say(sentence)


def _show_costs(screen: Screen, costs: Costs) -> None:
    money = costs.price_per_hour is not None
    screen.say()
    made = _table()
    made.add_column("rung", overflow="fold")
    unit = f"at {costs.price_per_hour:g} an hour" if money else "machine hours"
    made.add_column("training\nonce", justify="right")
    made.add_column(f"answers, a month\nof {number(costs.requests_per_month)}", justify="right")
    made.add_column(f"first month\n{unit}", justify="right")
    made.add_column("none better\nand cheaper", justify="right")
    for expense in costs.expenses:
        training, serving, first = _amounts(expense, money)
        made.add_row(expense.rung, training, serving, first, "yes" if expense.on_front else "")
    screen.console.print(made)
    for pair in costs.break_evens:
        if pair.requests is None:
            screen.say(f"{pair.tuned} never becomes cheaper than {pair.asked}.")
        else:
            since = "the first request" if pair.requests == 1 else f"{pair.requests:,} requests"
            screen.say(f"{pair.tuned} is cheaper than {pair.asked} from {since} on.")


def _amounts(expense: Expense, money: bool) -> tuple[str, str, str]:
    if money and expense.training_money is not None and expense.serving_money is not None:
        both = expense.training_money, expense.serving_money
    else:
        both = expense.training_hours, expense.serving_hours
    return amount(both[0]), amount(both[1]), amount(sum(both))


def _interval(low: float, high: float) -> str:
    return f"{score(low)}–{score(high)}"


def _table() -> Table:
    from rich import box
    from rich.table import Table

    return Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, show_edge=False)


def _short(text: str) -> str:
    """One line, and its beginning where it is long."""
    line = " ".join(text.split())
    printable = "".join(c if c.isprintable() else "�" for c in line)
    return printable if len(printable) <= SHOWN else f"{printable[: SHOWN - 1]}…"
