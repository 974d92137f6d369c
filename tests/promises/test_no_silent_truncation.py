"""Promise: no silent truncation. Rows over the limit are counted, named and handled as asked."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import fitune
from fitune.errors import DataError

LIMIT = 16
LONG = 30  # words, each one token for the tiny encoder, between [CLS] and [SEP]
WORDS = "card account money bank transfer lost stolen late fee charge".split()  # noqa: SIM905


def text(number: int, words: int) -> str:
    """A text of so many words; different numbers give different texts."""
    digits = [WORDS[int(digit)] for digit in f"{number:04d}"]
    return " ".join((digits + ["please"] * words)[:words])


def write(path: Path, start: int, short: int, long: int, words: int = LONG) -> str:
    """`short` rows of 6 words, then `long` rows of so many; labels alternate."""
    lines = ["text,label"] + [
        f"{text(start + i, 6 if i < short else words)},{'ab'[i % 2]}" for i in range(short + long)
    ]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


@pytest.fixture
def ladder(tmp_path: Path, task_file: Callable[..., Path]) -> Callable[..., Any]:
    """Climbs with 3 of 23 training, 1 of 9 validation and 2 of 10 test rows too long."""

    def climb(too_long: str, *approaches: dict[str, Any], words: int = LONG) -> Any:
        data = {
            "train": write(tmp_path / "train.csv", 0, 20, 3, words),
            "validation": write(tmp_path / "validation.csv", 1000, 8, 1, words),
            "test": write(tmp_path / "test.csv", 2000, 8, 2, words),
            "too_long": too_long,
        }
        told = Told()
        task = task_file(kind="classify", data=data, approaches=list(approaches))
        return fitune.ladder(task, on=told), told

    return climb


class Told:
    def __init__(self) -> None:
        self.notices: list[str] = []

    def progress(self, label: str, done: int, total: int) -> None: ...
    def rung(self, rung: Any) -> None: ...
    def notice(self, text: str) -> None:
        self.notices.append(text)


def encoder(model: Path) -> dict[str, Any]:
    return {
        "use": "finetuned", "name": "tuned", "model": str(model), "epochs": 1,
        "max_length": LIMIT,
    }  # fmt: skip


CUT = LONG + 2 - LIMIT


def test_truncate_counts_rows_and_tokens_of_every_split(ladder: Any, tiny_encoder: Path) -> None:
    result, told = ladder("truncate", encoder(tiny_encoder))
    (rung,) = result.rungs
    expected = [
        f"3 of 23 training rows are longer than 16 tokens (the longest, TRAIN:22, has 32); "
        f"{3 * CUT} tokens of their ends were cut (data.too_long: truncate).",
        f"1 of 9 validation rows are longer than 16 tokens (the longest, VALIDATION:10, has 32); "
        f"{CUT} tokens of their ends were cut (data.too_long: truncate).",
        f"2 of 10 answered rows are longer than 16 tokens (the longest, TEST:10, has 32); "
        f"{2 * CUT} tokens of their ends were cut (data.too_long: truncate).",
    ]
    folder = str(Path(fitune.Task.model_validate(task_of(result.run)).data.train).parent)
    said = [short(note, folder) for note in rung.notes]
    assert said == expected
    assert [n for n in told.notices if n.startswith("tuned: ")] == [
        f"tuned: {n}" for n in rung.notes
    ]
    assert rung.train_rows == 23
    page = (result.run / "report.html").read_text()
    assert "3 of 23 training rows" in page, "whoever reads the report later is told too"


def task_of(run: Path) -> Any:
    return json.loads((run / "task.json").read_text())


def short(note: str, folder: str) -> str:
    for name in ("train", "validation", "test"):
        note = note.replace(f"{folder}/{name}.csv", name.upper())
    return note


def test_drop_leaves_out_training_rows_only(ladder: Any, tiny_encoder: Path) -> None:
    result, _ = ladder("drop", encoder(tiny_encoder))
    (rung,) = result.rungs
    train, validation, test = rung.notes
    assert train.startswith("3 of 23 training rows") and "; they were left out" in train
    assert validation.startswith("1 of 9 validation rows") and f"; {CUT} tokens" in validation
    assert test.startswith("2 of 10 answered rows") and f"; {2 * CUT} tokens" in test
    assert rung.train_rows == 20, "what it learned from is what the table shows"
    answers = (result.run / "rungs/tuned/predictions.jsonl").read_text().splitlines()
    assert len(answers) == 10, "every test row is answered"


def test_refuse_is_the_default_and_counts(ladder: Any, tiny_encoder: Path) -> None:
    with pytest.raises(DataError, match=r"3 of 23 training rows are longer than 16 tokens") as e:
        ladder("refuse", encoder(tiny_encoder))
    assert "data.too_long" in e.value.fix
    assert fitune.config.Data(train="x").too_long == "refuse"  # type: ignore[attr-defined]


@pytest.mark.parametrize("use", ["prompt", "few-shot", "finetuned"])
def test_decoders_count_too(ladder: Any, tiny_decoder: Path, use: str) -> None:
    """Beside 120 words, the tokens of instruction, labels and examples do not matter."""
    given: dict[str, Any] = {"use": use, "model": str(tiny_decoder), "name": "tuned"}
    if use == "finetuned":
        given |= {"epochs": 0.3, "max_length": 32}
    elif use == "prompt":
        given |= {"max_length": 64}
    else:
        given |= {"examples": 8, "max_length": 110}
    result, _ = ladder("truncate", given, words=120)
    notes = [n for n in result.rungs[0].notes if "answered rows are longer" in n]
    assert len(notes) == 1 and notes[0].startswith("2 of 10 answered rows")
    shown = [n for n in result.rungs[0].notes if "examples" in n]
    assert len(shown) == (use == "few-shot"), result.rungs[0].notes
    if shown:
        options = json.loads((result.run / "rungs/tuned/options.json").read_text())
        count = len(options["examples_shown"])
        assert 0 < count < 8 and f"shows {count} of 8 examples" in shown[0]


def test_predict_under_refuse_is_an_error(
    tmp_path: Path, task_file: Any, tiny_encoder: Path
) -> None:
    data = {"train": write(tmp_path / "rows.csv", 0, 40, 0)}
    task = task_file(kind="classify", data=data, approaches=[encoder(tiny_encoder)])
    result = fitune.ladder(task)
    assert result.rungs[0].notes == ()
    model = fitune.load(result.run)
    assert len(model.predict([text(1, 6)])) == 1
    with pytest.raises(DataError, match=r"1 of 2 answered rows .* text 2, has 32"):
        model.predict([text(1, 6), text(2, LONG)])
    new = write(tmp_path / "new.csv", 3000, 3, 1)
    with pytest.raises(DataError, match=r"1 of 4 answered rows .*new\.csv:5, has 32"):
        fitune.evaluate(result.run, new)


def test_predict_under_truncate_warns(ladder: Any, tiny_encoder: Path, tmp_path: Path) -> None:
    result, _ = ladder("truncate", encoder(tiny_encoder))
    model = fitune.load(result.run)
    with pytest.warns(UserWarning, match=f"1 of 2 answered rows .*; {CUT} tokens"):
        assert len(model.predict([text(1, 6), text(2, LONG)])) == 2
    notes = fitune.evaluate(result.run, write(tmp_path / "new.csv", 3000, 3, 1)).notes
    assert len(notes) == 1 and notes[0].startswith("1 of 4 answered rows")
