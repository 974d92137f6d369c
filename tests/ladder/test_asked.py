"""What may be asked of a ladder."""

from __future__ import annotations

from typing import Any

import pytest

from fitune.cli.ladder import add_arguments
from fitune.cli.parser import Parser
from fitune.errors import ConfigError
from fitune.ladder.asked import USUAL_REQUESTS, Asked


@pytest.mark.parametrize("name", ["budget_minutes", "requests_per_month", "price_per_hour"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_numbers_are_above_zero(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"--{name.replace('_', '-')} is .*above 0; leave"):
        Asked(**{name: value})


@pytest.mark.parametrize("rungs", ["a,,b", ("a", " "), ""])
def test_rungs_have_names(rungs: Any) -> None:
    with pytest.raises(ConfigError, match="a rung that has no name"):
        Asked(rungs=rungs)


def test_an_option_that_is_none_is_refused() -> None:
    with pytest.raises(TypeError, match="rung"):
        Asked(rung="a")  # type: ignore[call-arg]


@pytest.mark.parametrize(
    "asked",
    [
        Asked(),
        Asked(rungs=("a", "b c"), budget_minutes=2.5, fresh=True),
        Asked(curve="", requests_per_month=1_234_567, price_per_hour=0.035),
        Asked(curve="linear"),
    ],
)
def test_flags_ask_the_same_again(asked: Asked) -> None:
    parser = Parser(prog="fitune ladder", description="")
    add_arguments(parser)
    read = vars(parser.parse_args(["t.yaml", *asked.flags]))
    names = [*Asked.__dataclass_fields__]
    again = {name: read[name] for name in names if read[name] not in (None, False)}
    assert Asked(**again) == asked
    assert asked.requests == asked.requests_per_month or asked.requests == USUAL_REQUESTS
