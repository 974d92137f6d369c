"""Plain text becomes documents, and documents of one split are never those of another."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fitune.config import Data
from fitune.data.documents import CUTS, sections
from fitune.data.load import load_rows, load_splits
from fitune.errors import ConfigError, DataError

PARAGRAPHS = [f"Paragraph {i} says that {'so ' * (i % 9)}it goes.\nTwice." for i in range(120)]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.txt"
    path.write_text("\n\n".join(PARAGRAPHS) + "\n")
    return path


def splits(path: Path, **fields: Any) -> Any:
    return load_splits(Data(train=str(path), **fields), "language-model")


def test_one_file_is_cut_into_sections_and_no_paragraph_is_in_two_splits(corpus: Path) -> None:
    found = splits(corpus)
    assert "sections of 1 text" in found.notes[0]
    parts = [
        {p for row in rows for p in row.text.split("\n\n")}
        for rows in (found.train, found.validation, found.test)
    ]
    assert all(parts) and sum(map(len, parts)) == len(PARAGRAPHS)
    assert set().union(*parts) == set(PARAGRAPHS)
    assert all(row.answer is None for row in found.test)


def test_every_source_is_where_the_section_begins(corpus: Path) -> None:
    lines = corpus.read_text().split("\n")
    rows = [row for part in ("train", "test") for row in getattr(splits(corpus), part)]
    for row in rows:
        _, _, line = row.source.partition(".txt:")
        assert lines[int(line or 1) - 1] == row.text.split("\n")[0]


@given(st.text(alphabet="ab \n\r", max_size=400))
def test_sections_and_lines_lose_nothing_but_white_space(text: str) -> None:
    for name in ("sections", "lines"):
        pieces = [piece for _, piece in CUTS[name](text)]
        assert "".join("".join(pieces).split()) == "".join(text.split())
        assert all(piece.strip() for piece in pieces)


def test_long_paragraphs_stay_whole() -> None:
    text = "\n\n".join(["a" * 9000, "b" * 10, "c" * 10, "d" * 3995])
    found = [(line, piece[0], len(piece)) for line, piece in sections(text)]
    assert found == [(1, "a", 9000), (3, "b", 22), (7, "d", 3995)]


def test_a_file_is_one_document_where_the_other_splits_are_given(
    corpus: Path, tmp_path: Path
) -> None:
    for name in ("a.md", "b.txt"):
        (tmp_path / name).write_text(f"# The text of {name}\n\nIs one.\n")
    found = splits(corpus, validation=str(tmp_path / "a.md"), test=str(tmp_path / "b.txt"))
    assert [len(found.train), len(found.validation), len(found.test)] == [1, 1, 1]
    assert found.test[0].text == "# The text of b.txt\n\nIs one.\n"


def test_a_folder_has_a_document_a_file(tmp_path: Path) -> None:
    for i in range(6):
        (tmp_path / f"{i}.txt").write_text(f"Document {i}.\n\nWith two paragraphs.")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    with gzip.open(tmp_path / "7.md.gz", "wt") as file:
        file.write("Document 7.")
    found = splits(tmp_path)
    assert len(found.train) + len(found.validation) + len(found.test) == 7
    assert "7 documents" in found.notes[0]


@pytest.mark.parametrize(
    ("name", "options"), [("a.jsonl", {}), ("a.csv", {}), ("a.jsonl", {"input": "body"})]
)
def test_a_record_is_a_document(tmp_path: Path, name: str, options: dict[str, str]) -> None:
    column = options.get("input", "text")
    texts = [f"record {i}" for i in range(9)]
    lines = [json.dumps({column: t, "n": 1}) for t in texts]
    if name.endswith("csv"):
        lines = ["n,text", *(f"1,{text}" for text in texts)]
    (tmp_path / name).write_text("\n".join(lines))
    rows = load_rows(str(tmp_path / name), Data(train="x", **options), "language-model")
    assert rows.texts == texts


def test_the_shape_can_be_said(corpus: Path) -> None:
    data = Data(train=str(corpus), shape="lines")
    assert len(load_rows(str(corpus), data, "language-model")) == 2 * len(PARAGRAPHS)
    data = Data(train=str(corpus), shape="document")
    assert load_rows(str(corpus), data, "language-model").texts == [corpus.read_text()]
    data = Data(train=str(corpus), format="txt", shape="document")
    renamed = corpus.rename(corpus.with_suffix(".log"))
    assert len(load_rows(str(renamed), data, "language-model")) == 1


@pytest.mark.parametrize(
    ("text", "name", "fields", "error", "sentence"),
    [
        ("", "a.txt", {}, DataError, "a.txt is empty"),
        (" \n\n ", "a.txt", {}, DataError, "a.txt is empty"),
        ("a\0b", "a.txt", {}, DataError, "a.txt:1 holds a NUL character"),
        ('{"n": 1}', "a.jsonl", {}, DataError, "no column has a usual name for the text"),
        ('{"text": 1}', "a.jsonl", {}, DataError, "'text' is 1 .* and not a text"),
        ('{"text": ""}', "a.jsonl", {}, DataError, "a.jsonl:1: the text in 'text' is empty"),
        ("a", "a.txt", {"shape": "alpaca"}, ConfigError, "kind language-model reads documents"),
        ("a", "a.txt", {"output": "b"}, ConfigError, "has no answers"),
        ("a", "a.txt", {"input": "b"}, DataError, "no such column"),
        ("a", "a.log", {}, DataError, "not known from its ending '.log'"),
        ("a", "a.txt", {}, DataError, "no validation rows|no training rows|no test rows"),
    ],
)
def test_what_is_no_text_is_one_sentence(
    text: str,
    name: str,
    fields: dict[str, Any],
    error: type[Exception],
    sentence: str,
    tmp_path: Path,
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(error, match=sentence):
        splits(tmp_path / name, **fields)


def test_documents_are_for_language_models(corpus: Path) -> None:
    with pytest.raises(ConfigError, match="shape lines is for kind language-model"):
        load_splits(Data(train=str(corpus), shape="lines"), "generate")
