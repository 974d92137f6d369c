"""Lists and counts of parameters, against modules and against what makers publish."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fitune.errors import ModelError
from fitune.memory.options import Inference
from fitune.memory.parameters import (
    counts,
    head_parameters,
    meta_model,
    parameter_facts,
    trained_depth,
)
from fitune.memory.scenario import apply_method
from memory_kit import bundled, family, training


def built(config: Any, **options: Any) -> Any:
    asked = training(**options)
    with torch.device("meta"):
        return apply_method(meta_model(config, asked), asked)


@pytest.mark.parametrize("name", ["llama", "gpt2", "mixtral", "bert", "t5"])
def test_every_parameter_is_listed_once(name: str) -> None:
    model = built(family(name))
    facts = parameter_facts(model)
    assert sum(fact.numel for fact in facts) == sum(p.numel() for p in model.parameters())
    assert len({fact.name for fact in facts}) == len(facts)
    assert all(fact.trained and fact.bytes_per_value == 4 for fact in facts)
    layers = {fact.unit for fact in facts} - {""}
    assert len(layers) == (12 if name == "t5" else 6)


def test_layers_are_units_also_behind_a_wrapper() -> None:
    facts = parameter_facts(built(family("llama"), method="lora", dtype="bf16"))
    units = {fact.unit for fact in facts}
    assert units == {"", *(f"base_model.model.model.layers.{n}" for n in range(6))}
    trained = [fact for fact in facts if fact.trained]
    assert trained and all("lora_" in fact.name for fact in trained)
    assert {fact.bytes_per_value for fact in facts} == {2, 4}


def test_embeddings_that_the_head_shares_are_tied() -> None:
    tied = [fact.name for fact in parameter_facts(built(family("gpt2"))) if fact.tied]
    assert tied == ["transformer.wte.weight"]
    assert not any(fact.tied for fact in parameter_facts(built(family("llama"))))
    assert head_parameters(built(family("gpt2"))) == 0
    assert head_parameters(built(family("llama"))) == 3000 * 64
    assert head_parameters(built(family("bert"))) == 0


@pytest.mark.parametrize(
    ("name", "active", "within"),
    [
        # Total parameters that one token meets, embeddings and head included, as published.
        ("mixtral-8x7b", 12.9e9, 0.01),
        ("deepseek-v3", 37e9, 0.03),
        ("deepseek-v2", 21e9, 0.03),
        ("qwen3-30b", 3.3e9, 0.03),
        ("qwen3-235b", 22e9, 0.02),
        ("gpt-oss-20b", 3.6e9, 0.03),
        ("gpt-oss-120b", 5.1e9, 0.03),
        ("olmoe", 1.3e9, 0.03),
        ("llama-3.1-8b", 8.03e9, 0.001),
    ],
)
def test_what_one_token_meets(name: str, active: float, within: float) -> None:
    config = bundled(name)
    model = meta_model(config, Inference(1, 8)).requires_grad_(False)
    found = counts(config, model, trainable=0, weight_bytes=2)
    embeddings = model.get_input_embeddings().weight.numel()  # type: ignore[operator, union-attr]
    # gpt-oss's published figure leaves the input embeddings out.
    outside = head_parameters(model) + (0 if name.startswith("gpt-oss") else embeddings)
    assert found.active + outside == pytest.approx(active, rel=within)


def test_widths_of_attention() -> None:
    def widths(name: str) -> tuple[int, int]:
        config = bundled(name)
        model = meta_model(config, Inference(1, 8)).requires_grad_(False)
        found = counts(config, model, trainable=0, weight_bytes=2)
        return found.attention_width, found.kv_width

    assert widths("llama-3.1-8b") == (4096, 1024)  # 32 and 8 heads of 128
    assert widths("gemma-2-9b") == (4096, 2048)  # heads of 256, wider than the model's 3584
    assert widths("gpt2") == (768, 768)
    assert widths("falcon-7b")[1] == 64  # one head for all
    # 128 heads of 192 for scores and 128 for values; 512 + 64 numbers a token cached.
    assert widths("deepseek-v3") == (128 * 160, 288)


def test_a_layer_that_stands_for_all_is_met_as_often() -> None:
    """ALBERT's largest: 12 passes through one layer, 4 · 4096² + 2 · 4096 · 16384 weights."""
    config = bundled("albert-xxlarge-v2")
    model = meta_model(config, Inference(1, 8)).requires_grad_(False)
    found = counts(config, model, trainable=0, weight_bytes=4)
    assert found.layers == 12
    assert found.active == 12 * (4 * 4096**2 + 2 * 4096 * 16384)


def test_adapters_count_and_the_head_trains_in_full_training_only() -> None:
    config = family("llama")
    asked = training(method="lora", dtype="bf16")
    base: Any = meta_model(config, asked).requires_grad_(False)
    plain = counts(config, base, trainable=0, weight_bytes=2)
    lora = counts(config, base, trainable=1000, weight_bytes=2)
    assert lora.active - plain.active == lora.trained_active == 1000
    assert not lora.head_trained
    full = counts(config, built(config), trainable=plain.parameters, weight_bytes=4)
    assert full.head_trained and full.trained_active == full.active == plain.active


@pytest.mark.parametrize(
    ("options", "share"),
    [
        ({}, 1.0),
        ({"method": "freeze", "freeze_layers": 4}, 2 / 6),
        ({"method": "head"}, 0.0),
    ],
)
def test_how_deep_gradients_reach(options: dict[str, Any], share: float) -> None:
    assert trained_depth(built(family("llama"), **options)) == pytest.approx(share)


def test_a_config_that_makes_no_model_is_one_sentence() -> None:
    from transformers import PreTrainedConfig

    class OwnConfig(PreTrainedConfig):
        model_type = "own"

    for asked in (training(), Inference(1, 8)):
        with pytest.raises(ModelError, match="no model can be built from this 'own' config"):
            meta_model(OwnConfig(), asked)
