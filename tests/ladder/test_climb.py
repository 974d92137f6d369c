"""The climb with approaches made for the test: what is run, kept, skipped and resumed."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fitune.approaches.base import Cost, Prediction, Work
from fitune.config import Task
from fitune.data.rows import Row, Rows, Splits
from fitune.errors import ConfigError, Interrupted, RunError
from fitune.evaluation.metrics import METRICS
from fitune.ladder.budget import Budget
from fitune.ladder.climb import Entry, climb
from fitune.ladder.subset import capped
from fitune.runs import Run

TASK = Task(kind="classify", data={"train": "rows.csv"})
LABELS = ("a", "b")


def rows(name: str, count: int) -> Rows:
    return Rows(
        tuple(Row(f"{name} {i}", LABELS[i % 2], source=f"{name}:{i}") for i in range(count))
    )


SPLITS = Splits(rows("train", 40), rows("validation", 6), rows("test", 20))


@dataclass
class Seen:
    """What the ladder did."""

    said: list[str] = field(default_factory=list)
    rungs: list[str] = field(default_factory=list)
    steps: list[tuple[str, int, int]] = field(default_factory=list)
    learned: dict[str, Rows] = field(default_factory=dict)
    stop: bool = False

    def progress(self, label: str, done: int, total: int) -> None:
        self.steps.append((label, done, total))

    def notice(self, text: str) -> None:
        self.said.append(text)

    def rung(self, rung: Any) -> None:
        self.rungs.append(rung.name)


class Right:
    """Right on the first `right` of the test rows."""

    def __init__(self, name: str, right: int, seen: Seen, work: Work, **how: Any) -> None:
        self.name, self.right, self.seen, self.work, self.how = name, right, seen, work, how
        self.options = {"right": right, "method": how.get("method")}
        self.cost = Cost(10, 5, 40)

    def fit(self, train: Rows, validation: Rows) -> None:
        self.seen.learned[self.name] = train
        assert validation == SPLITS.validation
        if "fit" in self.how:
            self.how["fit"](self.work)

    def predict(self, given: Rows, progress: Callable[[str, int, int], None]) -> list[Prediction]:
        assert given == SPLITS.test
        progress("answering", len(given), len(given))
        other = {"a": "b", "b": "a"}
        return [
            Prediction(answer if i < self.right else other[answer], stopped=self.how.get("stopped"))
            for i, answer in enumerate(given.answers)
        ]

    def save(self, folder: Path) -> None:
        (folder / "right.txt").write_text(str(self.right))


def go(
    folder: Path,
    *approaches: tuple[str, int],
    seen: Seen | None = None,
    target: float | None = None,
    most: int | None = None,
    **how: Any,
) -> Any:
    seen = seen or Seen()

    def make(name: str, right: int) -> Callable[[Work], Any]:
        return lambda work: Right(name, right, seen, work, **how)

    def work_for(name: str, progress: Any, notice: Any) -> Work:
        return Work(
            task=TASK, labels=LABELS, folder=folder / "rungs" / name, progress=progress,
            notice=notice, score=lambda p, r: 0.0, device="cpu", dtype="fp32",
            memory_bytes=10**9, stop_requested=lambda: seen.stop,
        )  # fmt: skip

    return climb(
        [Entry(name, "linear", None, None, most, make(name, right)) for name, right in approaches],
        SPLITS,
        metric=METRICS["accuracy"],
        target=target,
        run=Run(folder),
        work_for=work_for,
        stop_requested=lambda: seen.stop,
        on=seen,
    )


def state(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "ladder.json").read_text())


def test_every_rung_answers_the_same_rows_and_is_compared_with_the_one_below(
    tmp_path: Path,
) -> None:
    seen = Seen()
    result = go(tmp_path, ("low", 10), ("high", 19), seen=seen)
    low, high = result.rungs
    assert (low.value, high.value) == (0.5, 0.95)
    assert (low.against, low.comparison) == (None, None)
    assert high.against == "low" and high.comparison.difference == pytest.approx(0.45)
    assert set(low.metrics) == {"macro_f1", "mcc"}
    assert result.recommendation.choice == "high"
    assert seen.rungs == ["low", "high"]
    assert seen.steps == [("low: answering", 20, 20), ("high: answering", 20, 20)]
    assert state(tmp_path)["status"] == "done"
    test = [json.loads(x) for x in (tmp_path / "rows.test.jsonl").read_text().splitlines()]
    assert [r["text"] for r in test] == SPLITS.test.texts
    for rung in ("low", "high"):
        lines = (tmp_path / "rungs" / rung / "predictions.jsonl").read_text().splitlines()
        assert [json.loads(x)["key"] for x in lines] == [r["key"] for r in test]
        assert (tmp_path / "rungs" / rung / "model" / "right.txt").is_file()


@pytest.mark.parametrize(
    ("target", "tried", "status"),
    [(0.5, ["a1"], "target"), (0.51, ["a1", "b2"], "target"), (1.0, ["a1", "b2", "c3"], "done")],
)
def test_the_target_stops_the_climb(
    tmp_path: Path, target: float, tried: list[str], status: str
) -> None:
    seen = Seen()
    result = go(tmp_path, ("a1", 10), ("b2", 15), ("c3", 16), seen=seen, target=target)
    assert [r.name for r in result.rungs] == seen.rungs == tried
    assert state(tmp_path)["status"] == status
    assert ("not tried" in result.recommendation.sentences[1]) == (status == "target")


def test_a_finished_rung_is_not_done_again(tmp_path: Path) -> None:
    first = go(tmp_path, ("low", 10), ("high", 19))
    (tmp_path / "rungs" / "high" / "rung.json").unlink()
    seen = Seen()
    again = go(tmp_path, ("low", 10), ("high", 19), seen=seen)
    assert set(seen.learned) == {"high"} and seen.rungs == ["low", "high"]
    assert again.rungs[0] == first.rungs[0]
    assert again.rungs[1].comparison == first.rungs[1].comparison
    assert again.recommendation.choice == first.recommendation.choice


@pytest.mark.parametrize("name", ["rung.json", "predictions.jsonl"])
def test_a_damaged_finished_rung_is_said_to_be(tmp_path: Path, name: str) -> None:
    go(tmp_path, ("low", 10))
    (tmp_path / "rungs" / "low" / name).write_text("[{}]\n")
    with pytest.raises(RunError, match=name):
        go(tmp_path, ("low", 10))


def test_an_interruption_keeps_what_is_finished(tmp_path: Path) -> None:
    seen = Seen()

    def stop(work: Work) -> None:
        seen.stop = True

    with pytest.raises(Interrupted):
        go(tmp_path, ("low", 10), ("high", 19), seen=seen, fit=stop)
    assert state(tmp_path) == {"status": "running", "rungs": [], "recommendation": None}
    assert not (tmp_path / "rungs" / "low").exists()
    result = go(tmp_path, ("low", 10), ("high", 19))
    assert state(tmp_path)["rungs"] == ["low", "high"] and len(result.rungs) == 2


def test_a_request_after_the_last_rung_comes_too_late(tmp_path: Path) -> None:
    seen = Seen()
    seen.rung = lambda rung: setattr(seen, "stop", True)  # type: ignore[method-assign]
    with pytest.raises(Interrupted):
        go(tmp_path, ("low", 10), ("high", 19), seen=seen)
    assert state(tmp_path)["rungs"] == ["low"]
    seen.stop = False
    seen.rungs = []
    assert len(go(tmp_path, ("low", 10), seen=seen).rungs) == 1
    assert state(tmp_path)["status"] == "done"


def test_notices_are_told_once_and_kept(tmp_path: Path) -> None:
    seen = Seen()

    def notice(work: Work) -> None:
        work.notice("two rows were cut.")
        work.notice("two rows were cut.")

    (rung,) = go(tmp_path, ("low", 10), seen=seen, fit=notice, stopped=True).rungs
    assert seen.said == ["low: two rows were cut."]
    assert rung.notes == (
        "two rows were cut.",
        "20 of 20 answers ended by themselves, before the limit.",
    )


def test_a_mistake_says_which_rung_it_is_about(tmp_path: Path) -> None:
    def refuse(work: Work) -> None:
        raise ConfigError("rank is too high", fix="lower it")

    with pytest.raises(ConfigError, match=r"^high: rank is too high; lower it\.$"):
        go(tmp_path, ("high", 10), fit=refuse)


def test_max_train_rows_caps_what_is_learned_from(tmp_path: Path) -> None:
    seen = Seen()
    (rung,) = go(tmp_path, ("low", 10), seen=seen, most=9).rungs
    assert len(seen.learned["low"]) == 9
    assert rung.notes == ("was given 9 of 40 training rows (max_train_rows).",)
    go(tmp_path / "other", ("low", 10), seen=seen, most=40)
    assert seen.learned["low"] == SPLITS.train


@given(
    labels=st.lists(st.sampled_from("aaaaabbc"), min_size=1, max_size=60),
    most=st.integers(1, 60),
    order=st.randoms(use_true_random=False),
)
def test_capped_rows_keep_every_label_whatever_their_order(
    labels: list[str], most: int, order: Any
) -> None:
    given_rows = [Row(f"text {i}", label) for i, label in enumerate(labels)]
    kept = capped(Rows(tuple(given_rows)), most) if most < len(labels) else None
    if kept is None:
        return
    assert len(kept) == most
    assert [given_rows.index(row) for row in kept] == sorted(given_rows.index(row) for row in kept)
    if most >= len(set(labels)):
        assert set(kept.labels) == set(labels)
        shares = Counter(labels)
        for label, count in Counter(kept.answers).items():
            assert count <= max(1, shares[label] * most / len(labels) + 1)
    order.shuffle(given_rows)
    assert set(capped(Rows(tuple(given_rows)), most)) == set(kept)


# --- rungs of earlier runs, and the budget ------------------------------------------------------


def keyed(folder: Path, keys: dict[str, str | None], seen: Seen, **more: Any) -> Any:
    """A climb of rungs that are right on all rows, each with a key."""

    def work_for(name: str, progress: Any, notice: Any) -> Work:
        return Work(
            task=TASK, labels=LABELS, folder=folder / "rungs" / name, progress=progress,
            notice=notice, score=lambda p, r: 0.0, device="cpu", dtype="fp32",
            memory_bytes=10**9, stop_requested=lambda: False,
        )  # fmt: skip

    def make(name: str) -> Callable[[Work], Any]:
        return lambda work: Right(name, 15, seen, work)

    return climb(
        [Entry(name, "linear", None, None, None, make(name), key) for name, key in keys.items()],
        SPLITS,
        metric=METRICS["accuracy"],
        target=None,
        run=Run(folder),
        work_for=work_for,
        stop_requested=lambda: False,
        on=seen,
        **more,
    )


def test_a_rung_made_of_the_same_is_taken_over(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    first = keyed(one, {"a": "k1", "b": "k2", "c": "k3"}, Seen())
    seen = Seen()
    made = keyed(two, {"c": "k3", "renamed": "k1", "b": "other", "d": None}, seen, earlier=[one])
    assert set(seen.learned) == {"b", "d"}
    assert seen.said == [
        f"{name}: re-used from {one}, where all it depends on was the same."
        for name in ("c", "renamed")
    ]
    c, renamed, b, _ = made.rungs
    assert c.against is None and c.comparison is None, "it stood above b there"
    assert renamed.against == "c" and renamed.comparison.difference == 0
    assert b.against == "renamed" and not b.notes
    assert renamed.train_seconds == first.rungs[0].train_seconds
    assert (two / "rungs" / "renamed" / "model" / "right.txt").read_text() == "15"
    for name in ("c", "renamed"):
        record = json.loads((two / "rungs" / name / "rung.json").read_text())
        assert record["name"] == name and record["against"] == (None if name == "c" else "c")
    third = keyed(tmp_path / "three", {"c": "k3"}, Seen(), earlier=[two])
    assert [n for n in third.rungs[0].notes if n.startswith("re-used")] == [
        f"re-used from {two}, where all it depends on was the same."
    ]


@pytest.mark.parametrize("damage", ["predictions.jsonl", "rung.json", "key.json"])
def test_a_damaged_rung_is_not_taken_over(tmp_path: Path, damage: str) -> None:
    one = tmp_path / "one"
    keyed(one, {"a": "k1"}, Seen())
    (one / "rungs" / "a" / damage).write_text("[3")
    seen = Seen()
    keyed(tmp_path / "two", {"a": "k1"}, seen, earlier=[one])
    assert set(seen.learned) == {"a"} and seen.said == []


def test_an_unfinished_rung_is_not_taken_over(tmp_path: Path) -> None:
    one = tmp_path / "one"
    keyed(one, {"a": "k1"}, Seen())
    (one / "rungs" / "a" / "rung.json").unlink()
    seen = Seen()
    keyed(tmp_path / "two", {"a": "k1"}, seen, earlier=[one])
    assert set(seen.learned) == {"a"}


class Clock:
    """Time that passes only when it is told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_what_the_budget_has_no_time_for_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    seconds = {"quick": 1.0, "slow": 500.0, "fine": 20.0, "late": 1.0}
    module = sys.modules[climb.__module__]
    monkeypatch.setattr(module, "_expected", lambda entry, ground: seconds[entry.name])
    seen = Seen()
    seen.rung = lambda rung: setattr(clock, "now", clock.now + 50)  # type: ignore[method-assign]
    made = keyed(tmp_path, dict.fromkeys(seconds), seen, budget=Budget(100, clock))
    assert [rung.name for rung in made.rungs] == ["quick", "fine"]
    assert [(s.name, s.reason) for s in made.skipped] == [
        ("slow", "it would take about 8 min 20 s, and 50 s of the budget of 1 min 40 s is left"),
        ("late", "the budget of 1 min 40 s was used up"),
    ]
    assert seen.said[0].startswith("slow: skipped, as it would take about")
    assert state(tmp_path)["skipped"][0]["name"] == "slow"
    clock.now = 0.0
    again = keyed(tmp_path, dict.fromkeys(seconds), Seen(), budget=Budget(1e6, clock))
    assert [rung.name for rung in again.rungs] == list(seconds), "what was skipped is run later"


def test_the_first_rung_is_run_whatever_the_budget(tmp_path: Path) -> None:
    clock = Clock()
    budget = Budget(1.0, clock)
    clock.now = 100.0
    made = keyed(tmp_path, {"a": None, "b": None}, Seen(), budget=budget)
    assert [rung.name for rung in made.rungs] == ["a"]
    assert [rung.name for rung in made.skipped] == ["b"]
