"""What a call of `fitune ladder` asks for beyond its task file.

Knows the options and their limits; knows nothing of rungs or runs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from fitune.errors import ConfigError

USUAL_REQUESTS = 10_000
"""A month, where nothing is said: as many answers as the recommendation counts into a rung's
cost."""


@dataclass(frozen=True)
class Asked:
    """Options of `fitune ladder`, spelt as on the command line with underscores.

    Attributes:
        rungs: names of those to run; empty: all.
        budget_minutes: rungs expected to take more than what is left of it are skipped.
        fresh: no finished rung of an earlier run is re-used.
        curve: the rung to fit on parts of the training rows as well; `""` is the recommended one.
        requests_per_month: that costs are told for; default: `USUAL_REQUESTS`.
        price_per_hour: of the machine, in any currency; without it costs are told in hours.

    Raises:
        ConfigError: a number that is not above zero, or a rung without a name.
    """

    rungs: tuple[str, ...] = ()
    budget_minutes: float | None = None
    fresh: bool = False
    curve: str | None = None
    requests_per_month: int | None = None
    price_per_hour: float | None = None

    def __post_init__(self) -> None:
        if isinstance(self.rungs, str):
            object.__setattr__(self, "rungs", tuple(self.rungs.split(",")))
        object.__setattr__(self, "rungs", tuple(name.strip() for name in self.rungs))
        if "" in self.rungs:
            raise ConfigError(
                f"'{','.join(self.rungs)}' names a rung that has no name",
                fix="part the names by single commas, as in --rungs linear,prompt",
            )
        for name in ("budget_minutes", "requests_per_month", "price_per_hour"):
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise ConfigError(
                    f"{_option(name)} is {value:g}, and it must be a number above 0",
                    fix=f"leave {_option(name)} out, or give a number such as 10",
                )

    @property
    def requests(self) -> int:
        """A month."""
        return self.requests_per_month or USUAL_REQUESTS

    @property
    def flags(self) -> list[str]:
        """The words of the command line that ask the same, for a command that goes on."""
        words = ["--rungs", ",".join(self.rungs)] if self.rungs else []
        for name in ("budget_minutes", "requests_per_month", "price_per_hour"):
            if (value := getattr(self, name)) is not None:
                words += [_option(name), f"{value:g}" if value < 1e5 else f"{value:.0f}"]
        if self.fresh:
            words.append("--fresh")
        if self.curve is not None:
            words += ["--curve", self.curve] if self.curve else ["--curve"]
        return words


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
