"""Variants of LoRA: their scale, start and learning rates, by the papers' formulas."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

from fitune.config import Finetuned
from fitune.errors import ConfigError
from fitune.models.adapter import save_adapter
from fitune.models.quiet import quiet
from fitune.training.methods import METHODS, check_options, trainable_parameters
from fitune.training.optim import parameter_groups
from fitune.training.rates import rate_factors

SIZES: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
TOKENS = torch.arange(20).reshape(2, 10)


def base(kind: str) -> Any:
    torch.manual_seed(0)
    if kind == "llama":
        return LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=True)).eval()
    if kind == "bert":
        return BertForSequenceClassification(BertConfig(**SIZES, num_labels=3)).eval()
    sizes = {"vocab_size": 64, "n_embd": 32, "n_layer": 2, "n_head": 4}
    return GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=1, eos_token_id=2)).eval()


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=TOKENS, attention_mask=torch.ones_like(TOKENS)).logits


def layers(model: Any) -> list[tuple[str, Any]]:
    found = [(n, m) for n, m in model.named_modules() if hasattr(m, "lora_A")]
    return [(name.removeprefix("base_model.model."), module) for name, module in found]


def trained(model: Any) -> Any:
    """As after training: everything that trains has moved."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in trainable_parameters(model).values():
            parameter.add_(torch.randn(parameter.shape, generator=generator) / 20)
    return model


@pytest.mark.parametrize(("rslora", "scale"), [(False, 12 / 9), (True, 12 / 3)])
def test_the_scale_of_the_update(rslora: bool, scale: float) -> None:
    """Against W + s·BA written into plain layers, in float64."""
    plain = copy.deepcopy(base("llama")).double()
    model = METHODS["lora"](base("llama"), Finetuned(rank=9, alpha=12, rslora=rslora))
    model = trained(model).eval()
    for name, layer in layers(model):
        update = layer.lora_B["default"].weight.double() @ layer.lora_A["default"].weight.double()
        with torch.no_grad():
            plain.get_submodule(name).weight.add_(scale * update)
    expected = logits(plain)
    assert (logits(model).double() - expected).norm() <= 1e-5 * expected.norm()


def test_b_learns_faster_than_a() -> None:
    options = Finetuned(method="lora", rank=2, lora_plus=16.0, layer_decay=0.5)
    model = METHODS["lora"](base("llama"), options)
    groups = parameter_groups(
        trainable_parameters(model),
        head=[],
        learning_rate=1e-3,
        head_learning_rate=1.0,
        weight_decay=0.0,
        factors=rate_factors(model, options),
    )
    rates = {id(p): group["peak"] for group in groups for p in group["params"]}
    for name, parameter in trainable_parameters(model).items():
        factor = (16.0 if "lora_B" in name else 1.0) * (0.5 if ".layers.0." in name else 1.0)
        assert rates[id(parameter)] == pytest.approx(1e-3 * factor), name


@pytest.mark.parametrize("kind", ["llama", "gpt2", "bert"])
def test_pissa_takes_over_the_largest_singular_values(kind: str) -> None:
    """The adapter is the best approximation of its rank (Eckart and Young), computed here with
    numpy in float64; base and adapter together are what the base was."""
    import numpy as np

    before = base(kind)
    model = METHODS["lora"](base(kind), Finetuned(rank=4, alpha=12, lora_init="pissa")).eval()
    for name, layer in layers(model):
        weight = before.get_submodule(name).weight.detach().double().numpy()
        weight = weight.T if kind == "gpt2" else weight  # its layers are Conv1D
        u, s, vh = np.linalg.svd(weight)
        best = torch.from_numpy(u[:, :4] * s[:4] @ vh[:4])
        product = layer.lora_B["default"].weight.double() @ layer.lora_A["default"].weight.double()
        assert (12 / 4 * product - best).norm() <= 1e-4 * best.norm(), name
    assert torch.allclose(logits(model), logits(before), atol=1e-5)


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("kind", ["llama", "gpt2", "bert"])
def test_a_pissa_adapter_is_saved_for_the_original_base(
    kind: str, rslora: bool, tmp_path: Path
) -> None:
    """Read back by PEFT alone; a new head that trained beside it comes along."""
    from peft import PeftModel

    options = Finetuned(rank=4, alpha=12, lora_init="pissa", rslora=rslora)
    model = trained(METHODS["lora"](base(kind), options)).eval()
    expected = logits(model)
    save_adapter(model, tmp_path)
    assert torch.equal(logits(model), expected), "saving changes nothing"
    assert model.peft_config["default"].r == 4
    fresh = base(kind)
    untrained = logits(fresh)
    with quiet():
        read = PeftModel.from_pretrained(fresh, tmp_path).eval()
    assert (expected - untrained).norm() > 0.05 * untrained.norm()
    assert (logits(read) - expected).norm() <= 1e-5 * expected.norm()


def test_beside_bf16_weights_a_saved_pissa_adapter_is_as_exact_as_they_are(tmp_path: Path) -> None:
    from peft import PeftModel

    options = Finetuned(rank=4, alpha=12, lora_init="pissa", dtype="bf16")
    model = trained(METHODS["lora"](base("llama").bfloat16(), options)).eval()
    save_adapter(model, tmp_path)
    with quiet():
        read = PeftModel.from_pretrained(base("llama").bfloat16(), tmp_path).eval()
    expected = logits(model).float()
    assert (logits(read).float() - expected).norm() <= 0.02 * expected.norm()


def test_pissa_starts_the_same_each_time() -> None:
    """A checkpoint holds what trains and not the base, which must be made again as it was."""
    one, other = (
        METHODS["lora"](base("llama"), Finetuned(rank=4, lora_init="pissa")) for _ in range(2)
    )
    for (name, a), (_, b) in zip(one.named_parameters(), other.named_parameters(), strict=True):
        assert torch.equal(a, b), name


def test_pissa_needs_as_many_singular_values_as_its_rank() -> None:
    with pytest.raises(ConfigError, match=r"rank is 40, and .*q_proj has 32.*at most 32"):
        METHODS["lora"](base("llama"), Finetuned(rank=40, lora_init="pissa"))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"method": "full", "rslora": True}, "rslora is true, but method is 'full'"),
        ({"method": "qlora", "lora_init": "pissa"}, "set method: lora, or remove lora_init"),
        ({"lora_plus": 4.0}, "'chosen by fitune'; set method: lora or dora, qlora"),
        ({"method": "lora", "freeze_layers": 1}, "set method: freeze"),
    ],
)
def test_options_of_other_methods_are_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        check_options(Finetuned(**options), "full")


def test_options_of_the_method_are_not() -> None:
    for options in ({"method": "dora", "rslora": True}, {"lora_plus": 4.0}, {"method": "a.b:c"}):
        check_options(Finetuned(**options), "lora")
