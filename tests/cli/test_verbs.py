"""Each verb: what it hands to `api`, and what it prints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from fitune.cli import main
from fitune.cli.check import coloured, places, visible
from fitune.data.checks import Finding

TOKENS = [("a b", False, "prompt"), ("yes", True, "answer"), ("!", True, "answer")]


@pytest.mark.parametrize(
    ("words", "verb", "args", "options"),
    [
        (
            ["ladder", "t.yaml", "--set", "a=1", "--set", "b.0.c=x", "--resume", "runs/t-1"],
            "ladder",
            ("t.yaml",),
            {"overrides": ["a=1", "b.0.c=x"], "resume": Path("runs/t-1")},
        ),
        (
            ["ladder", "--resume", "runs/t-1"],
            "ladder",
            (None,),
            {"overrides": [], "resume": Path("runs/t-1")},
        ),
        (["ladder", "t.yaml", "--plan"], "plan", ("t.yaml",), {"overrides": []}),
        (
            ["tune", "t.yaml", "--rung", "lora", "--set", "seed=2"],
            "tune",
            ("t.yaml",),
            {"overrides": ["seed=2"], "rung": "lora", "resume": None},
        ),
        (
            ["evaluate", "runs/t-1", "rows.csv", "--rung", "linear"],
            "evaluate",
            (Path("runs/t-1"), "rows.csv"),
            {"rung": "linear"},
        ),
        (
            ["check", "rows.csv", "--show", "2", "--kind", "classify", "--model", "minilm-l6"],
            "check",
            ("rows.csv",),
            {"overrides": [], "show": 2, "kind": "classify", "model": "minilm-l6"},
        ),
        (["doctor"], "doctor", (), {}),
    ],
)
@pytest.mark.parametrize("how", [[], ["--json"], ["--quiet"]])
def test_what_is_called(api, capsys, words, verb, args, options, how) -> None:
    assert main([*words, *how]) == 0
    ((called, given, kept),) = api.calls
    kept.pop("on", None)
    assert (called, given, kept) == (verb, args, options)
    out = capsys.readouterr().out
    if how == ["--json"]:
        expected = {"rungs"} if verb == "plan" else {"result", "text"}
        assert set(json.loads(out)) == expected
    else:
        assert out


@pytest.mark.parametrize("width", [80, 160])
def test_ladder_prints_table_recommendation_and_use(api, capsys, monkeypatch, width) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    assert main(["ladder", "t.yaml"]) == 0
    out = capsys.readouterr().out
    for text in ("majority", "linear", "0.830", "best of 3 rungs", "runs/pydocs-1/report.html"):
        assert text in out
    table = out.split("Use finetuned-encoder")[0]
    assert max(map(len, table.splitlines())) <= width


def test_plan_is_yaml(api, capsys) -> None:
    main(["ladder", "t.yaml", "--plan"])
    assert yaml.safe_load(capsys.readouterr().out) == api.plan()


def test_progress_and_notices_go_to_stderr_only(api, capsys) -> None:
    def work(on) -> None:
        on.notice("3 rows were cut.")
        on.progress("train", 1, 10)

    api.during = work
    main(["ladder", "t.yaml"])
    captured = capsys.readouterr()
    assert "3 rows were cut." in captured.err and "3 rows were cut." not in captured.out
    for switch in ("--quiet", "--json"):
        main(["ladder", "t.yaml", switch])
        assert capsys.readouterr().err == ""


def test_evaluate_writes_answers_whole(api, tmp_path: Path, capsys) -> None:
    target = tmp_path / "new" / "answers.jsonl"
    assert main(["evaluate", "runs/t-1", "rows.csv", "--output", str(target)]) == 0
    record = {"key": "a", "text": "café", "scores": None, "stopped": None}
    assert [json.loads(line) for line in target.read_text("utf-8").splitlines()] == [record]
    assert [path.name for path in target.parent.iterdir()] == ["answers.jsonl"]
    assert "accuracy 0.830, 95 % interval 0.800 to 0.860, on 600 rows" in capsys.readouterr().out


def test_check_shows_what_is_learned_without_colour(api, capsys) -> None:
    main(["check", "rows.csv", "--show", "1"])
    out = capsys.readouterr().out
    assert "train.csv:17: 7 tokens, 3 learned" in out
    assert "user↵\nWhere is my [card]?⇥<07>⟦card_arrival<|im_end|>⟧↵" in out
    assert "⟦learned⟧: answer (2), end of turn (1)" in out
    assert "masked: role (2), prompt (1), after the end (1)" in out


@pytest.mark.parametrize("width", [80, 160])
def test_check_prints_findings_and_fails_on_errors(api, capsys, monkeypatch, width) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    assert main(["check", "rows.csv"]) == 0
    out = capsys.readouterr().out
    assert "8,002 training, 1,000 validation and 1,001 test rows, 2 labels" in out
    assert "Nothing was found wrong" in out
    sources = tuple(f"test.csv:{n}" for n in range(9))
    api.findings = [Finding("warning", "balance", "2 labels have [few] rows " * 5, ("t.csv:1",))]
    assert main(["check", "rows.csv"]) == 0
    out = capsys.readouterr().out
    assert "[few]" in out and "t.csv:1" in out and "Nothing" not in out
    assert max(map(len, out.splitlines())) <= width
    api.findings.append(Finding("error", "leakage", "9 test rows are training rows too", sources))
    assert main(["check", "rows.csv"]) == 2
    out = capsys.readouterr().out
    assert "test.csv:0, 1, 2, 3, …" in out
    assert main(["check", "rows.csv", "--json"]) == 2


def test_each_file_is_named_once() -> None:
    assert (
        places(["a.csv:3", "a.csv:7", "b:c.csv:2", "a.csv:9"]) == "a.csv:3, 7, b:c.csv:2, a.csv:9"
    )


def test_check_colours_what_is_learned(monkeypatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    console = Console(force_terminal=True, color_system="standard", width=80)
    with console.capture() as captured:
        console.print(coloured(TOKENS))
    text = captured.get()
    assert "\x1b[2ma b\x1b[0m" in text  # dim
    assert "\x1b[1;32myes\x1b[0m" in text  # bold green
    assert "\x1b[1;4;32m!\x1b[0m" in text  # the next token underlined


def test_visible_loses_no_printable_character() -> None:
    assert visible("naïve 日本 [x]") == "naïve 日本 [x]"
    assert visible("\r\n\x00") == "␍↵\n<00>"


def test_the_schema_is_printed_without_other_arguments(capsys) -> None:
    assert main(["check", "--schema"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "A fitune task file"


def test_doctor_says_how_to_get_what_is_missing(api, capsys) -> None:
    main(["doctor"])
    out = capsys.readouterr().out
    assert "missing: pip install 'fitune[quant]'" in out
    assert "2 cores usable, bf16 in hardware" in out
    assert "20.0 GiB available of 24.0 GiB" in out
    assert "NVIDIA H100 80GB HBM3, 79.0 GiB free of 80.0 GiB, capability 9.0" in out
