"""Which models read rows laid end to end, and that they do so only inside the block."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, T5Config, T5ForConditionalGeneration

from fitune.config import Finetuned
from fitune.data.batches import micro_batches, token_batch
from fitune.data.template import Encoded, Reason
from fitune.training import packing
from fitune.training.kernels.layout import Layout
from fitune.training.methods import METHODS
from fitune.training.packing import can_pack, can_share, rows_apart

SIZES: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}


def llama() -> Any:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SIZES))


def item(length: int) -> Encoded:
    return Encoded(tuple(range(3, 3 + length)), (Reason.ANSWER,) * length)


def test_the_attention_is_given_back() -> None:
    model = llama()
    batch = token_batch([item(3), item(5)], (0, 1), 0, packed=True)
    before = model.config._attn_implementation
    with pytest.raises(ZeroDivisionError), rows_apart(model, batch):
        assert model.config._attn_implementation != before
        raise ZeroDivisionError
    assert model.config._attn_implementation == before


def test_padded_rows_change_nothing() -> None:
    model = llama()
    before = model.config._attn_implementation
    with rows_apart(model, token_batch([item(3), item(5)], (0, 1), 0)):
        assert model.config._attn_implementation == before


def test_a_model_whose_rows_read_each_other_is_not_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert can_pack(llama())

    def together(lengths: tuple[int, ...], device: torch.device, shared: int = 0) -> Layout:
        return Layout((shared + sum(lengths),), device)

    monkeypatch.setattr(packing, "Layout", together)
    assert not can_pack(llama()) and not can_share(llama())


def test_what_cannot_be_packed() -> None:
    assert not can_pack(llama(), device="cuda")
    prompted = METHODS["prompt-tuning"](llama(), Finetuned(method="prompt-tuning"))
    assert not can_pack(prompted)
    assert not can_pack(T5ForConditionalGeneration(T5Config(vocab_size=64, d_model=32, d_ff=64)))


def test_positions_start_again_in_each_row() -> None:
    batch = token_batch([item(1), item(3), item(2)], (0, 1, 2), 0, packed=True)
    assert batch.position_ids.tolist() == [[0, 0, 1, 2, 0, 1]]
    assert batch.input_ids.tolist() == [[3, 3, 4, 5, 3, 4]]
    assert batch.positions is not None
    # Nothing comes before a row's first token, so the second is the first that is learned.
    assert batch.positions.tolist() == [1, 2, 4]
    assert batch.targets.tolist() == [4, 5, 4]
    assert batch.tokens == 6 and len(batch.rows) == 3


def row(tokens: str, *, learned: int) -> Encoded:
    """A letter a token; the last `learned` of them are an answer."""
    reasons = (Reason.PROMPT,) * (len(tokens) - learned) + (Reason.ANSWER,) * learned
    return Encoded(tuple(map(ord, tokens)), reasons)


def test_what_rows_begin_with_stands_before_them_once() -> None:
    rows = [row("do this: ab=c", learned=1), row("do this: d=ef", learned=2)]
    batch = token_batch(rows, (0, 1), 0, packed=True, shared=True)
    assert "".join(map(chr, batch.input_ids[0].tolist())) == "do this: ab=cd=ef"
    assert (batch.shared, batch.packed, batch.tokens) == (9, (4, 4), 26)
    assert batch.counted == 26 and batch.input_ids.numel() == 17
    assert batch.position_ids.tolist() == [[*range(9), 9, 10, 11, 12, 9, 10, 11, 12]]
    assert batch.positions is not None
    flat = batch.input_ids.flatten()
    assert [chr(flat[p]) + chr(t) for p, t in zip(batch.positions, batch.targets, strict=True)] == [
        "=c", "=e", "ef",
    ]  # fmt: skip
    one = token_batch(rows[:1], (0,), 0, packed=True, shared=True)
    padded = token_batch(rows, (0, 1), 0, shared=True)
    assert one.shared == padded.shared == 0 and padded.input_ids.shape == (2, 13)
    shorter = token_batch([rows[0], row("a=b", learned=1)], (0, 1), 0)
    assert (shorter.tokens, shorter.counted) == (16, 26)


def test_nothing_that_is_learned_is_shared() -> None:
    """What follows the shared tokens is predicted from a row's own: a token of it remains."""
    same = [row("one=two", learned=4), row("one=two", learned=3)]
    assert token_batch(same, (0, 1), 0, packed=True, shared=True).shared == 2
    whole = [row("one=two", learned=7)] * 2
    assert token_batch(whole, (0, 1), 0, packed=True, shared=True).shared == 0
    unlearned = [row("one=two", learned=0)] * 2
    assert token_batch(unlearned, (0, 1), 0, packed=True, shared=True).shared == 6
    little = [row("a" + "b" * 40, learned=2), row("a" + "c" * 40, learned=2)]
    assert token_batch(little, (0, 1), 0, packed=True, shared=True).shared == 0


def test_a_model_that_reads_what_follows_does_not_share() -> None:
    model = llama()
    assert can_share(model)
    for layer in model.model.layers:
        layer.self_attn.is_causal = False
    assert not can_share(model)


def test_packed_micro_batches_do_not_count_padding() -> None:
    lengths = [2, 9, 4, 3]
    assert micro_batches(range(4), lengths, 9, packed=True) == [(0, 3, 2), (1,)]
    assert micro_batches(range(4), lengths, 9) == [(0, 3), (2,), (1,)]
