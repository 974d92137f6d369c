"""The choice and its two sentences."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fitune.evaluation.metrics import METRICS
from fitune.evaluation.significance import Comparison, Interval, compare, interval
from fitune.ladder.recommend import (
    AgainstBest,
    Recommendation,
    against_best,
    best_rung,
    cost_seconds,
    recommend,
)
from fitune.ladder.rung import Rung

ACCURACY = METRICS["accuracy"]
ROWS = 400
REFERENCES = ["a", "b", "c", "d"] * (ROWS // 4)


def answers(right: float, shift: int = 0) -> list[str]:
    """Right on that share of rows; with a shift, on partly other rows."""
    count = round(right * ROWS)
    good = {(i + shift) % ROWS for i in range(count)}
    return [truth if i in good else "z" for i, truth in enumerate(REFERENCES)]


def rung(name: str, value: float = 0.5, **other: Any) -> Rung:
    given: dict[str, Any] = {
        "name": name, "use": "linear", "model": None, "method": None, "metric": "accuracy",
        "value": value, "interval": Interval(value - 0.04, value + 0.04), "metrics": {},
        "against": None, "comparison": None, "train_rows": 100, "train_seconds": 1.0,
        "seconds_per_1000": 1.0, "peak_memory_bytes": 2**30, "parameters": 10,
        "trainable_parameters": 10,
    }  # fmt: skip
    return Rung(**{**given, **other})


def climbed(*steps: tuple[str, list[str], float]) -> tuple[list[Rung], AgainstBest]:
    """Rungs as the ladder makes them, from (name, answers, seconds of training)."""
    said = {name: texts for name, texts, _ in steps}
    rungs: list[Rung] = []
    for name, texts, seconds in steps:
        below = rungs[-1].name if rungs else None
        rungs.append(
            rung(
                name,
                ACCURACY.function(texts, REFERENCES),
                interval=interval(ACCURACY, texts, REFERENCES, resamples=300),
                against=below,
                comparison=compare(ACCURACY, texts, said[below], REFERENCES, resamples=300)
                if below
                else None,
                train_seconds=seconds,
            )
        )
    return rungs, against_best(ACCURACY, rungs, said, REFERENCES)


def choose(
    *steps: tuple[str, list[str], float], target: float | None = None, skipped: Sequence[str] = ()
) -> Recommendation:
    rungs, against = climbed(*steps)
    return recommend(rungs, target=target, against=against, rows=ROWS, skipped=skipped)


CLEAR = (
    ("majority", answers(0.3), 0.0),
    ("linear", answers(0.7), 2.0),
    ("tuned", answers(0.9), 90.0),
)


def test_the_best_is_chosen_when_it_is_clearly_better() -> None:
    chosen = choose(*CLEAR)
    assert chosen.choice == "tuned"
    first, second = chosen.sentences
    assert first.startswith("Use tuned: with accuracy 0.900 (95 % interval 0.8")
    assert "it is the best of 3 rungs, 0.200 above linear, the rung below (p < 0.001)" in first
    assert first.endswith(
        "for 1 min 30 s of training and 1.0 s per 1,000 answers at a peak of 1.00 GiB of memory."
    )
    assert second.startswith("The runner-up, linear with 0.700, is 0.200 lower (Holm-corrected p <")
    assert second.endswith("and takes 2.0 s of training and 1.0 s per 1,000 answers.")


def test_a_cheaper_rung_that_cannot_be_told_from_the_best_is_chosen() -> None:
    chosen = choose(
        ("majority", answers(0.3), 0.0),
        ("linear", answers(0.88), 2.0),
        ("tuned", answers(0.9, shift=30), 90.0),
    )
    assert chosen.choice == "linear"
    first, second = chosen.sentences
    assert "it is the cheapest not measurably below the best, 0.580 above majority" in first
    assert "The best score, tuned with 0.900, is 0.020 higher" in second
    assert "which 400 test rows cannot tell from chance" in second
    shown = re.search(r"only a true difference of about (0\.\d+) or more would reliably", second)
    assert shown and 0.02 < float(shown[1]) < 0.15


def test_cheap_means_little_time_to_train_and_to_answer() -> None:
    slow, quick = rung("slow", train_seconds=0, seconds_per_1000=100), rung("q", train_seconds=60)
    assert cost_seconds(slow) == 1000 and cost_seconds(quick) == 70
    same = AgainstBest("q", {"slow": Comparison(0, 0, 0, 1, "")}, {"slow": 0.1})
    assert recommend([slow, quick], target=None, against=same, rows=9).choice == "q"


def test_the_strongest_cheaper_rung_is_the_measure_of_the_gain() -> None:
    chosen = choose(
        ("linear", answers(0.7), 2.0), ("few-shot", answers(0.4), 5.0), ("tuned", answers(0.9), 90)
    )
    assert chosen.choice == "tuned"
    assert "0.200 above linear, the best cheaper rung (Holm-corr" in chosen.sentences[0]


def test_the_cheapest_rung_that_reaches_the_target() -> None:
    chosen = choose(*CLEAR, target=0.6)
    assert chosen.choice == "linear"
    assert "it is the cheapest of the 2 to reach the target 0.6, 0.400" in chosen.sentences[0]
    assert "is 0.200 higher" in chosen.sentences[1]
    assert "beyond what the target asks for" in chosen.sentences[1]


def test_reaching_the_target_within_the_interval_is_said_to_be_in_doubt() -> None:
    chosen = choose(*CLEAR, target=0.89)
    assert chosen.choice == "tuned"
    assert "the only one to reach the target 0.89, though not beyond doubt" in chosen.sentences[0]
    assert "doubt" not in choose(*CLEAR, target=0.5).sentences[0]


def test_target_missed_by_all() -> None:
    chosen = choose(*CLEAR, target=0.95)
    assert chosen.choice == "tuned"
    assert chosen.sentences[0].startswith("Use tuned: no rung reaches the target 0.95, but with")


def test_rungs_left_out_are_named() -> None:
    chosen = choose(*CLEAR[:2], target=0.6, skipped=["tuned", "giant"])
    assert chosen.choice == "linear"
    assert chosen.sentences[1].startswith(
        "The ladder stopped at the target, so tuned and giant were not tried; the runner-up, maj"
    )
    alone = choose(CLEAR[0], target=0.2, skipped=["linear"]).sentences[1]
    assert alone == "The ladder stopped at the target, so linear was not tried."


def test_one_rung_only() -> None:
    chosen = choose(CLEAR[1])
    assert chosen.choice == "linear"
    assert "it is the only rung tried, for 2.0 s of training" in chosen.sentences[0]
    assert chosen.sentences[1] == "Nothing else was tried, so it may be beaten or undercut."


def test_all_equal() -> None:
    chosen = choose(*[(name, answers(0.6), cost) for name, cost in (("a", 5.0), ("b", 1.0))])
    assert chosen.choice == "b"
    assert "level with a, the rung below (p = 1.00)" in chosen.sentences[0]
    assert "a with 0.600, does equally well on 400 test rows" in chosen.sentences[1]


def test_too_few_rows_are_admitted() -> None:
    refs = ["a", "b", "a", "b"]
    said = {"x": ["a", "a", "a", "a"], "y": refs}
    rungs = [rung("x", 0.5, train_seconds=0.0), rung("y", 1.0)]
    against = against_best(ACCURACY, rungs, said, refs)
    chosen = recommend(rungs, target=None, against=against, rows=4)
    assert chosen.choice == "x"
    assert chosen.sentences[1].endswith("4 test rows are too few to tell any difference.")


def test_holm_guards_against_many_comparisons() -> None:
    def against(p: float, others: int) -> AgainstBest:
        names = [f"r{i}" for i in range(others)]
        pair = Comparison(-0.05, -0.1, 0.0, p, "")
        return AgainstBest("best", dict.fromkeys(names, pair), dict.fromkeys(names, 0.1))

    def choice(p: float, others: int) -> str:
        rungs = [rung(f"r{i}", 0.8, train_seconds=float(i)) for i in range(others)]
        rungs.append(rung("best", 0.85, train_seconds=99.0))
        return recommend(rungs, target=None, against=against(p, others), rows=100).choice

    assert choice(0.03, 1) == "best" and choice(0.03, 3) == "r0"
    assert choice(0.01, 3) == "best"


def test_the_best_of_equals_is_the_cheapest() -> None:
    tie = [rung("a", 0.7, train_seconds=9.0), rung("b", 0.7), rung("c", 0.6, train_seconds=0.0)]
    assert best_rung(tie).name == "b"


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 400), st.floats(0, 1e5)), min_size=1,
             max_size=4),
    st.none() | st.floats(0, 1),
)  # fmt: skip
def test_any_ladder_gets_two_finite_sentences(
    steps: list[tuple[float, int, float]], target: float | None
) -> None:
    rungs, against = climbed(
        *[(f"r{i}", answers(right, shift), cost) for i, (right, shift, cost) in enumerate(steps)]
    )
    chosen = recommend(rungs, target=target, against=against, rows=ROWS)
    assert chosen.choice in {r.name for r in rungs}
    for sentence in chosen.sentences:
        assert sentence.endswith(".") and len(re.findall(r"\.( |$)", sentence)) == 1
        assert not re.search(r"\bnan\b|\binf\b|None|  ", sentence)
    reaching = [r for r in rungs if target is not None and r.value >= target]
    if reaching:
        cheapest = min(map(cost_seconds, reaching))
        assert cost_seconds(next(r for r in reaching if r.name == chosen.choice)) == cheapest


def test_rungs_survive_json() -> None:
    import json

    rungs, _ = climbed(*CLEAR)
    for made in rungs:
        assert Rung.from_json(json.loads(json.dumps(made.to_json()))) == made


@pytest.mark.parametrize("name", ["macro_f1"])
def test_other_metrics_work_too(name: str) -> None:
    said = {"low": answers(0.5), "high": answers(0.9)}
    metric = METRICS[name]
    rungs = [rung(n, metric.function(t, REFERENCES), metric=name) for n, t in said.items()]
    against = against_best(metric, rungs, said, REFERENCES)
    assert against.best == "high" and against.comparisons["low"].p_value < 0.001
    detectable = against.detectable["low"]
    assert detectable is not None and 0 < detectable < 0.2
