"""Text files as sequences."""

from __future__ import annotations

from pathlib import Path

import pytest

from fitune.errors import ConfigError, DataError
from fitune.language_models.corpus import UNITS, read_texts

TEXT = "one\ntwo \n\n \nthree\r\n  four\n\n\n"


@pytest.mark.parametrize(
    ("unit", "wanted"),
    [
        ("lines", ["one", "two ", "three", "  four"]),
        ("sections", ["one\ntwo ", "three\n  four"]),
        ("documents", [TEXT.replace("\r", "")]),
    ],
)
def test_units(unit: str, wanted: list[str], tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(TEXT.encode())
    assert list(read_texts(tmp_path / "a.txt", unit)) == wanted


def test_a_folder_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("second")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "a.md").write_text("third\n")
    (tmp_path / "a.TXT").write_text("first\n")
    (tmp_path / "a.bin").write_bytes(b"\xff")
    assert list(read_texts(tmp_path)) == ["first", "second", "third"]


def test_lines_are_read_one_by_one(tmp_path: Path) -> None:
    """What comes later is not yet read, and so not yet found to be broken."""
    (tmp_path / "a.txt").write_bytes(b"good\n" * 100_000 + b"\xff\n")
    texts = read_texts(tmp_path / "a.txt")
    assert next(texts) == "good"
    with pytest.raises(DataError, match=r"not UTF-8: byte 0xff"):
        list(texts)


def test_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no file"):
        read_texts(tmp_path / "a.txt")
    with pytest.raises(DataError, match="no text files"):
        read_texts(tmp_path)
    with pytest.raises(ConfigError, match="no unit 'pages'"):
        read_texts(tmp_path, "pages")
    assert set(UNITS) == {"lines", "sections", "documents"}
