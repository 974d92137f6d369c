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
from fitune.training.packing import can_pack, rows_apart

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
    monkeypatch.setattr(packing, "Layout", lambda lengths, device: Layout((sum(lengths),), device))
    assert not can_pack(llama())


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


def test_packed_micro_batches_do_not_count_padding() -> None:
    lengths = [2, 9, 4, 3]
    assert micro_batches(range(4), lengths, 9, packed=True) == [(0, 3, 2), (1,)]
    assert micro_batches(range(4), lengths, 9) == [(0, 3), (2,), (1,)]
