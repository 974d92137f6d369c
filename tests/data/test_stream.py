"""Documents in rows: each token learned once, ends between documents, nothing lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import make_tokenizer
from fitune.data.batches import token_batch
from fitune.data.rows import Row, Rows
from fitune.data.stream import CausalStream, MaskedStream, refuse_small
from fitune.data.template import Encoded, Reason
from fitune.errors import ConfigError, DataError, ModelError
from fitune.models.load import load_tokenizer
from fitune.models.source import resolve_source

TOKENIZER = make_tokenizer(chat=False)
END = TOKENIZER.eos_token_id
TEXTS = st.lists(st.text(alphabet="my card pin", min_size=1, max_size=40), min_size=1, max_size=6)


def documents(texts: list[str]) -> Rows:
    return Rows(tuple(Row(text) for text in texts))


def ids(text: str) -> list[int]:
    return TOKENIZER(text, add_special_tokens=False).input_ids


def targets(items: list[Encoded]) -> list[int]:
    """What the batch of these rows learns, in order."""
    return token_batch(items, range(len(items)), 0).targets.tolist()


@given(TEXTS, st.integers(2, 17))
@settings(deadline=None, max_examples=40)
def test_every_token_and_every_end_is_learned_exactly_once(texts: list[str], length: int) -> None:
    items = CausalStream(TOKENIZER).rows(documents(texts), length)
    expected = [token for text in texts for token in [*ids(text), END]]
    assert targets(items) == expected
    assert all(len(item) == length for item in items[:-1]) and len(items[-1]) > 1
    # Each target stands after the token that truly comes before it.
    first = [END, *expected]
    batch = token_batch(items, range(len(items)), 0)
    seen = batch.input_ids.flatten()[batch.positions].tolist()
    assert seen == first[:-1]


@given(TEXTS, st.integers(2, 17))
@settings(deadline=None, max_examples=40)
def test_a_document_alone_is_judged_by_its_own_tokens(texts: list[str], length: int) -> None:
    stream = CausalStream(TOKENIZER)
    for text in texts:
        assert targets(stream.pieces(text, length)) == ids(text)


def test_a_beginning_of_text_opens_every_document_and_is_not_learned() -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer = make_tokenizer(chat=False)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)]
    )
    assert tokenizer("a").input_ids[0] == tokenizer.bos_token_id
    (item,) = CausalStream(tokenizer).rows(documents(["my", "pin"]), 99)
    assert tokenizer.decode(item.tokens) == "<s>my</s><s>pin</s>"
    learned = [t for t, is_learned in zip(item.tokens, item.learned, strict=True) if is_learned]
    assert tokenizer.decode(learned) == "my</s>pin</s>"


def test_text_that_spells_a_special_token_is_text() -> None:
    (item,) = CausalStream(TOKENIZER).rows(documents(["a</s>b"]), 99)
    assert item.tokens.count(END) == 2  # before the document and after it
    assert item.reasons[0] is Reason.BOS and item.reasons[-1] is Reason.DOCUMENT_END


@pytest.fixture
def bert(tiny_encoder: Path) -> Any:
    return load_tokenizer(resolve_source(str(tiny_encoder)))


def test_an_encoders_rows_have_its_own_frame(bert: Any) -> None:
    items = MaskedStream(bert).rows(documents(["my card", "new pin", "bank " * 20]), 10)
    assert all(item.tokens[0] == bert.cls_token_id for item in items)
    assert all(item.tokens[-1] == bert.sep_token_id for item in items)
    assert [len(item) for item in items[:-1]] == [10] * (len(items) - 1)
    assert bert.decode(items[0].tokens).startswith("[CLS] my card [SEP] new pin [SEP] bank")
    text = [
        token
        for item in items
        for token, reason in zip(item.tokens, item.reasons, strict=True)
        if reason is Reason.TEXT
    ]
    assert bert.decode(text) == "my card new pin" + " bank" * 20
    assert not any(any(item.learned) for item in items)


def test_too_little_text_is_one_sentence() -> None:
    rows = documents(["my", "pin"])
    items = CausalStream(TOKENIZER).rows(rows, 64)
    with pytest.raises(DataError, match="the 2 training documents have 7 tokens together, fewer"):
        refuse_small(items, rows, 64)
    refuse_small(CausalStream(TOKENIZER).rows(rows, 7), rows, 7)


def test_what_cannot_stream_says_so(bert: Any) -> None:
    with pytest.raises(ModelError, match="no mask token"):
        MaskedStream(TOKENIZER)
    with pytest.raises(ConfigError, match="no end-of-text token"):
        CausalStream(bert)
    with pytest.raises(ConfigError, match="max_length is 1, and a row of text takes 2"):
        CausalStream(TOKENIZER).rows(documents(["my"]), 1)
    with pytest.raises(ConfigError, match="max_length is 2, and a row of text takes 3"):
        MaskedStream(bert).rows(documents(["my"]), 2)
