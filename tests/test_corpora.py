"""A corpus in three parts."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fitune.corpora import read_corpus
from fitune.errors import ConfigError, DataError


def write(path: Path, texts: list[str], between: str = "\n") -> Path:
    path.write_text(between.join(texts) + "\n", encoding="utf-8")
    return path


def test_parts_follow_each_other_and_nothing_is_lost(tmp_path: Path) -> None:
    texts = [f"line {i}" for i in range(100)]
    corpus = read_corpus(write(tmp_path / "a.txt", texts), valid=0.2)
    assert [len(part) for part in (corpus.train, corpus.validation, corpus.test)] == [60, 20, 20]
    assert [*corpus.train, *corpus.validation, *corpus.test] == texts
    assert (corpus.unit, corpus.separator) == ("lines", "\n")


@given(count=st.integers(10, 60), share=st.floats(0.001, 0.4))
def test_no_part_is_empty(tmp_path_factory, count: int, share: float) -> None:
    path = write(tmp_path_factory.mktemp("corpus") / "a.txt", [f"t{i}" for i in range(count)])
    corpus = read_corpus(path, valid=share)
    parts = corpus.train, corpus.validation, corpus.test
    assert all(parts) and sum(map(len, parts)) == count


def test_files_stand_in_for_parts(tmp_path: Path) -> None:
    main = write(tmp_path / "a.txt", [f"a{i}" for i in range(20)])
    valid = write(tmp_path / "b.txt", ["v1", "v2"])
    test = write(tmp_path / "c.txt", ["t1"])
    corpus = read_corpus(main, valid=str(valid), test=test)
    assert len(corpus.train) == 20
    assert (corpus.validation, corpus.test) == (("v1", "v2"), ("t1",))
    corpus = read_corpus(main, valid=str(valid))
    assert [len(corpus.train), *corpus.validation, *corpus.test] == [18, "v1", "v2", "a18", "a19"]
    corpus = read_corpus(main, test=test)
    assert len(corpus.train) == 18 and corpus.validation == ("a18", "a19")


def test_sections_are_read_where_there_are_some(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", [f"one {i}\ntwo" for i in range(30)], between="\n\n")
    corpus = read_corpus(path)
    assert corpus.unit == "sections" and corpus.train[0] == "one 0\ntwo"
    assert read_corpus(path, unit="lines").train[:2] == ("one 0", "two")


def test_a_folder_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt"):
        write(tmp_path / name, [f"{name} {i}" for i in range(10)])
    assert read_corpus(tmp_path).train[0] == "a.txt 0"


@pytest.mark.parametrize("valid", ["0", "0.5", "-1", "nan", 0])
def test_a_share_that_leaves_nothing_is_refused(tmp_path: Path, valid) -> None:
    path = write(tmp_path / "a.txt", ["x"] * 20)
    with pytest.raises(ConfigError, match="a share of the corpus"):
        read_corpus(path, valid=valid)


def test_what_is_no_corpus_is_told(tmp_path: Path) -> None:
    empty = write(tmp_path / "empty.txt", ["  ", ""])
    with pytest.raises(DataError, match="holds no text"):
        read_corpus(empty)
    with pytest.raises(DataError, match="9 lines, and 10 are needed"):
        read_corpus(write(tmp_path / "few.txt", ["x"] * 9))
    with pytest.raises(DataError, match="there is no file"):
        read_corpus(tmp_path / "none.txt")
    with pytest.raises(DataError, match="there is no file"):
        read_corpus(write(tmp_path / "a.txt", ["x"] * 20), valid="none.txt")
    with pytest.raises(ConfigError, match="no unit 'words'"):
        read_corpus(tmp_path / "a.txt", unit="words")
