"""Reading with one half and writing with the other: the loss is transformers' own."""

from __future__ import annotations

import pytest
import torch
from transformers import BartConfig, BartForConditionalGeneration, T5ForConditionalGeneration

from fitune.data.template import Encoded, Reason
from fitune.training.objectives import Seq2Seq
from memory_kit import family

ITEMS = [Encoded((5, 6, 7), (Reason.TEXT,) * 3), Encoded((8, 9), (Reason.TEXT,) * 2)]
ANSWERS = [[11, 12, 1], [13, 1]]


@pytest.mark.parametrize("name", ["t5", "bart"])
def test_the_summed_loss_is_that_of_the_model_times_its_tokens(name: str) -> None:
    torch.manual_seed(0)
    if name == "t5":
        model = T5ForConditionalGeneration(family("t5", layers=2)).eval()
    else:
        sizes = {"vocab_size": 64, "d_model": 16, "encoder_layers": 1, "decoder_layers": 1}
        heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
        model = BartForConditionalGeneration(BartConfig(**sizes, **heads)).eval()
    batch = Seq2Seq(ITEMS, ANSWERS, pad=0).batch([0, 1])
    assert batch.learned == 5 and batch.tokens == 10
    assert batch.answers is not None and batch.answers.tolist() == [[11, 12, 1], [13, 1, -100]]
    whole = model(
        input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=batch.answers
    )
    loss = Seq2Seq(ITEMS, ANSWERS, pad=0).loss_sum(model, batch)
    assert loss.item() == pytest.approx(5 * whole.loss.item(), rel=1e-5)
