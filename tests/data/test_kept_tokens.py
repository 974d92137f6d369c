"""Kept tokens are those that would be made, or are made again."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fitune.data import kept_tokens
from fitune.data.encoded import Encoded
from fitune.data.kept_tokens import kept
from fitune.data.rows import Row, Rows, Turn
from fitune.data.template import ChatTemplate, TextTemplate
from fitune.models.load import load_tokenizer
from fitune.models.source import resolve_source


@pytest.fixture(autouse=True)
def _keep_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_tokens, "LEAST", 1)


@pytest.fixture(scope="module")
def chat(tiny_decoder: Path) -> Any:
    return load_tokenizer(resolve_source(str(tiny_decoder)))


ROWS = Rows(tuple(Row("what is my card " * (i + 1), f"number {i}") for i in range(20)))


class Maker:
    """A template that counts the rows it encodes."""

    def __init__(self, template: Any) -> None:
        self.template, self.made = template, 0

    def encode_all(self, rows: Sequence[Row]) -> Iterator[Encoded]:
        for item in self.template.encode_all(rows):
            self.made += 1
            yield item

    def kept(self, folder: Path, rows: Sequence[Row] = ROWS) -> list[Encoded]:
        return list(kept(folder, self.template.identity, rows, self.encode_all))


@pytest.fixture
def maker(chat: Any) -> Maker:
    return Maker(ChatTemplate(chat, instruction="answer"))


def test_a_second_start_makes_nothing(tmp_path: Path, maker: Maker) -> None:
    first = maker.kept(tmp_path / "new" / "tokens")
    assert maker.made == 20 and first == list(maker.template.encode_all(ROWS))
    assert maker.kept(tmp_path / "new" / "tokens") == first
    assert maker.made == 20
    assert not [p for p in (tmp_path / "new" / "tokens").iterdir() if p.suffix != ".npz"]


def test_what_decides_tokens_is_in_the_name(tmp_path: Path, chat: Any) -> None:
    other = copy.deepcopy(chat)
    other.add_tokens(["card"])
    templates = [
        ChatTemplate(chat),
        ChatTemplate(chat, instruction="answer"),
        ChatTemplate(chat, chat_template="default"),
        ChatTemplate(other),
        TextTemplate(chat),
    ]
    rows = [
        ROWS,
        ROWS[:19],
        Rows(ROWS.rows[::-1]),
        Rows((*ROWS.rows[:-1], Row(ROWS[-1].text, "another"))),
        Rows((*ROWS.rows[:-1], Row(ROWS[-1].text, ROWS[-1].answer, (Turn("system", "hello"),)))),
    ]
    for template in templates:
        for some in rows:
            maker = Maker(template)
            assert maker.kept(tmp_path, some) == list(template.encode_all(some))
            assert maker.made == len(some)
    assert len(list(tmp_path.iterdir())) == len(templates) * len(rows)


def test_changed_code_finds_nothing(chat: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before = ChatTemplate(chat).identity
    monkeypatch.setattr(kept_tokens, "_code", lambda: "changed")
    assert ChatTemplate(chat).identity != before


def rewritten(file: Path, **changes: np.ndarray) -> None:
    with np.load(file) as arrays:
        content = {name: arrays[name] for name in arrays.files}
    np.savez(file, **(content | changes))


def cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def one_bit_flipped(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


DAMAGE = {
    "empty": lambda file: file.write_bytes(b""),
    "text": lambda file: file.write_text("hello"),
    "cut short": cut_short,
    "one bit": one_bit_flipped,
    "another's name": lambda file: rewritten(file, name=np.array("other")),
    "an object": lambda file: rewritten(file, name=np.array([{}], dtype=object)),
    "one array": lambda file: np.save(file.open("wb"), np.zeros(3)),
    "fewer rows": lambda file: rewritten(file, lengths=np.array([3, 4])),
    "other lengths": lambda file: rewritten(file, lengths=np.full(20, 3)),
    "no such reason": lambda file: rewritten(file, reasons=np.full(9, 99, np.uint8)),
    "a folder": lambda file: (file.unlink(), file.mkdir()),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_or_foreign_file_is_made_anew(
    tmp_path: Path, maker: Maker, damage: str, recwarn: pytest.WarningsRecorder
) -> None:
    first = maker.kept(tmp_path)
    (file,) = tmp_path.iterdir()
    DAMAGE[damage](file)
    assert maker.kept(tmp_path) == first and maker.made == 40
    if damage != "a folder":
        assert maker.kept(tmp_path) == first and maker.made == 40


def test_a_folder_that_cannot_be_written_costs_nothing_but_time(
    tmp_path: Path, maker: Maker
) -> None:
    (tmp_path / "file").write_text("")
    first = maker.kept(tmp_path / "file" / "tokens")
    assert first == list(maker.template.encode_all(ROWS))


def test_what_was_used_longest_ago_makes_room(
    tmp_path: Path, maker: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    for some in (ROWS, ROWS[:19], ROWS[:18]):
        maker.kept(tmp_path, some)
    files = {path: path.stat().st_size for path in tmp_path.iterdir()}
    for age, path in enumerate(sorted(files)):
        os.utime(path, (1e9 - age, 1e9 - age))
    (partial := tmp_path / ".x.partial").write_text("left by a process that was killed")
    os.utime(partial, (1e9, 1e9))
    monkeypatch.setattr(kept_tokens, "ROOM", sum(files.values()) + 1)
    monkeypatch.setattr(kept_tokens, "BYTES", 0)
    maker.made = 0
    maker.kept(tmp_path, ROWS[:17])
    left = set(tmp_path.iterdir())
    assert max(sorted(files)) not in left and min(sorted(files)) in left
    assert partial not in left and len(left) == 3
    assert sum(path.stat().st_size for path in left) <= kept_tokens.ROOM


def test_little_is_not_kept_and_neither_is_very_much(
    tmp_path: Path, maker: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_tokens, "LEAST", 100_000)
    maker.kept(tmp_path)
    monkeypatch.setattr(kept_tokens, "LEAST", 1)
    monkeypatch.setattr(kept_tokens, "ROOM", 100)
    maker.kept(tmp_path)
    assert not tmp_path.exists() or not list(tmp_path.iterdir())


def test_a_template_that_asks_for_the_time_is_not_kept(tmp_path: Path, chat: Any) -> None:
    path = tmp_path / "own.jinja"
    path.write_text("{{ strftime_now('%H:%M') }}" + chat.chat_template)
    template = ChatTemplate(chat, chat_template=str(path))
    assert template.identity is None
    Maker(template).kept(tmp_path / "tokens")
    assert not (tmp_path / "tokens").exists()


def test_a_slow_tokenizer_is_not_kept(chat: Any) -> None:
    class Slow:
        is_fast = False

    assert kept_tokens.identity(Slow()) is None
