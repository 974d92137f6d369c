"""Four-bit weights: what is quantized, how well, and that training and answering keep it whole."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from fitune.errors import MissingExtraError, ModelError
from fitune.models.bundled import bundled_config, find_bundled
from fitune.quantization.stand_in import stand_in_linear_layers
from fitune.quantization.weights import (
    count_parameters,
    is_quantized,
    linear_layers,
    quantize_linear_layers,
    require_bitsandbytes,
)

BELOW = [-1.0, -0.6961928, -0.5250731, -0.3949175, -0.2844414, -0.1847734, -0.0910500, 0.0]
ABOVE = [0.0795803, 0.1609302, 0.2461123, 0.3379152, 0.4407098, 0.5626170, 0.7229568, 1.0]
NF4 = [*BELOW, *ABOVE]
"""Dettmers et al., arXiv:2305.14314, appendix E."""

SIZES: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}


def llama(**changes: Any) -> Any:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**{**SIZES, **changes}))


def gpt2() -> Any:
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=96, n_embd=64, n_layer=2, n_head=4, bos_token_id=1, eos_token_id=2
    )
    return GPT2LMHeadModel(config)


def product(layer: nn.Module, inputs: int) -> torch.Tensor:
    """The weight that a layer multiplies by, ``[outputs, inputs]``."""
    layer.eval()
    with torch.no_grad():
        seen = layer(torch.eye(inputs)).T
        return seen - layer(torch.zeros(1, inputs)).T


@pytest.mark.parametrize("make", [llama, gpt2])
def test_weights_are_the_nearest_of_sixteen_quantiles(make: Any) -> None:
    """By brute force: each value divided by its block's largest becomes the nearest of the paper's
    table; double quantization moves the largest a little."""
    model = make()
    before = {
        name: (layer.weight if isinstance(layer, nn.Linear) else layer.weight.T).detach().clone()
        for name, layer in linear_layers(model).items()
    }
    assert len(before) in (2 * 7, 2 * 4)
    quantize_linear_layers(model, compute_dtype=torch.float32)
    table = torch.tensor(NF4)
    for name, weight in before.items():
        blocks = weight.reshape(-1, 64)
        largest = blocks.abs().amax(dim=1, keepdim=True)
        distances = (blocks / largest)[..., None].sub(table).abs()
        found = product(model.get_submodule(name), weight.shape[1]).reshape(-1, 64)
        scales = found.abs().amax(dim=1, keepdim=True)
        chosen = (found / scales)[..., None].sub(table).abs().argmin(-1)
        assert torch.allclose(found / scales, table[chosen], atol=1e-5), name
        taken = distances.gather(-1, chosen[..., None])[..., 0]
        assert (taken - distances.amin(-1)).max() <= 1e-5, name
        assert (scales - largest).abs().max() <= 0.01 * largest.max(), name


def test_biases_stay(make: Any = gpt2) -> None:
    model = make()
    for layer in linear_layers(model).values():
        nn.init.normal_(layer.bias)
    before = {n: layer.bias.detach().clone() for n, layer in linear_layers(model).items()}
    quantize_linear_layers(model, compute_dtype=torch.float32)
    for name, bias in before.items():
        assert torch.equal(model.get_submodule(name).bias, bias)


def quantized_names(model: Any) -> set[str]:
    quantize_linear_layers(model, compute_dtype=torch.float32)
    return {
        n.rpartition(".")[2] for n, m in model.named_modules() if type(m).__name__ == "Linear4bit"
    }


def test_heads_and_embeddings_are_left_alone() -> None:
    every = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    for tied in (True, False):
        model = llama(tie_word_embeddings=tied)
        assert quantized_names(model) == every
        assert type(model.lm_head) is nn.Linear
        assert (model.lm_head.weight is model.model.embed_tokens.weight) == tied
    assert quantized_names(BertModel(BertConfig(**SIZES))) == {"query", "key", "value", "dense"}
    classifier = BertForSequenceClassification(BertConfig(**SIZES, num_labels=3))
    quantize_linear_layers(classifier, compute_dtype=torch.float32)
    assert type(classifier.classifier) is nn.Linear


def test_what_a_family_keeps_in_fp32_stays_so() -> None:
    config = T5Config(vocab_size=96, d_model=64, d_ff=128, d_kv=16, num_layers=2, num_heads=4)
    names = quantized_names(T5ForConditionalGeneration(config))
    assert "wi" in names and "wo" not in names and "lm_head" not in names


def test_layers_that_blocks_do_not_fit_stay_as_they_are() -> None:
    assert quantized_names(llama(intermediate_size=96)).isdisjoint({"down_proj"})
    with pytest.raises(ModelError, match="no linear layer of a llama"):
        quantize_linear_layers(
            llama(hidden_size=32, intermediate_size=96), compute_dtype=torch.float32
        )


def test_it_takes_about_four_bits_a_weight() -> None:
    """4 + 8/64 + 32/(64 * 256) bits, and two code books and an offset for each layer."""
    model = llama(hidden_size=256, intermediate_size=512)
    counted = sum(p.numel() for p in model.parameters())
    quantize_linear_layers(model, compute_dtype=torch.float32)
    assert count_parameters(model) == counted
    for name, layer in model.named_modules():
        if type(layer).__name__ != "Linear4bit":
            continue
        weights = layer.in_features * layer.out_features
        state = layer.weight.quant_state
        held = [layer.weight, state.absmax, state.code, state.offset]
        held += [state.state2.absmax, state.state2.code]
        size = sum(tensor.untyped_storage().nbytes() for tensor in held)
        blocks = weights // 64
        assert size == weights // 2 + blocks + 4 * (blocks // 256 + 16 + 256 + 1), name


def test_smollm2_takes_two_fifths_of_what_bf16_does() -> None:
    """Its embeddings, which stay as they are, are the larger part then. Stand-ins hold the bytes
    that the layers themselves do (see `test_stand_in`)."""

    def held(*modules: nn.Module) -> int:
        tensors = {t for m in modules for t in (*m.parameters(), *m.buffers())}
        return sum(tensor.numel() * tensor.itemsize for tensor in tensors)

    config = bundled_config(find_bundled("smollm2-135m"))
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
        whole, layers = held(model), held(*linear_layers(model).values())
        embeddings = held(model.get_input_embeddings())
        names = list(linear_layers(model))
        stand_in_linear_layers(model, compute_dtype=torch.bfloat16)
    quantized = held(*(model.get_submodule(name) for name in names))
    assert held(model) - quantized == whole - layers
    assert embeddings > quantized
    assert quantized <= 0.27 * layers
    assert held(model) <= 0.42 * whole


def test_each_weight_goes_before_the_next_is_quantized(monkeypatch: pytest.MonkeyPatch) -> None:
    import bitsandbytes

    model = llama()
    weights = [weakref.ref(layer.weight) for layer in linear_layers(model).values()]
    alive: list[int] = []
    original = bitsandbytes.functional.quantize_4bit

    def quantize(*arguments: Any, **options: Any) -> Any:
        alive.append(sum(weight() is not None for weight in weights))
        return original(*arguments, **options)

    monkeypatch.setattr(bitsandbytes.functional, "quantize_4bit", quantize)
    quantize_linear_layers(model, compute_dtype=torch.float32)
    # The parameter at work is gone; its values live on in the new one.
    assert alive == list(range(len(weights) - 1, -1, -1))


def test_answering_between_steps_changes_nothing() -> None:
    """bitsandbytes would reorder weights for CPUs that multiply bf16, and lose the gradient."""

    def gradients(answers: bool) -> torch.Tensor:
        model = quantize_linear_layers(llama().bfloat16(), compute_dtype=torch.bfloat16)
        model.requires_grad_(False)
        model.model.embed_tokens.weight.requires_grad_(True)
        tokens = torch.arange(20).reshape(2, 10)
        if answers:
            model.eval()
            with torch.inference_mode():
                model(tokens)
        model.train()
        model(tokens).logits.float().pow(2).mean().backward()
        return model.model.embed_tokens.weight.grad

    expected = gradients(answers=False)
    assert expected.abs().sum() > 0
    assert torch.equal(gradients(answers=True), expected)


def test_whether_it_is_quantized_can_be_asked() -> None:
    model = llama()
    assert not is_quantized(model)
    assert is_quantized(quantize_linear_layers(model, compute_dtype=torch.float32))


def test_the_package_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda n, *a: None if n == "bitsandbytes" else find(n, *a)
    )
    monkeypatch.delitem(sys.modules, "bitsandbytes", raising=False)
    with pytest.raises(MissingExtraError, match=r"method qlora needs .*fitune\[quant\]"):
        require_bitsandbytes("method qlora")


def test_importing_it_fetches_and_says_nothing(tmp_path: Path) -> None:
    """Where `kernels` is installed, bitsandbytes would fetch compiled code from the network."""
    (tmp_path / "kernels.py").write_text("from pathlib import Path\nPath('fetched').touch()\n")
    code = (
        "from fitune.models.quiet import import_bitsandbytes\n"
        "import_bitsandbytes()\n"
        "import sys, bitsandbytes; assert 'kernels' not in sys.modules; import kernels"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == done.stderr == ""
    assert (tmp_path / "fetched").exists(), "and afterwards it is there for others"
