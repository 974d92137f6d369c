"""Rows encoded together are what each is alone, errors among them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fitune.data import template as templates
from fitune.data import tokenizing
from fitune.data.encoded import Encoded
from fitune.data.limits import encode_rows
from fitune.data.rows import Row, Rows, Turn
from fitune.data.template import ChatTemplate, TextTemplate
from fitune.data.tokenizing import Asking, ask, ask_together
from fitune.errors import DataError
from fitune.models.load import load_tokenizer
from fitune.models.source import resolve_source

TEMPLATES: dict[str, Any] = {}
CALLS: list[int] = []


@pytest.fixture(autouse=True, scope="module")
def _templates(tiny_decoder: Path, tiny_base_decoder: Path, tiny_encoder: Path) -> None:
    chat, base, pieces = (
        load_tokenizer(resolve_source(str(folder)))
        for folder in (tiny_decoder, tiny_base_decoder, tiny_encoder)
    )
    TEMPLATES["chat"] = ChatTemplate(chat, instruction="answer with one")
    TEMPLATES["plain words"] = ChatTemplate(base)
    TEMPLATES["encoder"] = TextTemplate(pieces)


@pytest.fixture(autouse=True)
def _few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (tokenizing, templates):
        monkeypatch.setattr(module, "TOGETHER", 3)


WORDS = st.lists(
    st.one_of(
        st.text(max_size=6), st.sampled_from(["card", "</s>", "<|end|>", "\ufdd0", "é", "\n"])
    ),
    min_size=1,
    max_size=8,
).map(" ".join)
TURNS = st.lists(
    st.tuples(st.sampled_from(["system", "user", "assistant"]), WORDS).map(lambda t: Turn(*t)),
    max_size=3,
).map(tuple)
ROWS = st.lists(st.builds(Row, WORDS, WORDS, TURNS), max_size=8).map(tuple)


def outcome(items: Iterable[Encoded]) -> tuple[list[Encoded], str]:
    """What was encoded before the first error, and the error."""
    found: list[Encoded] = []
    try:
        for item in items:
            found.append(item)
    except DataError as error:
        return found, str(error)
    return found, ""


@pytest.mark.parametrize("kind", ["chat", "plain words", "encoder"])
@given(rows=ROWS)
@settings(max_examples=60, deadline=None)
def test_together_is_one_by_one(kind: str, rows: tuple[Row, ...]) -> None:
    template = TEMPLATES[kind]
    assert outcome(template.encode_all(rows)) == outcome(map(template.encode, rows))


@given(rows=ROWS, examples=st.lists(st.builds(Row, WORDS, WORDS), max_size=2))
@settings(max_examples=40, deadline=None)
def test_prompts_together_are_one_by_one(rows: tuple[Row, ...], examples: list[Row]) -> None:
    template = TEMPLATES["chat"]
    alone = (template.prompt(row, examples) for row in rows)
    assert outcome(template.prompt_all(rows, examples)) == outcome(alone)


@pytest.mark.parametrize("too_long", ["truncate", "drop"])
@given(rows=ROWS, limit=st.integers(40, 80))
@settings(max_examples=40, deadline=None)
def test_cutting_together_is_one_by_one(too_long: str, rows: tuple[Row, ...], limit: int) -> None:
    template = TEMPLATES["chat"]

    def limited(**how: Any) -> Any:
        try:
            return encode_rows(
                template.encode,
                Rows(rows),
                tokenizer=template.tokenizer,
                max_length=limit,
                too_long=too_long,
                what="training",
                drop_allowed=True,
                **how,
            )
        except DataError as error:
            return str(error)

    assert limited(together=template.encode_all) == limited()


def test_the_first_row_in_order_that_fails_is_told() -> None:
    rows = [Row("card", "yes"), Row("card", "yes", source="2"), Row("pin", " ", source="3")]
    rows += [Row("bank", None, source="4")]
    items, said = outcome(TEMPLATES["chat"].encode_all(rows))
    assert len(items) == 2 and said.startswith("3 has nothing to learn")


class Counting:
    """Letters are tokens."""

    def __call__(self, texts: list[str], **options: Any) -> Any:
        CALLS.append(len(texts))

        ids = [[ord(letter) for letter in text] for text in texts]
        return SimpleNamespace(input_ids=ids, encodings=None)


def asking(text: str, times: int) -> Asking[int]:
    total = 0
    for _ in range(times):
        tokens, _ = yield [text, "same"]
        assert tokens.offsets is None
        total += len(tokens.ids)
    return total


def test_what_many_ask_for_at_once_is_one_call() -> None:
    CALLS.clear()
    found = ask_together(Counting(), [asking("ab", 1), asking("c", 2), asking("", 0)])
    assert list(found) == [2, 2, 0]
    assert CALLS == [3, 2]  # the text that both ask for is tokenized once
    assert ask(Counting(), asking("abc", 2)) == 6


def test_long_texts_bring_no_advice(tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import tokenization_utils_base

    said: list[str] = []
    monkeypatch.setattr(tokenization_utils_base.logger, "warning", said.append)
    tokenizer = load_tokenizer(resolve_source(str(tiny_encoder)))
    tokenizer.model_max_length = 4

    def long() -> Asking[int]:
        (found,) = yield ["card " * 9]
        return len(found.ids)

    assert ask(tokenizer, long()) == 9 and not said
    rows, template = Rows((Row("card " * 9),)), TextTemplate(tokenizer)
    encode_rows(
        template.encode,
        rows,
        tokenizer=tokenizer,
        max_length=6,
        too_long="truncate",
        what="training",
        progress=None,
    )
    assert not said
    tokenizer("card " * 9)
    assert len(said) == 1  # what it would have been
