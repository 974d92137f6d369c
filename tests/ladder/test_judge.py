"""Judged pairs: position bias shows, verdicts are kept, and a judge that fails ends no ladder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fitune.config import Judge
from fitune.data.rows import Row, Rows
from fitune.errors import ConfigError, Interrupted, ResourceError, RunError
from fitune.ladder.judge import Judgement, judge_rung, read_judgements, read_verdict
from fitune.runs import Run
from judge_kit import Served, answers_of, prefers_the_first, prefers_the_longer, serving

ROWS = Rows(tuple(Row(f"Question {i}?", f"reference {i}") for i in range(12)))
ANSWERS = {
    "long": [f"a rather long answer to {i}" for i in range(12)],
    "short": [f"answer {i}" for i in range(12)],
}


def judged(
    folder: Path, served: Served, name: str = "long", answers: Any = None, **how: Any
) -> tuple[list[Judgement], list[str]]:
    told: list[str] = []
    options = {key: how.pop(key) for key in ("rows", "criterion", "key_env") if key in how}
    judge = Judge(url=served.url, model="m", **options)
    found = judge_rung(
        judge, Run(folder), ROWS, name, answers or ANSWERS, notice=told.append, **how
    )
    return found, told


def test_a_judge_that_sees_length_prefers_the_longer(tmp_path: Path) -> None:
    with serving(prefers_the_longer) as served:
        (win,), told = judged(tmp_path, served)
        (loss,), _ = judged(tmp_path, served, "short")
    assert (win.tally.win_rate, win.tally.wins, win.tally.agreement) == (1.0, 12, 1.0)
    assert win.tally.first == 0.5 and win.tally.interval.low > 0.7 and win.against == "short"
    assert (loss.tally.win_rate, loss.tally.losses) == (0.0, 12)
    assert told == [
        "m prefers it to short in 100% of 12 answers (95 % interval 76% to 100%, p < 0.001); its "
        "two orders agree on 100%, and it names the first answer in 50%."
    ]
    assert len(served.bodies) == 24, "the other way round, the same questions are known"
    assert read_judgements(tmp_path / "rungs" / "long") == [win]
    assert read_judgements(tmp_path / "rungs" / "other") == []


def test_a_judge_that_sees_positions_prefers_nothing(tmp_path: Path) -> None:
    with serving(prefers_the_first) as served:
        (found,), _ = judged(tmp_path, served)
    tally = found.tally
    assert (tally.win_rate, tally.agreement, tally.first, tally.ties) == (0.5, 0.0, 1.0, 12)


def test_a_judge_sees_both_orders_with_question_and_reference(tmp_path: Path) -> None:
    with serving(prefers_the_longer) as served:
        judged(tmp_path, served, rows=1, criterion="which is kinder", instruction="Be kind.")
    first, second = served.bodies
    assert answers_of(first) == answers_of(second)[::-1]
    system, user = (message["content"] for message in first["messages"])
    assert "which is kinder" in system
    i = answers_of(first)[1].rpartition(" ")[2]
    assert f"## Question\nQuestion {i}?" in user and f"## Reference answer\nreference {i}" in user
    assert "## Task\nBe kind." in user


def test_nobody_is_asked_about_equal_answers(tmp_path: Path) -> None:
    answers = {"long": ANSWERS["long"], "same": ANSWERS["long"], "more": ANSWERS["short"]}
    with serving(prefers_the_longer) as served:
        found, _ = judged(tmp_path, served, answers=answers, rows=5)
    assert len(served.bodies) == 10
    same, more = found
    assert (same.against, same.tally.ties, same.tally.agreement) == ("same", 5, None)
    assert (more.against, more.tally.wins) == ("more", 5)


def test_nothing_is_asked_twice_also_after_a_crash(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    with serving(prefers_the_longer) as served:
        whole, _ = judged(tmp_path / "whole", served)
        lines = (tmp_path / "whole" / "verdicts.jsonl").read_text().splitlines()
        served.bodies.clear()
        (tmp_path / "cut").mkdir()
        (tmp_path / "cut" / "verdicts.jsonl").write_text("\n".join(lines[:9]) + '\n{"key": "ab')
        again, _ = judged(tmp_path / "cut", served)
        assert again == whole and len(served.bodies) == 24 - 9
        served.bodies.clear()
        judged(tmp_path / "cut", served)
        assert not served.bodies
    assert len((tmp_path / "cut" / "verdicts.jsonl").read_text().splitlines()) == 24


def test_a_judge_that_cannot_be_asked_ends_no_ladder(tmp_path: Path) -> None:
    first = min(ROWS, key=lambda row: row.content_hash).text

    def reply(body: dict[str, Any]) -> Any:
        refused = f"## Question\n{first}\n" in body["messages"][-1]["content"]
        return (401, {}, b"no") if refused else prefers_the_longer(body)

    with serving(reply) as served:
        found, told = judged(tmp_path, served)
        assert found == [] and "the judge did not compare long with short" in told[0]
        assert "answers 401" in told[0]
        kept = (tmp_path / "verdicts.jsonl").read_text().splitlines()
        assert len(kept) == 6, "replies that came beside the refusals are kept"
    with serving(prefers_the_longer) as served:
        (found,), _ = judged(tmp_path, served)
        assert found.tally.wins == 12 and len(served.bodies) == 24 - 6


def test_a_disk_that_takes_nothing_is_no_failure_of_the_judge(tmp_path: Path) -> None:
    refused = pytest.raises(ResourceError, match="cannot be written")
    with serving(prefers_the_longer) as served, refused:
        judged(tmp_path / "not-there", served)


def test_stopping_keeps_the_verdicts(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    with serving(prefers_the_longer) as served, pytest.raises(Interrupted):
        judged(
            tmp_path, served, progress=lambda *what: told.append(what),
            stop_requested=lambda: len(told) == 1,
        )  # fmt: skip
    assert told == [("long: judged against short", 8, 24)]
    assert len((tmp_path / "verdicts.jsonl").read_text().splitlines()) == 8


def test_stopping_does_not_wait_for_a_server_to_come_back(tmp_path: Path) -> None:
    asked: list[int] = []

    def stopped() -> bool:
        return bool(asked)

    def busy(body: dict[str, Any]) -> Any:
        asked.append(1)
        return (503, {"Retry-After": "60"}, b"")

    with serving(busy) as served, pytest.raises(Interrupted):
        judged(tmp_path, served, stop_requested=stopped)


def test_the_key_is_nowhere_in_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", "sk-secret")
    with serving(prefers_the_longer) as served:
        judged(tmp_path, served, key_env="JUDGE_KEY")
    assert served.headers[0]["Authorization"] == "Bearer sk-secret"
    assert all(b"sk-secret" not in p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
    monkeypatch.delenv("JUDGE_KEY")
    with pytest.raises(ConfigError, match="'JUDGE_KEY'"):
        judged(tmp_path, served, key_env="JUDGE_KEY")


@pytest.mark.parametrize("content", ["[]\n", '{"key": 1}\n', "nonsense\n{}\n"])
def test_damaged_verdicts_are_said_to_be(tmp_path: Path, content: str) -> None:
    (tmp_path / "verdicts.jsonl").write_text(content)
    with pytest.raises(RunError, match=r"verdicts\.jsonl"):
        judged(tmp_path, Served("http://127.0.0.1:1/v1"))


def test_damaged_judgements_are_said_to_be(tmp_path: Path) -> None:
    (tmp_path / "judge.json").write_text(json.dumps([{"against": "a"}]))
    with pytest.raises(RunError, match=r"judge\.json"):
        read_judgements(tmp_path)


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ("[[A]]", "first"),
        ("[[B]].", "second"),
        ("[[ tie ]]", "tie"),
        ("[[TIE]]", "tie"),
        ("B", "second"),
        (" **a** ", "first"),
        ("Tie.", "tie"),
        ("At first [[A]] looks better, but [[B]]", "second"),
        ("A is better", "unreadable"),
        ("", "unreadable"),
    ],
)
def test_reading_a_verdict(reply: str, verdict: str) -> None:
    assert read_verdict(reply) == verdict
