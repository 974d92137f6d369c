"""`fitune.ladder` with what may be asked of it, on real rows and quick approaches."""

from __future__ import annotations

import json
import os
import shlex
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import fitune
from fitune.errors import ConfigError, Interrupted
from fitune.results import LadderResult

WORDS = {"lost": "card wallet gone", "change": "pin code new", "help": "money please how"}


KNN = {"use": "knn", "retriever": "bm25", "neighbours": 3}


class Told:
    """What was said; `act` is told of each step."""

    def __init__(self, act: Callable[[str], None] = lambda label: None) -> None:
        self.said: list[str] = []
        self.act = act

    def progress(self, label: str, done: int, total: int) -> None:
        self.act(label)

    def notice(self, text: str) -> None:
        self.said.append(text)

    def rung(self, rung: Any) -> None: ...

    @property
    def reused(self) -> list[str]:
        return [text.partition(":")[0] for text in self.said if "re-used from" in text]


@pytest.fixture
def climb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Runs majority and knn (or others) and gives the result and what was said."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    rows(tmp_path / "rows.csv")

    def go(
        *approaches: dict[str, Any], on: Told | None = None, asked: Any = None, **fields: Any
    ) -> tuple[LadderResult, Told]:
        told = on or Told()
        task = fitune.Task.model_validate(
            {
                "kind": "classify",
                "data": {"train": "rows.csv"},
                "approaches": approaches or ({"use": "majority"}, KNN),
                **fields,
            }
        )
        return fitune.ladder(task, on=told, **(asked or {})), told

    return go


def rows(path: Path, first: str = "my") -> None:
    lines = ["text,label"]
    for i in range(60):
        for label, words in WORDS.items():
            lines.append(f"{first} {words.split()[i % 3]} {i} is {'abcdefg'[i % 7]},{label}")
    path.write_text("\n".join(lines) + "\n")


def test_a_new_run_re_uses_what_is_the_same(climb: Any) -> None:
    first, told = climb()
    assert told.reused == []
    second, told = climb()
    assert told.reused == ["majority", "knn"]
    assert second.run != first.run and (second.run / "report.html").is_file()
    assert [r.value for r in second.rungs] == [r.value for r in first.rungs]
    assert second.rungs[1].comparison == first.rungs[1].comparison
    assert second.recommendation.choice == first.recommendation.choice
    assert fitune.load(second.run).predict(["my pin 3"]) == fitune.load(first.run).predict(
        ["my pin 3"]
    )
    assert climb(asked={"fresh": True})[1].reused == []


@pytest.mark.parametrize(
    ("changed", "reused"),
    [
        ({"seed": 1}, []),
        ({"metric": "macro_f1"}, []),
        ({"instruction": "choose"}, []),
        ({"data": {"train": "rows.csv", "split_seed": 1}}, []),
        ({"data": {"train": "rows.csv", "too_long": "truncate"}}, []),
        ({"data": {"train": "rows.csv", "max_rows": {"train": 90}}}, []),
        ({"data": {"train": "rows.csv", "format": "csv"}}, ["majority", "knn"]),
        ({"name": "other"}, ["majority", "knn"]),
        ({"target": 0.999}, ["majority", "knn"]),
    ],
)
def test_what_a_rung_depends_on(climb: Any, changed: dict[str, Any], reused: list[str]) -> None:
    climb()
    assert climb(**changed)[1].reused == reused


def test_options_and_their_names(climb: Any) -> None:
    climb()
    changed = {**KNN, "neighbours": 5}
    assert climb({"use": "majority", "name": "usual"}, changed)[1].reused == ["usual"]
    assert climb(KNN, {**KNN, "max_train_rows": 50})[1].reused == ["knn"]


def test_other_data_are_never_mistaken_for_the_same(climb: Any, tmp_path: Path) -> None:
    climb()
    rows(tmp_path / "rows.csv", first="her")
    assert climb()[1].reused == []


def test_code_of_the_users_own_is_run_again(climb: Any, tmp_path: Path) -> None:
    (tmp_path / "judging.py").write_text(
        "def share(said, wanted):\n    return sum(map(str.__eq__, said, wanted)) / len(said)\n"
    )
    climb(metric="judging:share")
    assert climb(metric="judging:share")[1].reused == []


def test_another_model_of_the_same_name_is_another(
    climb: Any, tmp_path: Path, tiny_encoder: Path
) -> None:
    import shutil

    shutil.copytree(tiny_encoder, tmp_path / "model")
    knn = {"use": "knn", "retriever": "dense", "model": "model"}
    climb(knn)
    assert climb(knn)[1].reused == ["knn"]
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps({**config, "note": "changed"}))
    assert climb(knn)[1].reused == []


def test_only_some_rungs_and_more_of_them_later(climb: Any) -> None:
    three = ({"use": "majority"}, {"use": "linear"}, KNN)
    result, _ = climb(*three, asked={"rungs": ("knn", "majority")})
    assert [r.name for r in result.rungs] == ["majority", "knn"]
    assert result.rungs[1].against == "majority"
    more = fitune.ladder(resume=result.run, rungs=("linear",))
    assert [r.name for r in more.rungs] == ["majority", "linear", "knn"]
    assert more.rungs[2].against == "linear", "it stands above another rung now"
    kept = json.loads((result.run / "rungs" / "knn" / "rung.json").read_text())
    assert kept["against"] == "linear"
    with pytest.raises(ConfigError, match="no rung 'linaer'; did you mean 'linear'"):
        climb(*three, asked={"rungs": ("linaer",)})
    with pytest.raises(ConfigError, match="--curve names 'linear'"):
        climb(*three, asked={"rungs": ("knn",), "curve": "linear"})


def test_a_curve_of_the_recommended_rung(climb: Any) -> None:
    result, _ = climb(asked={"curve": "", "requests_per_month": 500, "price_per_hour": 2.0})
    curve = result.curve
    assert curve is not None and curve.rung == result.recommendation.choice
    assert [p.rows for p in curve.points] == sorted(p.rows for p in curve.points)
    assert curve.points[-1].value == next(r.value for r in result.rungs if r.name == curve.rung)
    page = (result.run / "report.html").read_text()
    assert "What more rows would bring" in page and "Money at 2 an hour" in page
    record = json.loads(json.dumps(result.to_json()))
    assert record["costs"]["requests_per_month"] == 500
    assert len(record["curve"]["points"]) == 4
    again = fitune.ladder(resume=result.run, curve="majority")
    assert again.curve is not None and again.curve.rung == "majority"


def test_the_command_that_goes_on_asks_the_same(climb: Any) -> None:
    def stop(label: str) -> None:
        if label.startswith("knn on"):
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted) as caught:
        climb(on=Told(stop), asked={"curve": "knn", "requests_per_month": 9})
    words = shlex.split(caught.value.resume)
    assert words[4:] == ["--requests-per-month", "9", "--curve", "knn"]
    result = fitune.ladder(resume=words[3], curve="knn", requests_per_month=9)
    assert result.curve is not None and result.costs.requests_per_month == 9


def test_a_budget_in_real_time(climb: Any, tmp_path: Path) -> None:
    (tmp_path / "sleepy.py").write_text(
        "import time\n"
        "from fitune.approaches.majority import Majority\n"
        "class Sleepy(Majority):\n"
        "    def fit(self, train, validation):\n"
        "        time.sleep(0.004 * len(train))\n"
        "        super().fit(train, validation)\n"
    )
    slow = {"use": "sleepy:Sleepy", "name": "slow"}
    result, told = climb({"use": "majority"}, slow, asked={"budget_minutes": 0.5 / 60})
    assert [r.name for r in result.rungs] == ["majority"]
    assert [s.name for s in result.skipped] == ["slow"]
    assert "slow: skipped, as it would take about" in told.said[-1] or "used up" in told.said[-1]
    assert not list(result.run.glob(".trial*")), "trials leave nothing behind"
    result, _ = climb({"use": "majority"}, slow, asked={"budget_minutes": 5})
    assert [r.name for r in result.rungs] == ["majority", "slow"] and result.skipped == ()
