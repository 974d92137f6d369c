"""What a model is, from its config alone, against models that are really built."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import transformers

from fitune.errors import ModelError
from fitune.models.architecture import describe, describe_config, kind_of, max_length_of
from fitune.models.source import resolve_source

SMALL = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
}


def config(name: str, **fields: Any) -> Any:
    return getattr(transformers, f"{name}Config")(**fields)


@pytest.mark.parametrize(
    ("made", "factory"),
    [
        (config("Llama", **SMALL), "LlamaForCausalLM"),
        (config("Llama", **SMALL, tie_word_embeddings=True), "LlamaForCausalLM"),
        (config("GPT2", vocab_size=64, n_embd=32, n_layer=3, n_head=4), "GPT2LMHeadModel"),
        (config("Qwen3", **SMALL, head_dim=8, num_key_value_heads=2), "Qwen3ForCausalLM"),
        (config("Bert", **SMALL), "BertModel"),
        (config("Roberta", **SMALL), "RobertaModel"),
    ],
    ids=["llama", "llama tied", "gpt2", "qwen3", "bert", "roberta"],
)
def test_counts_are_those_of_the_built_model(made: Any, factory: str) -> None:
    found = describe_config(made)
    model = getattr(transformers, factory)(made)
    assert found.parameters == sum(p.numel() for p in model.parameters())
    assert (found.layers, found.hidden, found.vocabulary) == (3, 32, 64)
    assert found.model_type == made.model_type


def test_tied_weights_count_once() -> None:
    apart = describe_config(config("Llama", **SMALL, tie_word_embeddings=False))
    tied = describe_config(config("Llama", **SMALL, tie_word_embeddings=True))
    assert apart.parameters - tied.parameters == 64 * 32


def test_a_large_model_is_described_without_its_weights() -> None:
    """GPT-2 XL as published: 1,557.6 million parameters (tied), 6 GB if they were allocated."""
    found = describe_config(config("GPT2", n_embd=1600, n_layer=48, n_head=25))
    assert found.parameters == 1_557_611_200
    assert found.max_length == 1024


@pytest.mark.parametrize(
    ("family", "architectures", "kind"),
    [
        ("Llama", None, "decoder"),
        ("Qwen3", None, "decoder"),
        ("GPT2", ["GPT2LMHeadModel"], "decoder"),
        ("Llama", ["LlamaForSequenceClassification"], "decoder"),
        ("Bert", None, "encoder"),
        ("Bert", ["BertForMaskedLM"], "encoder"),
        ("Bert", ["BertForSequenceClassification"], "encoder"),
        ("Bert", ["BertLMHeadModel"], "decoder"),
        ("Roberta", ["RobertaForMaskedLM"], "encoder"),
        ("ModernBert", None, "encoder"),
        ("DistilBert", ["DistilBertModel"], "encoder"),
        ("T5", ["T5ForConditionalGeneration"], "encoder-decoder"),
        ("Bart", None, "encoder-decoder"),
    ],
)
def test_kinds(family: str, architectures: list[str] | None, kind: str) -> None:
    made = config(family)
    made.architectures = architectures
    assert kind_of(made) == kind


@pytest.mark.parametrize(
    ("made", "length"),
    [
        (config("Bert"), 512),
        (config("Roberta", max_position_embeddings=514), 512),
        (config("MPNet", max_position_embeddings=514), 512),
        (config("GPT2"), 1024),
        (config("Llama", max_position_embeddings=8192), 8192),
        (config("ModernBert"), 8192),
    ],
)
def test_context_lengths(made: Any, length: int) -> None:
    assert max_length_of(made) == length


def test_roberta_takes_exactly_as_many_tokens_as_we_say() -> None:
    import torch

    made = config("Roberta", **SMALL, max_position_embeddings=20, pad_token_id=1)
    model = transformers.RobertaModel(made).eval()
    fits = max_length_of(made)
    model(input_ids=torch.full((1, fits), 5))
    with pytest.raises((IndexError, RuntimeError)):
        model(input_ids=torch.full((1, fits + 1), 5))


def test_describe_reads_a_folder(tiny_decoder: Path, tiny_encoder: Path) -> None:
    decoder = describe(resolve_source(str(tiny_decoder)))
    assert (decoder.kind, decoder.layers, decoder.max_length) == ("decoder", 2, 256)
    encoder = describe(resolve_source(str(tiny_encoder)))
    assert (encoder.kind, encoder.hidden, encoder.max_length) == ("encoder", 32, 128)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"model_type": "no-such-family"}, "no-such-family"),
        ({}, "cannot be loaded"),
        ({"model_type": "bert", "hidden_size": 30, "num_attention_heads": 4}, "multiple"),
    ],
)
def test_broken_configs_are_one_sentence(
    tmp_path: Path, fields: dict[str, Any], sentence: str
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(fields))
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match=sentence) as caught:
        describe(resolve_source(str(tmp_path)))
    assert "\n" not in str(caught.value)


def test_a_config_that_is_not_json(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match="cannot be loaded"):
        describe(resolve_source(str(tmp_path)))
