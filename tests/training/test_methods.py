"""Methods: exactly the parameters that a method names train, in every family."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import (
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    ModernBertConfig,
    ModernBertModel,
)

from fitune.config import Finetuned
from fitune.errors import ConfigError
from fitune.training.methods import METHODS, layers_of, trainable_parameters

SIZES: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
}


def models() -> dict[str, Any]:
    return {
        "bert": BertModel(BertConfig(**SIZES)),
        "modernbert": ModernBertModel(
            ModernBertConfig(
                **SIZES,
                pad_token_id=0,
                bos_token_id=1,
                eos_token_id=2,
                cls_token_id=1,
                sep_token_id=2,
            )
        ),
        "llama": LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=True)),
        "gpt2": GPT2LMHeadModel(
            GPT2Config(
                vocab_size=64, n_embd=32, n_layer=3, n_head=4, bos_token_id=1, eos_token_id=2
            )
        ),
    }


@pytest.fixture(params=["bert", "modernbert", "llama", "gpt2"])
def model(request: pytest.FixtureRequest) -> Any:
    return models()[request.param]


def test_full_trains_everything(model: Any) -> None:
    METHODS["full"](model, Finetuned())
    assert len(trainable_parameters(model)) == len(list(model.parameters()))


def test_freeze_keeps_embeddings_and_low_layers(model: Any) -> None:
    METHODS["freeze"](model, Finetuned(method="freeze", freeze_layers=2))
    layers = layers_of(model)
    assert len(layers) == 3
    assert not any(p.requires_grad for layer in layers[:2] for p in layer.parameters())
    assert all(p.requires_grad for p in layers[2].parameters())
    assert not model.get_input_embeddings().weight.requires_grad


@pytest.mark.parametrize("k", [None, 4])
def test_freeze_says_how_many_layers_there_are(k: int | None) -> None:
    with pytest.raises(ConfigError, match="between 1 and 3"):
        METHODS["freeze"](models()["bert"], Finetuned(freeze_layers=k))


def test_head_leaves_the_trunk(model: Any) -> None:
    METHODS["head"](model, Finetuned())
    assert not any(p.requires_grad for p in model.base_model.parameters())


def test_lora_trains_two_small_matrices_a_linear_layer() -> None:
    model = METHODS["lora"](models()["llama"], Finetuned(rank=4))
    trained = trainable_parameters(model)
    assert all("lora_" in name for name in trained)
    # Seven linear layers a layer: q, k, v, o (32 → 32) and gate, up (32 → 64), down (64 → 32).
    per_layer = 4 * (4 * 32 + 32 * 4) + 3 * (4 * 32 + 64 * 4)
    assert sum(p.numel() for p in trained.values()) == 3 * per_layer


def test_lora_on_named_modules_only() -> None:
    model = METHODS["lora"](models()["llama"], Finetuned(rank=2, target_modules=("q_proj",)))
    assert {n.split(".")[-4] for n in trainable_parameters(model)} == {"q_proj"}


def test_lora_starts_as_the_model_itself() -> None:
    base = models()["llama"].eval()
    tokens = torch.arange(10)[None]
    before = base(tokens).logits.detach()
    after = METHODS["lora"](base, Finetuned()).eval()(tokens).logits
    assert torch.equal(before, after)


def test_unknown_modules_are_named_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"'nothing' names no module.*q_proj"):
        METHODS["lora"](models()["llama"], Finetuned(target_modules="nothing"))
