"""Methods that train a few thousand values: which ones they are, and that the model computes with
them what their papers say."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from fitune.config import Finetuned
from fitune.errors import ConfigError
from fitune.training.methods import METHODS, prepare, trainable_parameters

SIZES: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
IDS = torch.arange(3, 21).reshape(2, 9)
MASK = torch.ones_like(IDS)


def model_of(kind: str) -> Any:
    torch.manual_seed(0)
    if kind == "llama":
        return LlamaForCausalLM(LlamaConfig(**SIZES, num_key_value_heads=2)).eval()
    if kind == "qwen3":  # heads wider than hidden / heads
        config = Qwen3Config(**SIZES, num_key_value_heads=2, head_dim=16)
        return Qwen3ForCausalLM(config).eval()
    if kind == "bert":
        return BertModel(BertConfig(**SIZES)).eval()
    if kind == "bert-classifier":
        return BertForSequenceClassification(BertConfig(**SIZES, num_labels=3)).eval()
    sizes = {"vocab_size": 64, "n_embd": 32, "n_layer": 2, "n_head": 4}
    return GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=1, eos_token_id=2)).eval()


def output(model: Any, **inputs: torch.Tensor) -> torch.Tensor:
    given = inputs or {"input_ids": IDS, "attention_mask": MASK}
    with torch.no_grad():
        return model(**given, use_cache=False)[0]


def moved(model: Any) -> Any:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in trainable_parameters(model).values():
            parameter.add_(torch.randn(parameter.shape, generator=generator) / 2)
    return model


# ── biases ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_bitfit_trains_every_bias_and_nothing_else(kind: str) -> None:
    model = METHODS["bitfit"](model_of(kind), Finetuned())
    trained = set(trainable_parameters(model))
    assert trained == {n for n, _ in model.named_parameters() if n.split(".")[-1] == "bias"}
    assert len(trained) > 10


def test_bitfit_trains_the_whole_of_a_new_head() -> None:
    model = METHODS["bitfit"](model_of("bert-classifier"), Finetuned())
    trained = set(trainable_parameters(model))
    assert {"classifier.weight", "classifier.bias"} <= trained
    assert "bert.encoder.layer.0.output.dense.weight" not in trained


def test_without_biases_bitfit_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'bitfit' trains biases, and .*'llama' have none; use"):
        METHODS["bitfit"](model_of("llama"), Finetuned())


# ── factors ──────────────────────────────────────────────────────────────────────────────────────


def test_ia3_multiplies_keys_values_and_inner_values() -> None:
    """Section 3.3: written into the weights of a plain model, in float64."""
    plain = copy.deepcopy(model_of("llama")).double()
    model = METHODS["ia3"](model_of("llama"), Finetuned())
    assert torch.equal(output(model), output(model_of("llama"))), "it starts as the model itself"
    trained = trainable_parameters(model)
    # Of each layer: keys and values (16, 16), and what the down projection reads (64).
    assert sum(p.numel() for p in trained.values()) == 2 * (16 + 16 + 64)
    moved(model)
    for name, factor in trained.items():
        layer = name.removeprefix("base_model.model.").partition(".ia3_l")[0]
        with torch.no_grad():
            weight = plain.get_submodule(layer).weight
            flat = factor.double().flatten()
            weight.mul_(flat[None] if "down_proj" in layer else flat[:, None])
    expected = output(plain)
    assert (output(model).double() - expected).norm() <= 1e-5 * expected.norm()


def test_ia3_trains_the_whole_of_a_new_head() -> None:
    trained = trainable_parameters(METHODS["ia3"](model_of("bert-classifier"), Finetuned()))
    assert {n.split(".")[-1] for n in trained if "ia3_l" not in n} == {"weight", "bias"}
    assert any("classifier.modules_to_save" in name for name in trained)


def test_a_family_that_ia3_does_not_know_is_named() -> None:
    from transformers import ModernBertConfig, ModernBertModel

    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config = ModernBertConfig(**SIZES, **special, cls_token_id=1, sep_token_id=2)
    with pytest.raises(ConfigError, match="family 'modernbert' hold keys"):
        METHODS["ia3"](ModernBertModel(config), Finetuned())


# ── virtual tokens ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen3"])
def test_a_trained_prompt_stands_before_each_row(kind: str) -> None:
    """Section 2 of the paper: against the plain model, fed the embeddings by hand."""
    plain = model_of(kind)
    model = moved(METHODS["prompt-tuning"](model_of(kind), Finetuned(virtual_tokens=5))).eval()
    (prompt,) = trainable_parameters(model).values()
    assert prompt.shape == (5, 32)
    table = plain.get_input_embeddings()
    embeds = torch.cat([prompt.detach().expand(2, -1, -1), table(IDS)], dim=1)
    expected = output(plain, inputs_embeds=embeds)[:, 5:]
    assert torch.allclose(output(model), expected, atol=1e-5)


def test_a_prompt_starts_as_words() -> None:
    model = METHODS["prompt-tuning"](model_of("llama"), Finetuned(virtual_tokens=5))
    (prompt,) = trainable_parameters(model).values()
    table = model.get_input_embeddings().weight
    assert all((table == row).all(dim=1).any() for row in prompt)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen3"])
def test_a_prefix_starts_as_words_read_before_the_row(kind: str) -> None:
    """Then the model answers as the plain one does to those words and the row."""
    plain, wrapped = model_of(kind), model_of(kind)
    torch.manual_seed(7)
    words = torch.randint(64, (1, 5))
    torch.manual_seed(7)
    model = METHODS["prefix-tuning"](wrapped, Finetuned(virtual_tokens=5)).eval()
    expected = output(plain, input_ids=torch.cat([words.expand(2, -1), IDS], dim=1))[:, 5:]
    assert torch.allclose(output(model), expected, atol=1e-5)
    before = output(model)
    assert not torch.allclose(output(moved(model)), before, atol=1e-2), "and it is learned"


@pytest.mark.parametrize("method", ["prompt-tuning", "prefix-tuning", "ia3"])
def test_gradients_reach_what_trains_and_nothing_else(method: str) -> None:
    """Against finite differences in float64; Llama's norms are computed in fp32 whatever is asked
    for."""
    model = METHODS[method](model_of("gpt2"), Finetuned(virtual_tokens=3)).double()
    trained = trainable_parameters(model)
    assert {p.requires_grad for n, p in model.named_parameters() if n not in trained} == {False}

    def loss() -> torch.Tensor:
        return model(input_ids=IDS, attention_mask=MASK, use_cache=False).logits.pow(2).mean()

    loss().backward()
    generator = torch.Generator().manual_seed(0)
    for parameter in list(trained.values())[:3]:
        direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        with torch.no_grad():
            slope = []
            for sign in (1, -1):
                parameter.add_(direction, alpha=sign * 1e-5)
                slope.append(sign * loss())
                parameter.add_(direction, alpha=-sign * 1e-5)
        assert parameter.grad is not None
        expected = float(sum(slope)) / 2e-5
        assert float((parameter.grad * direction).sum()) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("method", ["prompt-tuning", "prefix-tuning"])
@pytest.mark.parametrize("kind", ["bert", "bert-classifier"])
def test_an_encoder_is_refused(kind: str, method: str) -> None:
    with pytest.raises(ConfigError, match=f"method '{method}' is for decoders.*'bert'"):
        METHODS[method](model_of(kind), Finetuned())


def test_a_prefix_and_checkpointing_exclude_each_other() -> None:
    options = Finetuned(method="prefix-tuning", checkpointing=True)
    with pytest.raises(ConfigError, match="set checkpointing: false"):
        prepare(model_of("llama"), METHODS["prefix-tuning"], options)


@pytest.mark.parametrize("method", ["ia3", "prompt-tuning", "prefix-tuning"])
@pytest.mark.parametrize(
    ("dtype", "expected"), [("bf16", torch.float32), ("pure-bf16", torch.bfloat16)]
)
def test_what_trains_has_the_dtype_asked_for(
    dtype: str, expected: torch.dtype, method: str
) -> None:
    model = METHODS[method](model_of("llama").bfloat16(), Finetuned(dtype=dtype))  # type: ignore[arg-type]
    assert {p.dtype for p in trainable_parameters(model).values()} == {expected}
    assert torch.isfinite(output(model)).all()
