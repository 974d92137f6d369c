"""Which rung to use, and why, in two sentences.

Knows the rungs' figures and their paired comparisons with the best; knows nothing of files, models
or the terminal.

The rule: of the rungs that reach the target, the cheapest; without a target, or where none reaches
it, the cheapest of those that a paired test cannot tell from the best. "Cannot be told apart" is
not "equal": the second sentence says which difference these test rows could have shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fitune.evaluation.metrics import Metric, Texts
from fitune.evaluation.significance import (
    LEVEL,
    Comparison,
    compare,
    detectable_difference,
    holm,
)
from fitune.ladder.figures import duration, p_value, score, size
from fitune.ladder.rung import Rung

ANSWERS = 10_000
"""Cost is the time to train and then give so many answers, as measured in the run: an approach
that learns nothing but answers slowly is not cheap."""


@dataclass(frozen=True)
class AgainstBest:
    """Every other rung against the best one, on the same test rows.

    Attributes:
        best: the name of the rung with the highest value (the cheapest of them if several).
        comparisons: by name, the rung minus the best; the best itself is not in it.
        detectable: by name, the smallest true difference to the best that so many rows would find
            (80 % power); None where they can tell nothing.
    """

    best: str
    comparisons: Mapping[str, Comparison]
    detectable: Mapping[str, float | None]


@dataclass(frozen=True)
class Recommendation:
    """The rung to use, and sentences: two that say why, and then what to do next, where errors were
    sorted (`next_step`)."""

    choice: str
    sentences: tuple[str, ...]


def cost_seconds(rung: Rung) -> float:
    """Wall time of training and of `ANSWERS` answers, in seconds."""
    return rung.train_seconds + rung.seconds_per_1000 * ANSWERS / 1000


def best_rung(rungs: Sequence[Rung]) -> Rung:
    """The highest value; of equals the cheapest, then the one further down the ladder."""
    return min(rungs, key=lambda rung: (-rung.value, cost_seconds(rung)))


def against_best(
    metric: Metric,
    rungs: Sequence[Rung],
    answers: Mapping[str, Texts],
    references: Texts,
    *,
    seed: int = 0,
) -> AgainstBest:
    """Compare each rung's answers (by rung name) with the best rung's. At least one rung."""
    best = best_rung(rungs)
    others = [rung.name for rung in rungs if rung.name != best.name]
    return AgainstBest(
        best=best.name,
        comparisons={
            name: compare(metric, answers[name], answers[best.name], references, seed=seed)
            for name in others
        },
        detectable={
            name: detectable_difference(
                metric, answers[name], answers[best.name], references, seed=seed
            )
            for name in others
        },
    )


def recommend(
    rungs: Sequence[Rung],
    *,
    target: float | None,
    against: AgainstBest,
    rows: int,
    skipped: Sequence[str] = (),
) -> Recommendation:
    """Choose a rung.

    Args:
        rungs: at least one, in the ladder's order.
        target: the value of the metric that is good enough, if the task has one.
        against: what `against_best` returned for these rungs.
        rows: test rows.
        skipped: names of rungs that were not run, because the target was reached before.
    """
    choice, reason = _choose(rungs, target, against)
    return Recommendation(
        choice.name,
        (
            f"Use {choice.name}: {reason}, {_gain(rungs, choice, against)}{_price(choice)}.",
            _other(rungs, choice, target, against, rows, skipped),
        ),
    )


def _choose(rungs: Sequence[Rung], target: float | None, against: AgainstBest) -> tuple[Rung, str]:
    """The choice, and a clause with its value that says by which rule."""
    best = next(rung for rung in rungs if rung.name == against.best)
    reaching = [rung for rung in rungs if target is not None and rung.value >= target]
    if target is not None and reaching:
        choice = min(reaching, key=cost_seconds)
        which = "the only one" if len(reaching) == 1 else f"the cheapest of the {len(reaching)}"
        doubt = "" if choice.interval.low >= target else ", though not beyond doubt"
        return choice, f"{_value(choice)} it is {which} to reach the target {target:g}{doubt}"
    adjusted = _adjusted(against)
    equals = [r for r in rungs if r.name == best.name or adjusted[r.name] >= LEVEL]
    choice = min(equals, key=cost_seconds)
    missed = "" if target is None else f"no rung reaches the target {target:g}, but "
    if len(rungs) == 1:
        return choice, f"{missed}{_value(choice)} it is the only rung tried"
    if choice.name == best.name:
        return choice, f"{missed}{_value(choice)} it is the best of {len(rungs)} rungs"
    return choice, f"{missed}{_value(choice)} it is the cheapest not measurably below the best"


def _other(
    rungs: Sequence[Rung],
    choice: Rung,
    target: float | None,
    against: AgainstBest,
    rows: int,
    skipped: Sequence[str],
) -> str:
    """The second sentence: what the best, or else the runner-up, would bring or not bring."""
    stopped = (
        f"The ladder stopped at the target, so {_listed(skipped)} {_was(skipped)} not tried"
        if skipped
        else ""
    )
    if len(rungs) == 1:
        return f"{stopped or 'Nothing else was tried, so it may be beaten or undercut'}."
    others = [rung for rung in rungs if rung.name != choice.name]
    other = best_rung(others)  # the best, unless that is the choice
    pair = other.name if choice.name == against.best else choice.name
    compared, corrected = against.comparisons[pair], _adjusted(against)[pair]
    gap, certain = abs(other.value - choice.value), corrected < LEVEL
    role = "The best score" if other.name == against.best else "The runner-up"
    said = f"{role}, {other.name} with {score(other.value)}, "
    if gap == 0 and compared.low == compared.high:
        said += f"does equally well on {rows:,} test rows"
    else:
        side = "higher" if other.value > choice.value else "lower"
        said += f"is {score(gap)} {side}" if gap >= 0.0005 else "is less than 0.001 away"
        said += f" ({_corrected(corrected, against)})"
        said += "" if certain else f", which {rows:,} test rows cannot tell from chance,"
        if certain and target is not None and other.value > choice.value >= target:
            said += ", beyond what the target asks for,"
    said += f" and takes {_effort(other)}"
    if not certain:
        said += f"; {_power(against.detectable[pair], rows)}"
    return f"{stopped}; {said[0].lower()}{said[1:]}." if stopped else f"{said}."


def _adjusted(against: AgainstBest) -> dict[str, float]:
    names = list(against.comparisons)
    return dict(zip(names, holm([against.comparisons[n].p_value for n in names]), strict=True))


def _value(rung: Rung) -> str:
    low, high = score(rung.interval.low), score(rung.interval.high)
    return f"with {rung.metric} {score(rung.value)} (95 % interval {low} to {high})"


def _gain(rungs: Sequence[Rung], choice: Rung, against: AgainstBest) -> str:
    """What it brings over the strongest cheaper rung, or where that pair was not tested over the
    rung below, as a clause that ends in a comma; nothing where there is no such rung."""
    cheaper = [rung for rung in rungs if cost_seconds(rung) < cost_seconds(choice)]
    strongest = best_rung(cheaper).name if cheaper else None
    if strongest is not None and strongest != choice.against and choice.name == against.best:
        compared = against.comparisons[strongest]
        gain, chance = -compared.difference, _adjusted(against)[strongest]
        other, given = f"{strongest}, the best cheaper rung", _corrected(chance, against)
    elif choice.comparison is not None and choice.against is not None:
        gain, chance = choice.comparison.difference, choice.comparison.p_value
        other, given = f"{choice.against}, the rung below", p_value(chance)
    else:
        return ""
    if abs(gain) < 0.0005:
        return f"level with {other} ({given}), "
    doubt = "" if chance < LEVEL else ": it may be chance"
    return f"{score(abs(gain))} {'above' if gain > 0 else 'below'} {other} ({given}{doubt}), "


def _corrected(p: float, against: AgainstBest) -> str:
    return ("Holm-corrected " if len(against.comparisons) > 1 else "") + p_value(p)


def _effort(rung: Rung) -> str:
    training = f"{duration(rung.train_seconds)} of training and " if rung.train_seconds else ""
    return f"{training}{duration(rung.seconds_per_1000)} per 1,000 answers"


def _price(rung: Rung) -> str:
    return f"for {_effort(rung)} at a peak of {size(rung.peak_memory_bytes)} of memory"


def _power(detectable: float | None, rows: int) -> str:
    if detectable is None:
        return f"{rows:,} test rows are too few to tell any difference"
    return f"only a true difference of about {score(detectable)} or more would reliably show"


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _was(names: Sequence[str]) -> str:
    return "was" if len(names) == 1 else "were"
