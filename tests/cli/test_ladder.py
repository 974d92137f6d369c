"""What `fitune ladder` asks for, and how a result with everything in it reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fitune.cli import main
from fitune.evaluation.significance import Interval
from fitune.ladder.budget import Skipped
from fitune.ladder.curve import Curve, Forecast, Point
from fitune.ladder.diagnose import Cause, Diagnosis, Example
from fitune.ladder.price import costs
from fitune.ladder.recommend import Recommendation
from fitune.ladder.rung import Rung
from fitune.results import LadderResult

CAUSES = (
    Cause(
        "behaviour", 30, 0.75, (("the answer is none of the labels", 28), ("else", 2)),
        (Example(3, "where is\nmy card \x1b[31m" + "x" * 200, "lost_card", "Label: lost", "w"),),
        ("linear", 12),
    ),
    Cause("capacity", 10, 0.25, (("no rule explains it", 10),), (), None),
)  # fmt: skip
CURVE = Curve(
    "linear", "accuracy", 1.0,
    tuple(Point(100 * 2**i, 0.5 + i / 10, Interval(0.4, 0.9), 1.0) for i in range(4)),
    0.1, 0.2, 0.5, 0.4, (Forecast(1600, 0.85, 0.8, 0.9), Forecast(3200, 0.88, 0.82, 0.93)),
    ("More rows: it rises.", "The interval is over test rows."),
)  # fmt: skip


def rung(name: str, value: float, seconds: float, **other: Any) -> Rung:
    given: dict[str, Any] = {
        "use": name, "model": None, "method": None, "metric": "accuracy",
        "interval": Interval(value - 0.03, value + 0.03), "metrics": {}, "against": None,
        "comparison": None, "train_rows": 800, "seconds_per_1000": seconds,
        "train_seconds": 12.5, "peak_memory_bytes": 10**9, "parameters": 10,
        "trainable_parameters": 0,
    }  # fmt: skip
    return Rung(name=name, value=value, **{**given, **other})


RUNGS = (
    rung("majority", 0.08, 0.1),
    rung("prompt", 0.6, 90.0, model="smollm2-135m"),
    rung("finetuned-encoder", 0.87, 3.0, model="minilm-l6", trainable_parameters=10),
)


def result(**other: Any) -> LadderResult:
    given: dict[str, Any] = {
        "run": Path("runs/pydocs-1"),
        "rungs": RUNGS,
        "recommendation": Recommendation(
            "finetuned-encoder", ("Use it.", "Others are worse.", "Next: show examples.")
        ),
        "diagnoses": (Diagnosis("finetuned-encoder", 100, 40, False, CAUSES),),
        "skipped": (Skipped("slow", "it would take about 2 h 00 min"),),
        "costs": costs(RUNGS, 5000, 2.0),
        "curve": CURVE,
        "notes": (),
    }
    return LadderResult(**{**given, **other})


@pytest.fixture
def shows(api: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Prints a result on so many columns and returns what was printed."""

    def show(made: LadderResult, width: int, *words: str) -> str:
        import fitune

        monkeypatch.setenv("COLUMNS", str(width))
        monkeypatch.setattr(fitune.api, "ladder", lambda *args, **options: made)
        assert main(["ladder", "t.yaml", *words]) == 0
        return capsys.readouterr().out

    return show


@pytest.mark.parametrize("width", [80, 160])
def test_everything_behind_the_recommendation(shows: Any, width: int) -> None:
    out = shows(result(), width, "--price-per-hour", "2")
    for text in (
        "Next: show examples.", "Skipped slow: it would take about 2 h 00 min.",
        "The 40 errors of finetuned-encoder in 100 test rows",
        "30   75%  behaviour: the answer is none of the labels (28); else (2)",
        "wanted: lost_card   answered: Label: lost",
        "1,600     0.850?     0.800–0.900", "More rows: it rises.", "at 2 an hour",
        "finetuned-encoder is cheaper than prompt from the first request on.",
    ):  # fmt: skip
        assert text in out, text
    assert "\x1b" not in out, "what rows hold does not reach the terminal as it is"
    tables = [line for line in out.splitlines() if "─" in line or "│" in line]
    assert max(map(len, tables)) <= width
    (example,) = [line for line in out.splitlines() if "where is my card" in line]
    assert len(example) < 110


def test_costs_are_shown_where_they_are_asked_for(shows: Any) -> None:
    assert "an hour" not in shows(result(), 100)
    hours = result(costs=costs(RUNGS, 5000, None))
    assert "machine hours" in shows(hours, 100, "--requests-per-month", "5000")


def test_json_holds_everything(shows: Any) -> None:
    record = json.loads(shows(result(), 80, "--json"))
    assert record["run"] == "runs/pydocs-1"
    assert record["recommendation"]["sentences"][2] == "Next: show examples."
    (diagnosis,) = record["diagnoses"]
    assert diagnosis["causes"][0]["examples"][0]["reference"] == "lost_card"
    assert record["skipped"] == [{"name": "slow", "reason": "it would take about 2 h 00 min"}]
    assert record["costs"]["price_per_hour"] == 2.0 and len(record["costs"]["expenses"]) == 3
    assert record["curve"]["forecasts"][1]["rows"] == 3200


@pytest.mark.parametrize(
    ("words", "options"),
    [
        (["--rungs", "a,b"], {"rungs": "a,b"}),
        (["--budget-minutes", "1.5", "--fresh"], {"budget_minutes": 1.5, "fresh": True}),
        (["--curve"], {"curve": ""}),
        (["--curve", "linear"], {"curve": "linear"}),
        (["--requests-per-month", "7", "--price-per-hour", "0.5"],
         {"requests_per_month": 7, "price_per_hour": 0.5}),
    ],
)  # fmt: skip
def test_what_is_asked_for_is_handed_on(api: Any, words: list[str], options: Any) -> None:
    assert main(["ladder", "t.yaml", *words, "--quiet"]) == 0
    ((_, _, given),) = api.calls
    del given["on"]
    assert given == {"overrides": [], "resume": None, **options}


def test_plan_of_some_rungs(api: Any) -> None:
    assert main(["ladder", "t.yaml", "--plan", "--rungs", "linear"]) == 0
    assert api.calls[0][2] == {"overrides": [], "rungs": ("linear",)}


@pytest.mark.parametrize("words", [["--budget-minutes", "x"], ["--requests-per-month", "0"]])
def test_numbers_are_numbers(api: Any, capsys: Any, words: list[str]) -> None:
    assert main(["ladder", "t.yaml", *words]) == 2
    assert capsys.readouterr().err.startswith("error: ")
