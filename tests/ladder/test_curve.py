"""What more rows would bring: the parts learned from, what is kept, and what is said."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from fitune.approaches.base import Cost, Prediction, Work
from fitune.config import Task
from fitune.data.rows import Row, Rows, Splits
from fitune.errors import DataError, Interrupted
from fitune.evaluation.metrics import METRICS
from fitune.evaluation.significance import Interval, interval
from fitune.ladder.climb import Entry, climb
from fitune.ladder.curve import Curve, Point, draw_curve, drawn_on
from fitune.ladder.subset import nested
from fitune.runs import Run

ACCURACY = METRICS["accuracy"]
TASK = Task(kind="classify", data={"train": "rows.csv"})


def rows(name: str, count: int) -> Rows:
    return Rows(tuple(Row(f"{name} {i}", "abc"[i % 3], source=f"{name}:{i}") for i in range(count)))


SPLITS = Splits(rows("train", 160), rows("validation", 6), rows("test", 200))


class Learns:
    """Wrong on a share of the test rows that falls as one over the square root of its rows."""

    learned: ClassVar[list[Rows]] = []
    stop: ClassVar[bool] = False
    options: ClassVar[dict[str, Any]] = {}

    def __init__(self, work: Work) -> None:
        self.cost = Cost(1, 1, 1)

    def fit(self, train: Rows, validation: Rows) -> None:
        type(self).learned.append(train)
        self.wrong = int(len(SPLITS.test) * 2 / len(train) ** 0.5)

    def predict(self, given: Rows, progress: Callable[[str, int, int], None]) -> list[Prediction]:
        progress("answering", len(given), len(given))
        said = [Prediction(answer) for answer in given.answers]
        return [Prediction("z")] * self.wrong + said[self.wrong :]

    def save(self, folder: Path) -> None:
        (folder / "nothing.txt").write_text("")


class Silent:
    def progress(self, label: str, done: int, total: int) -> None: ...
    def notice(self, text: str) -> None: ...
    def rung(self, rung: Any) -> None: ...


@pytest.fixture
def draw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Curve]:
    monkeypatch.setattr(Learns, "learned", [])
    monkeypatch.setattr(Learns, "stop", False)

    def work(folder: Path, progress: Any, notice: Any) -> Work:
        return Work(TASK, ("a", "b", "c"), folder, progress, notice, lambda p, r: 0.0, "cpu",
                    "fp32", 10**9, lambda: Learns.stop)  # fmt: skip

    def go(splits: Splits = SPLITS, most: int | None = None) -> Curve:
        entry = Entry("learns", "linear", None, None, most, Learns)
        common: dict[str, Any] = {
            "metric": ACCURACY, "run": Run(tmp_path), "on": Silent(),
            "stop_requested": lambda: Learns.stop,
        }  # fmt: skip
        made = climb(
            [entry],
            splits,
            target=None,
            work_for=lambda name, progress, notice: work(tmp_path / name, progress, notice),
            **common,
        )
        return draw_curve(entry, made.rungs[0], splits, work_for=work, **common)

    return go


def test_parts_are_nested_and_learned_once(draw: Any, tmp_path: Path) -> None:
    curve = draw()
    assert [point.rows for point in curve.points] == [20, 40, 80, 160]
    whole, *parts = Learns.learned
    assert [len(part) for part in parts] == [20, 40, 80] and whole == SPLITS.train
    for small, large in zip(parts, [*parts[1:], whole], strict=True):
        assert set(small) < set(large)
    assert draw() == curve and len(Learns.learned) == 4, "nothing is learned twice"
    kept = Curve.from_json(json.loads((tmp_path / "curve/curve.json").read_text()))
    assert kept == curve


def test_the_law_is_drawn_on(draw: Any) -> None:
    curve = draw()
    assert [told.rows for told in curve.forecasts] == [320, 640]
    for told in curve.forecasts:  # error = 2 / √n, up to a whole number of rows
        assert told.value == pytest.approx(1 - 2 / told.rows**0.5, abs=0.02)
        assert told.low < told.value < told.high
    assert curve.at(160) == pytest.approx(curve.points[-1].value, abs=0.01)
    assert curve.fit_p > 0.05
    assert "with 2 times the rows (95 % interval" in curve.sentences[0]


def test_an_interrupted_curve_goes_on(draw: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    predict = Learns.predict

    def stop(self: Learns, given: Rows, progress: Any) -> list[Prediction]:
        said = predict(self, given, progress)
        Learns.stop = len(Learns.learned) == 2
        return said

    monkeypatch.setattr(Learns, "predict", stop)
    with pytest.raises(Interrupted):
        draw()
    done = len(Learns.learned)
    Learns.stop = False
    monkeypatch.setattr(Learns, "predict", predict)
    draw()
    assert 4 <= len(Learns.learned) <= 5 and done < 4


def test_too_few_rows_are_refused(draw: Any) -> None:
    with pytest.raises(DataError, match="needs 32 training rows, and there are 30"):
        draw(most=30)


def points(values: list[float], test_rows: int) -> tuple[list[Point], list[list[str]], list[str]]:
    references = ["a"] * test_rows
    made, answers = [], []
    for i, value in enumerate(values):
        said = ["a"] * round(value * test_rows)
        said += ["z"] * (test_rows - len(said))
        made.append(Point(100 * 2**i, value, interval(ACCURACY, said, references), 1.0))
        answers.append(said)
    return made, answers, references


def test_a_poor_fit_is_said_to_be_one() -> None:
    made = drawn_on("r", ACCURACY, *points([0.5, 0.9, 0.5, 0.9], 2000))
    assert made.fit_p < 0.001
    assert made.sentences[1].startswith("Do not rely on it: the points do not lie on a curve")


def test_a_flat_curve_is_said_to_be_flat() -> None:
    made = drawn_on("r", ACCURACY, *points([0.7, 0.7, 0.7, 0.7], 400))
    assert "flat" in made.sentences[1]
    assert made.forecasts[-1].value == pytest.approx(0.7, abs=0.005)


def test_a_gain_that_may_be_chance_is_said_to_be() -> None:
    made = drawn_on("r", ACCURACY, *points([0.60, 0.62, 0.61, 0.63], 100))
    assert "not certain" in made.sentences[1] or "flat" in made.sentences[1]
    assert made.forecasts[1].low < 0.63


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """Test rows drawn anew 30 times: the true value at four times the rows is inside in most."""
    rng = np.random.default_rng(1)
    references, inside = ["a"] * 400, 0
    for _ in range(30):
        made, answers = [], []
        hard = rng.random(400)
        for n in (100, 200, 400, 800):
            said = ["z" if h < 0.05 + 0.3 * (n / 800) ** -0.5 else "a" for h in hard]
            answers.append(said)
            value = said.count("a") / 400
            made.append(Point(n, value, Interval(value, value), 1.0))
        told = drawn_on("r", ACCURACY, made, answers, references).forecasts[1]
        inside += told.low <= 1 - (0.05 + 0.15) <= told.high
    assert inside >= 25


def test_nested_is_nested_where_shares_are_odd() -> None:
    uneven = Rows(tuple(Row(f"t {i}", "aaaaaabbc"[i % 9]) for i in range(101)))
    parts = nested(uneven, [12, 25, 50])
    assert [len(part) for part in parts] == [12, 25, 50]
    assert set(parts[0]) < set(parts[1]) < set(parts[2]) < set(uneven)
