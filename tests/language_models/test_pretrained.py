"""A model that exists, scored with its own tokens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from fitune.errors import ModelError
from fitune.language_models.pretrained import Pretrained

TEXTS = ["the card is lost", "", "please help: where is my new card?"]


def test_log_probabilities_are_the_models_own(tiny_base_decoder: Path) -> None:
    model = Pretrained(str(tiny_base_decoder))
    tokenizer = AutoTokenizer.from_pretrained(tiny_base_decoder)
    network = AutoModelForCausalLM.from_pretrained(tiny_base_decoder).double()
    sequences = [model.vocabulary.encode(text) for text in TEXTS]
    for text, ids, found in zip(TEXTS, sequences, model.log_probabilities(sequences), strict=True):
        assert ids.tolist() == tokenizer(text, add_special_tokens=False).input_ids
        whole = [tokenizer.bos_token_id, *ids.tolist(), tokenizer.eos_token_id]
        with torch.no_grad():
            logits = network(input_ids=torch.tensor([whole[:-1]])).logits[0]
        expected = torch.log_softmax(logits, -1)[torch.arange(len(ids) + 1), whole[1:]]
        np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)


def test_long_texts_go_through_windows(tiny_base_decoder: Path, monkeypatch) -> None:
    monkeypatch.setattr("fitune.language_models.pretrained.CONTEXT", 16)
    model = Pretrained(str(tiny_base_decoder))
    ids = model.vocabulary.encode(TEXTS[2] * 4)
    assert len(ids) > 32
    (found,) = model.log_probabilities([ids])
    for at in (0, 5, 15, 16, 23, 24, 33, len(ids)):
        distribution = model.next_distribution(ids[:at].tolist())
        assert distribution.shape == (len(model.vocabulary) + 1,)
        assert distribution.sum() == pytest.approx(1, abs=1e-12)
        token = ids[at] if at < len(ids) else len(model.vocabulary)
        assert np.log(distribution[token]) == pytest.approx(found[at], abs=1e-5)


def test_the_name_is_saved_and_not_the_weights(tiny_base_decoder: Path, tmp_path: Path) -> None:
    model = Pretrained(str(tiny_base_decoder))
    model.save(tmp_path / "model")
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["model.json"]
    loaded = Pretrained.load(tmp_path / "model")
    assert loaded.sample(5, seed=1) == model.sample(5, seed=1)
    assert loaded.parameters == model.parameters > 10_000


def test_what_does_not_predict_the_next_token_is_refused(tiny_encoder: Path) -> None:
    with pytest.raises(ModelError, match="which does not predict the next token"):
        Pretrained(str(tiny_encoder))
