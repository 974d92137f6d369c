"""Fake tensors answer what real ones would be asked."""

from __future__ import annotations

import torch

from fitune.memory.estimate import estimate_training
from fitune.memory.fake import fake_tensors
from memory_kit import training


def test_questions_are_answered_before_anybody_observes() -> None:
    with fake_tensors():
        assert bool(torch.ones(3).all()) is True
        assert torch.ones(3).sum().item() == 1.0
        assert torch.ones(2, 3).nonzero().shape == (6, 2)


def test_a_model_that_looks_into_its_mask_when_layers_are_tried() -> None:
    import transformers

    config = transformers.BartConfig(
        vocab_size=96,
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_position_embeddings=64,
        architectures=["BartForConditionalGeneration"],
    )
    found = estimate_training(config, training(method="lora", dtype="bf16", seq=32))
    assert 0 < found.trainable < found.parameters
    assert found.peak_bytes == sum(found.terms.values()) > found.parameters
