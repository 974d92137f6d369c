"""From the `data` section of a task file to splits."""

import csv
import json
from collections import Counter
from pathlib import Path

import pytest

from fitune.config import Data, RowCaps
from fitune.data.load import load_rows, load_splits, read_rows
from fitune.errors import ConfigError, DataError

BANKING = Path(__file__).parents[2].parent / "shared" / "data" / "banking77"


@pytest.fixture
def file(tmp_path) -> str:
    path = tmp_path / "rows.csv"
    lines = [f"text {label} {i},{label},{i}" for label in ("pay", "card") for i in range(30)]
    path.write_text("text,category,note\n" + "\n".join(lines) + "\n")
    return str(path)


def test_one_file_is_read_and_split_with_notes(file):
    splits = load_splits(Data(train=file), "classify")
    assert [len(splits.train), len(splits.validation), len(splits.test)] == [43, 5, 12]
    assert Counter(splits.test.answers) == {"pay": 6, "card": 6}
    assert splits.notes == (
        f"data.train: {file} read as columns: text from column 'text', "
        "answer from column 'category'",
    )
    assert splits.train[0].source.startswith(f"{file}:")


@pytest.mark.parametrize(
    "change",
    [
        {"split_seed": 1},
        {"validation_fraction": 0.3},
        {"test_fraction": 0.4},
        {"max_rows": RowCaps(train=20)},
        {"max_rows": RowCaps(validation=2)},
        {"max_rows": RowCaps(test=4)},
        {"input": "note"},
        {"output": "note"},
    ],
)
def test_every_option_changes_the_splits(file, change):
    data = {"train": file, "output": "category"}
    base = load_splits(Data(**data), "generate")
    assert load_splits(Data(**{**data, **change}), "generate").content_hash != base.content_hash


def test_given_files_are_used_as_they_are(file, tmp_path):
    held = tmp_path / "held.jsonl"
    records = [{"text": "text pay 0", "category": "pay"}, {"text": "new", "category": "card"}]
    held.write_text("\n".join(map(json.dumps, records)))
    splits = load_splits(Data(train=file, test=str(held)), "classify")
    assert splits.test.texts == ["text pay 0", "new"]
    assert "text pay 0" not in splits.train.texts + splits.validation.texts
    assert any("left out because the same text is in test" in note for note in splits.notes)
    assert any(note.startswith("data.test: ") for note in splits.notes)


def test_rows_to_evaluate_may_lack_answers(tmp_path):
    path = tmp_path / "new.csv"
    path.write_text("text\nhello\n")
    data = Data(train="unused.csv")
    assert load_rows(str(path), data, "classify", answers=False)[0].answer is None
    with pytest.raises(DataError, match=r"usual name for the label"):
        load_rows(str(path), data, "classify")


def test_rows_are_read_with_the_options_of_the_task(tmp_path):
    path = tmp_path / "new.data"
    path.write_bytes("a;b\nné;x\n".encode("latin-1").replace(b";", b"\t"))
    data = Data(train="x", format="tsv", encoding="latin-1", input="a", output="b")
    rows, notes = read_rows(str(path), data, "classify")
    assert (rows[0].text, rows[0].answer) == ("né", "x") and "'a'" in notes[0]


def test_sample(monkeypatch):
    splits = load_splits(Data(train="sample:pydocs"), "classify")
    assert "sample:pydocs has" in splits.notes[0] and "labels" in splits.notes[0]
    assert set(splits.test.labels) <= set(splits.train.labels)
    with pytest.raises(ConfigError, match="did you mean sample:pydocs"):
        load_splits(Data(train="sample:pydoc"), "classify")
    with pytest.raises(ConfigError, match=r"data.input .* sample:pydocs"):
        load_splits(Data(train="sample:pydocs", input="text"), "classify")


def test_hub_is_never_asked_without_permission():
    with pytest.raises(ConfigError, match="download: true"):
        load_splits(Data(train="hub:org/name"), "classify")


@pytest.mark.skipif(not BANKING.is_dir(), reason="banking77 is not beside the repository")
def test_banking77():
    train, test = BANKING / "train.csv", BANKING / "test.csv"
    rows = load_rows(str(train), Data(train="x"), "classify")
    assert len(rows) == 10_003 and len(rows.labels) == 77
    with train.open(newline="", encoding="utf-8") as file:
        truth = list(csv.DictReader(file))
    assert rows.texts == [row["text"] for row in truth]
    assert rows.answers == [row["category"] for row in truth]

    splits = load_splits(Data(train=str(train), test=str(test)), "classify")
    assert len(splits.test) == 3_080 and len(splits.validation) == 500
    assert len(splits.train) == 9_503 and len(splits.train.labels) == 77
    size, held = Counter(rows.answers), Counter(splits.validation.answers)
    assert all(abs(held[label] - 500 / 10_003 * count) < 1 for label, count in size.items())
    assert not {row.key for row in splits.train} & {row.key for row in splits.validation}
