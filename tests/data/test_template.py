"""Templates beyond the mask promise: choices of template, text for encoders, rows over a limit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fitune.data.limits import encode_rows
from fitune.data.rows import Row, Rows, Turn
from fitune.data.template import (
    DEFAULT_CHAT_TEMPLATE,
    ChatTemplate,
    Encoded,
    Reason,
    TextTemplate,
)
from fitune.errors import ConfigError, DataError
from fitune.models.load import load_tokenizer
from fitune.models.source import resolve_source


@pytest.fixture(scope="module")
def chat(tiny_decoder: Path) -> Any:
    return load_tokenizer(resolve_source(str(tiny_decoder)))


@pytest.fixture(scope="module")
def base(tiny_base_decoder: Path) -> Any:
    return load_tokenizer(resolve_source(str(tiny_base_decoder)))


@pytest.fixture(scope="module")
def pieces(tiny_encoder: Path) -> Any:
    return load_tokenizer(resolve_source(str(tiny_encoder)))


def test_a_token_is_learned_for_its_reason() -> None:
    of_answers = {Reason.ANSWER, Reason.END}
    of_documents = {Reason.DOCUMENT, Reason.DOCUMENT_END}
    assert {r for r in Reason if r.learned} == of_answers | of_documents


def test_the_instruction_opens_the_first_user_turn(chat: Any) -> None:
    template = ChatTemplate(chat, instruction="pick a colour")
    row = Row("and now", "blue", (Turn("system", "hello"), Turn("user", "the sky")))
    text = chat.decode(template.encode(row).tokens)
    assert text == (
        "<|system|>\nhello<|end|>\n<|user|>\npick a colour\n\nthe sky<|end|>\n"
        "<|user|>\nand now<|end|>\n<|assistant|>\nblue<|end|>"
    )


def test_reasons_tell_the_rows_words_from_the_templates(chat: Any) -> None:
    item = ChatTemplate(chat, instruction="pick a colour").encode(Row("user", "red"))
    shown = [
        (chat.decode([t for t, r in pairs]), reason)
        for reason, pairs in grouped(list(zip(item.tokens, item.reasons, strict=True)))
    ]
    assert shown == [
        ("<|user|>\n", Reason.ROLE),
        ("pick a colour\n\nuser", Reason.PROMPT),
        ("<|end|>\n<|assistant|>\n", Reason.ROLE),
        ("red", Reason.ANSWER),
        ("<|end|>", Reason.END),
    ]


def grouped(pairs: list[tuple[int, Reason]]) -> list[tuple[Reason, list[tuple[int, Reason]]]]:
    from itertools import groupby

    return [(reason, list(group)) for reason, group in groupby(pairs, key=lambda pair: pair[1])]


def test_a_tokenizer_without_a_template_gets_plain_words(base: Any) -> None:
    row = Row("the sky", "blue", (Turn("user", "hello"), Turn("assistant", "world")))
    expected = "User: hello\nAssistant: world</s>\nUser: the sky\nAssistant: blue</s>"
    for choice in ("auto", "default"):
        item = ChatTemplate(base, chat_template=choice).encode(row)
        assert base.decode(item.tokens) == expected
    assert ChatTemplate(base).jinja == DEFAULT_CHAT_TEMPLATE


def test_default_overrides_the_tokenizers_own(chat: Any) -> None:
    item = ChatTemplate(chat, chat_template="default").encode(Row("the sky", "blue"))
    assert chat.decode(item.tokens) == "User: the sky\nAssistant: blue</s>"


def test_a_template_of_the_users_own(chat: Any, tmp_path: Path) -> None:
    path = tmp_path / "own.jinja"
    path.write_text(
        "{% for m in messages %}{{ m.role[0] + '>' + m.content + eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}a>{% endif %}"
    )
    template = ChatTemplate(chat, chat_template=str(path))
    assert chat.decode(template.encode(Row("sky", "blue")).tokens) == "u>sky</s>a>blue</s>"


def test_one_of_several_templates_of_a_tokenizer_is_the_default(chat: Any) -> None:
    import copy

    several = copy.deepcopy(chat)
    several.chat_template = {"default": chat.chat_template, "tool_use": "{{ 'no' }}"}
    row = Row("sky", "blue")
    assert ChatTemplate(several).encode(row) == ChatTemplate(chat).encode(row)


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00", b""])
def test_a_template_file_that_cannot_be_used(
    chat: Any, tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "own.jinja"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"own\.jinja'") as caught:
        ChatTemplate(chat, chat_template=str(path))
    assert "\n" not in str(caught.value)


def test_a_tokenizer_without_an_end_of_text(chat: Any) -> None:
    import copy

    endless = copy.deepcopy(chat)
    endless.eos_token = None
    with pytest.raises(ConfigError, match="no end-of-text token"):
        ChatTemplate(endless)


def test_examples_are_turns_before_the_question(chat: Any) -> None:
    template = ChatTemplate(chat, instruction="pick")
    prompt = template.prompt(Row("sky"), [Row("sun", "red"), Row("sea", "green")])
    assert chat.decode(prompt.tokens) == (
        "<|user|>\npick\n\nsun<|end|>\n<|assistant|>\nred<|end|>\n"
        "<|user|>\nsea<|end|>\n<|assistant|>\ngreen<|end|>\n"
        "<|user|>\nsky<|end|>\n<|assistant|>\n"
    )
    as_history = Row(
        "sky",
        None,
        (
            Turn("user", "sun"),
            Turn("assistant", "red"),
            Turn("user", "sea"),
            Turn("assistant", "green"),
        ),
    )
    assert prompt.tokens == template.prompt(as_history).tokens


# Text for encoders


def test_an_encoder_sees_the_text_between_its_special_tokens(pieces: Any) -> None:
    row = Row("my card", "lost", (Turn("user", "hello"),))
    item = TextTemplate(pieces).encode(row)
    words = [pieces.convert_ids_to_tokens(t) for t in item.tokens]
    assert words == ["[CLS]", "hello", "my", "card", "[SEP]"]
    assert [r.value for r in item.reasons] == ["template", "text", "text", "text", "template"]
    assert not any(item.learned)


@given(
    st.lists(
        st.one_of(st.text(max_size=10), st.sampled_from(["[SEP]", "[CLS]", "[MASK]", "[PAD]"])),
        max_size=4,
    ).map(" ".join)
)
@settings(max_examples=80, deadline=None)
def test_text_cannot_write_special_tokens(text: str) -> None:
    tokenizer = PIECES[0]
    item = TextTemplate(tokenizer).encode(Row(text))
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    assert [t for t in item.tokens if t in special] == [
        tokenizer.cls_token_id,
        tokenizer.sep_token_id,
    ]
    assert item.reasons.count(Reason.ROLE) == 2


PIECES: list[Any] = []


@pytest.fixture(autouse=True, scope="module")
def _pieces(pieces: Any) -> None:
    PIECES[:] = [pieces]


# Rows over the limit


def rows_of(lengths: list[int]) -> Rows:
    return Rows(
        tuple(
            Row(" ".join(["card"] * n), "lost", source=f"data.csv:{i + 2}")
            for i, n in enumerate(lengths)
        )
    )


def limited(
    template: Any, rows: Rows, limit: int, too_long: str, **options: Any
) -> tuple[list[Encoded], list[int], list[str]]:
    return encode_rows(
        template.encode,
        rows,
        tokenizer=template.tokenizer,
        max_length=limit,
        too_long=too_long,
        what="training",
        **options,
    )


def test_rows_within_the_limit_are_untouched(pieces: Any) -> None:
    template = TextTemplate(pieces)
    rows = rows_of([1, 8, 3])
    for choice in ("refuse", "truncate", "drop"):
        items, kept, notes = limited(template, rows, 10, choice, drop_allowed=True)
        assert items == [template.encode(row) for row in rows]
        assert (kept, notes) == ([0, 1, 2], [])


def test_refusing_says_how_many_and_which(pieces: Any) -> None:
    with pytest.raises(DataError) as caught:
        limited(TextTemplate(pieces), rows_of([1, 9, 30, 8]), 10, "refuse")
    assert caught.value.problem == (
        "2 of 4 training rows are longer than 10 tokens (the longest, data.csv:4, has 32)"
    )
    assert "data.too_long" in caught.value.fix


def test_cutting_counts_what_it_cuts(pieces: Any) -> None:
    rows = rows_of([1, 9, 30, 8])
    items, kept, notes = limited(TextTemplate(pieces), rows, 10, "truncate")
    assert kept == [0, 1, 2, 3]
    assert [len(item) for item in items] == [3, 10, 10, 10]
    assert [item.cut for item in items] == [0, 1, 22, 0]
    assert all(item.tokens[-1] == pieces.sep_token_id for item in items)
    assert notes == [
        "2 of 4 training rows are longer than 10 tokens (the longest, data.csv:4, has 32); "
        "23 tokens of their ends were cut (data.too_long: truncate)."
    ]


def test_leaving_out_counts_too(pieces: Any) -> None:
    rows = rows_of([1, 9, 30, 8])
    items, kept, notes = limited(TextTemplate(pieces), rows, 10, "drop", drop_allowed=True)
    assert kept == [0, 3] and [len(item) for item in items] == [3, 10]
    assert "2 of 4 training rows" in notes[0] and "they were left out" in notes[0]
    # Rows that must all be answered are cut instead.
    items, kept, notes = limited(TextTemplate(pieces), rows, 10, "drop")
    assert kept == [0, 1, 2, 3] and max(map(len, items)) == 10
    assert "23 tokens of their ends were cut" in notes[0]


def test_dropping_every_row_is_refused(pieces: Any) -> None:
    with pytest.raises(DataError, match="so none is left"):
        limited(TextTemplate(pieces), rows_of([20, 30]), 10, "drop", drop_allowed=True)


@given(
    text=st.text(min_size=30, max_size=120),
    answer=st.text(min_size=1, max_size=8).filter(str.strip),
    limit=st.integers(60, 90),
)
@settings(max_examples=60, deadline=None)
def test_an_answer_is_never_cut(text: str, answer: str, limit: int) -> None:
    template = CHAT[0]
    row = Row(text, answer)
    whole = template.encode(row)
    (item,), _, notes = limited(template, Rows((row,)), limit, "truncate")
    assert len(item) <= limit
    assert item.cut == len(whole) - len(item)
    assert bool(notes) == (len(whole) > limit)
    tail = template.answer(answer)
    assert item.tokens[-len(tail) :] == tail and all(item.learned[-len(tail) :])
    # What is left is the beginning of the text, letter for letter.
    prompt = template.tokenizer.decode(item.tokens[: -len(tail)])
    left = prompt.removeprefix("<|user|>\n").removesuffix("<|end|>\n<|assistant|>\n")
    assert text.replace("\ufdd0", "").startswith(left)


CHAT: list[ChatTemplate] = []


@pytest.fixture(autouse=True, scope="module")
def _chat(chat: Any) -> None:
    CHAT[:] = [ChatTemplate(chat)]


def test_a_row_whose_template_alone_is_too_long(chat: Any) -> None:
    row = Row("why", "a long answer " * 9, source="data.csv:9")
    with pytest.raises(DataError, match=r"data\.csv:9 does not fit into 10 tokens") as caught:
        limited(ChatTemplate(chat), Rows((row,)), 10, "truncate")
    assert "answers" in caught.value.fix


def test_progress_is_told(pieces: Any) -> None:
    seen: list[tuple[str, int, int]] = []
    limited(
        TextTemplate(pieces),
        rows_of([1] * 450),
        10,
        "refuse",
        progress=lambda *told: seen.append(told),
    )
    assert seen[-1] == ("tokens of training rows", 450, 450)
    assert [done for _, done, _ in seen] == [0, 200, 400, 450]
