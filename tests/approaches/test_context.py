"""Passages in a row: as many as fit, whole, and never over a limit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fitune.approaches.base import Shown
from fitune.approaches.context import NOTHING, InContext, Room, in_context
from fitune.data.rows import Row, Turn
from fitune.data.template import ChatTemplate
from fitune.models.load import load_tokenizer
from fitune.models.source import resolve_source


@pytest.fixture(scope="module")
def template(tiny_decoder: Path) -> ChatTemplate:
    return ChatTemplate(load_tokenizer(resolve_source(str(tiny_decoder))), instruction="Answer.")


def room(template: ChatTemplate, context: int, limit: int) -> Room:
    return Room(template.tokenizer, lambda row: len(template.prompt(row)), context, limit)


def shown(*texts: str) -> list[Shown]:
    return [Shown(f"doc › {i}", text, 1.0 / (1 + i)) for i, text in enumerate(texts)]


def test_the_text_is_what_it_says(template: ChatTemplate) -> None:
    row = Row("why", "a", (Turn("user", "hello"), Turn("assistant", "world")), "row 1", "b")
    got = in_context(row, shown("red", "blue"), room(template, 100, 200))
    assert got.row.text == "Passages:\n[1] red\n\n[2] blue\n\nQuestion: why"
    assert (got.row.answer, got.row.history, got.row.source) == (row.answer, row.history, "row 1")
    assert got.row.rejected == "b"
    assert got == InContext(got.row, tuple(shown("red", "blue")), cut=False, crowded=False)
    nothing = in_context(row, [], room(template, 100, 200))
    assert nothing == InContext(nothing.row, (), cut=False, crowded=False)
    assert nothing.row.text == f"{NOTHING}\n\nQuestion: why"


def count(template: ChatTemplate, text: str) -> int:
    return len(template.tokenizer(text, add_special_tokens=False).input_ids)


def block(item: InContext) -> str:
    """The passages as they stand in the row."""
    head, _, _ = item.row.text.removeprefix("Passages:\n").rpartition("\n\nQuestion: ")
    return head


TEXTS = st.lists(
    st.sampled_from(["my card.", "The bank", "transfer", "zebra?", "é", "東京。", "[7]", "</s>"]),
    min_size=1,
    max_size=25,
).map(" ".join)


@settings(deadline=None, max_examples=60)
@given(
    question=TEXTS,
    texts=st.lists(TEXTS, max_size=5, unique=True),
    context=st.integers(1, 120),
    limit=st.integers(1, 250),
)
def test_no_limit_is_passed(
    template: ChatTemplate, question: str, texts: list[str], context: int, limit: int
) -> None:
    found = shown(*texts)
    here = room(template, context, limit)
    item = in_context(Row(question), found, here)
    kept = len(item.shown)
    assert item.row.text.endswith(f"Question: {question}")  # never cut
    assert item.crowded == (kept < len(found))
    if not item.shown:
        assert item.row.text.startswith(NOTHING)
        return
    assert count(template, block(item)) <= context
    assert len(template.prompt(item.row)) <= limit
    if item.cut:
        assert kept == 1 and found[0].text.startswith(item.shown[0].text)
        assert here.over(Row(question), [found[0].text]) > 0  # whole, it does not fit
    else:
        assert item.shown == tuple(found[:kept])
        if kept < len(found):  # and not one more
            assert here.over(Row(question), [p.text for p in found[: kept + 1]]) > 0


def test_only_the_first_is_cut_at_the_end_of_a_sentence(template: ChatTemplate) -> None:
    first = "My card is red. My pin is blue. The bank is green and it is slow."
    whole = count(template, f"[1] {first}")
    item = in_context(Row("why"), shown(first, "a"), room(template, whole - 1, 250))
    assert [p.text for p in item.shown] == ["My card is red. My pin is blue."]
    assert item.cut and item.crowded and item.shown[0].place == "doc › 0"
    two = count(template, f"[1] {first}\n\n[2] {first}")
    item = in_context(Row("why"), shown(first, first + "."), room(template, two - 1, 250))
    assert [p.text for p in item.shown] == [first] and not item.cut
    words = in_context(Row("why"), shown("card " * 50), room(template, 20, 250)).shown[0].text
    assert set(words.split()) == {"card"} and words == words.strip()


def test_a_slow_tokenizer_is_cut_by_words(template: ChatTemplate) -> None:
    class Slow:
        is_fast = False

        def __call__(self, text: str, **_: Any) -> Any:
            return type("Ids", (), {"input_ids": list(text.split())})

    here = Room(Slow(), lambda row: len(row.text.split()), 4, 100)
    item = in_context(Row("why"), shown("one two three four five"), here)
    assert [p.text for p in item.shown] == ["one two three"]  # with its number, four
