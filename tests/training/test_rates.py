"""Learning rates by layer, against the chain of layers written out by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import (
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)

from fitune.config import Finetuned
from fitune.errors import ConfigError
from fitune.training.methods import METHODS, trainable_parameters
from fitune.training.optim import OPTIMIZERS, parameter_groups
from fitune.training.rates import rate_factors

SIZES: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
}


def models() -> dict[str, Any]:
    gpt2 = {"vocab_size": 64, "n_embd": 32, "n_layer": 3, "n_head": 4}
    return {
        "bert": BertModel(BertConfig(**SIZES)),
        "llama": LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=False)),
        "tied": LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=True)),
        "gpt2": GPT2LMHeadModel(GPT2Config(**gpt2, bos_token_id=1, eos_token_id=2)),
        "neox": GPTNeoXForCausalLM(GPTNeoXConfig(**SIZES)),
    }


EXPECTED: dict[str, dict[str, float]] = {
    # where in the name → factor at a decay of 1/2; three layers and the embeddings below them
    "bert": {"embeddings.": 0.125, "layer.0.": 0.25, "layer.1.": 0.5, "layer.2.": 1, "pooler.": 1},
    "llama": {"embed_tokens": 0.125, "layers.0.": 0.25, "layers.2.": 1, "model.norm": 1, "lm_": 1},
    "tied": {"embed_tokens": 0.125, "layers.1.": 0.5, "model.norm": 1},
    "gpt2": {"wte": 0.125, "wpe": 0.125, "h.0.": 0.25, "h.1.": 0.5, "h.2.": 1, "ln_f": 1},
    "neox": {"embed_in": 0.125, "layers.0.": 0.25, "final_layer_norm": 1, "lm_head": 1},
}


@pytest.mark.parametrize("family", list(EXPECTED))
def test_each_layer_takes_a_part_of_the_rate_above_it(family: str) -> None:
    model = METHODS["full"](models()[family], Finetuned())
    factors = rate_factors(model, Finetuned(layer_decay=0.5))
    for part, factor in EXPECTED[family].items():
        names = [name for name in trainable_parameters(model) if part in name]
        assert names, part
        assert {factors.get(name, 1.0) for name in names} == {factor}, part


def test_adapters_follow_the_layer_they_are_in() -> None:
    model = METHODS["lora"](models()["llama"], Finetuned(rank=2))
    factors = rate_factors(model, Finetuned(method="lora", layer_decay=0.9))
    lowest = {factors[name] for name in trainable_parameters(model) if ".layers.0." in name}
    assert len(lowest) == 1 and lowest.pop() == pytest.approx(0.81)
    assert not any(".layers.2." in name for name in factors)


def test_an_update_is_as_much_smaller() -> None:
    """Of plain descent: what moves is rate · gradient, so two runs differ by the factor alone."""
    moved = []
    for decay in (1.0, 0.5):
        torch.manual_seed(0)
        options = Finetuned(layer_decay=decay, optimizer="sgd")
        model = METHODS["full"](models()["bert"], options)
        before = {n: p.detach().clone() for n, p in model.named_parameters()}
        optimizer = OPTIMIZERS["sgd"](
            parameter_groups(
                trainable_parameters(model),
                head=[],
                learning_rate=0.1,
                head_learning_rate=0.1,
                weight_decay=0.0,
                factors=rate_factors(model, options),
            ),
            options,
        )
        model(torch.arange(10)[None]).pooler_output.pow(2).sum().backward()
        optimizer.step()
        moved.append({n: (p.detach() - before[n]).norm() for n, p in model.named_parameters()})
    name = "encoder.layer.0.output.dense.weight"
    assert moved[0][name] > 0
    assert moved[1][name] == pytest.approx(float(moved[0][name]) / 4, rel=1e-3)
    top = "encoder.layer.2.output.dense.weight"
    assert moved[1][top] == pytest.approx(float(moved[0][top]), rel=1e-6)


def test_where_no_layer_trains_it_is_refused() -> None:
    model = METHODS["head"](models()["llama"], Finetuned())
    with pytest.raises(
        ConfigError, match=r"layer_decay is 0\.5, and method 'head' trains no layer"
    ):
        rate_factors(model, Finetuned(method="head", layer_decay=0.5))
