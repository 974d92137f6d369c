"""The table at the widths people have."""

from __future__ import annotations

import io

import pytest

from fitune.evaluation.significance import Comparison, Interval
from fitune.ladder.rung import Rung
from fitune.ladder.table import table


def rung(name: str, comparison: Comparison | None = None, train_rows: int = 2000) -> Rung:
    return Rung(
        name=name, use="finetuned", model=None, method=None, metric="accuracy", value=0.888,
        interval=Interval(0.865, 0.909), metrics={}, against="x" if comparison else None,
        comparison=comparison, train_rows=train_rows, train_seconds=98.2, seconds_per_1000=2.9,
        peak_memory_bytes=1_310_000_000, parameters=22_723_226, trainable_parameters=22_723_226,
    )  # fmt: skip


RUNGS = [
    rung("linear"),
    rung("finetuned-smollm2-135m", Comparison(0.0581, 0.03, 0.09, 0.0001, "")),
    rung("prompt-smollm2-135m", Comparison(-0.0081, -0.03, 0.01, 0.53, ""), train_rows=0),
]
FIGURES = [
    "0.888", "0.865–0.909", "+0.058", "p < 0.001", "−0.008", "p = 0.53", "1 min 38 s", "2.9 s",
    "1.22 GiB", "22.7 M", "2,000 rows", "no rows",
]  # fmt: skip


def shown(width: int, rungs: list[Rung] = RUNGS, choice: str | None = None) -> str:
    from rich.console import Console

    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(table(rungs, width=width, choice=choice))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert all(len(line) <= width for line in text.splitlines())
    return text


@pytest.mark.parametrize("width", [80, 100, 135, 160, 240])
def test_nothing_is_cut_off(width: int) -> None:
    text = shown(width)
    for figure in [*FIGURES, *[r.name for r in RUNGS]]:
        assert figure in text
    assert "…" not in text


def test_one_line_a_rung_where_there_is_room() -> None:
    assert len(shown(160).splitlines()) == 2 + len(RUNGS)
    assert len(shown(80).splitlines()) > 2 + 2 * len(RUNGS)


def test_narrow_terminals_keep_the_metric_whole() -> None:
    text = shown(60)
    assert "0.865–0.909" in text and "p < 0.001" in text and "1 min 38 s" in text
    assert "GiB" not in text and "smollm2-135m" in text


def test_long_names_are_whole_and_unchanged_by_markup() -> None:
    long = "n" * 64
    assert shown(80, [rung(long)]).count("n" * 20) >= 3
    assert "[bold]x" in shown(80, [rung("[bold]x")])


def test_the_choice_is_marked() -> None:
    lines = shown(160, choice="prompt-smollm2-135m").splitlines()
    assert [line.startswith("▸") for line in lines[2:]] == [False, False, True]
    assert "▸" not in shown(160)


def test_an_empty_ladder_has_an_empty_table() -> None:
    assert "rung" in shown(80, [])
