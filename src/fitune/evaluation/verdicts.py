"""What pairwise verdicts on answers amount to, when each pair was judged in both orders.

Knows verdicts; knows nothing of who judged, or of answers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from fitune.errors import DataError
from fitune.evaluation.significance import LEVEL, Interval, mcnemar

Verdict = Literal["first", "second", "tie", "unreadable"]
"""Which of the two answers, as they stood before the judge, was called better."""


@dataclass(frozen=True)
class Tally:
    """One answerer against another, over the rows that were judged.

    Attributes:
        rows: how many pairs of answers; the same answer twice is a tie that nobody is asked about.
        wins, losses, ties: a win or loss counts only where both orders name the same answer;
            everything else is a tie.
        win_rate: (wins + ties / 2) / rows.
        interval: 95 %, of the win rate. Ties vary less than the wins and losses that the formula
            takes them for, so it is rather too wide than too narrow.
        p_value: two-sided sign test of wins against losses.
        agreement: the share of the pairs asked about in which both orders gave one verdict; None
            where none was.
        first: of all verdicts for one of the answers, the share for the one that stood first: ½
            without position bias; None without any.
        unreadable: verdicts that were none.
    """

    rows: int
    wins: int
    losses: int
    ties: int
    win_rate: float
    interval: Interval
    p_value: float
    agreement: float | None
    first: float | None
    unreadable: int


def tally(pairs: Sequence[tuple[Verdict, Verdict] | None]) -> Tally:
    """
    Args:
        pairs: for each row the verdict with the answer of interest standing first, then with it
            standing second; None where both answers are the same.

    Raises:
        DataError: there are no rows.
    """
    if not pairs:
        raise DataError("there are no verdicts to count", fix="judge at least one row")
    swapped = {"first": "second", "second": "first"}
    asked = [pair for pair in pairs if pair is not None]
    agreed = [
        one for one, other in asked if one != "unreadable" and one == swapped.get(other, other)
    ]
    wins, losses = agreed.count("first"), agreed.count("second")
    ties = len(pairs) - wins - losses
    rate = (wins + ties / 2) / len(pairs)
    said = [verdict for pair in asked for verdict in pair]
    chosen = said.count("first") + said.count("second")
    return Tally(
        rows=len(pairs),
        wins=wins,
        losses=losses,
        ties=ties,
        win_rate=rate,
        interval=wilson(rate, len(pairs)),
        p_value=mcnemar(wins, losses),
        agreement=len(agreed) / len(asked) if asked else None,
        first=said.count("first") / chosen if chosen else None,
        unreadable=said.count("unreadable"),
    )


def wilson(share: float, rows: int) -> Interval:
    """95 % score interval of a share of so many rows (Wilson 1927)."""
    from scipy.stats import norm

    z = float(norm.ppf(1 - LEVEL / 2))
    centre = (share + z**2 / (2 * rows)) / (1 + z**2 / rows)
    half = z / (1 + z**2 / rows) * math.sqrt(share * (1 - share) / rows + z**2 / (4 * rows**2))
    return Interval(max(0.0, centre - half), min(1.0, centre + half))
