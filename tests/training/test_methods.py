"""Methods: exactly the parameters that a method names train, in every family."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
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
from fitune.errors import ConfigError, ModelError
from fitune.quantization.weights import quantize_linear_layers
from fitune.training.methods import (
    METHODS,
    checkpoint_activations,
    layers_of,
    prepare,
    trainable_parameters,
)

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


def random_adapters(model: Any) -> Any:
    """With B at zero and magnitudes as they were, much could be wrong and nothing would show."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / 10)
            elif "magnitude" in name:
                parameter.mul_(1 + torch.rand(parameter.shape, generator=generator))
    return model


def adapters(model: Any) -> list[tuple[str, Any]]:
    """PEFT's layers, each with the name of the layer it wraps."""
    found = [(n, m) for n, m in model.named_modules() if hasattr(m, "lora_A")]
    return [(name.removeprefix("base_model.model."), module) for name, module in found]


def test_dora_learns_length_and_direction_apart() -> None:
    """Equation 5 of the paper, in float64: m (W + BA s) / |W + BA s|, row by row."""
    base = models()["llama"].eval()
    plain = copy.deepcopy(base).double()
    model = random_adapters(METHODS["dora"](base, Finetuned(rank=4, alpha=12))).eval()
    for name, layer in adapters(model):
        weight = layer.base_layer.weight.double()
        low_rank = layer.lora_B["default"].weight.double() @ layer.lora_A["default"].weight.double()
        moved = weight + 12 / 4 * low_rank
        length = layer.lora_magnitude_vector["default"].weight.double()
        new = length[:, None] * moved / moved.norm(dim=1, keepdim=True)
        with torch.no_grad():
            plain.get_submodule(name).weight.copy_(new)
    tokens = torch.arange(20).reshape(2, 10)
    with torch.no_grad():
        found, expected = model(tokens).logits.double(), plain(tokens).logits
    assert (found - expected).norm() <= 1e-5 * expected.norm()


def test_dora_trains_a_length_for_each_output_beside_the_two_matrices() -> None:
    lora = METHODS["lora"](models()["llama"], Finetuned(rank=4))
    dora = METHODS["dora"](models()["llama"], Finetuned(rank=4))
    counts = [sum(p.numel() for p in trainable_parameters(m).values()) for m in (lora, dora)]
    assert counts[1] - counts[0] == 3 * (4 * 32 + 2 * 64 + 32)


WIDE = {**SIZES, "hidden_size": 64, "intermediate_size": 128}


def wide(kind: str) -> Any:
    torch.manual_seed(0)
    if kind == "llama":
        return LlamaForCausalLM(LlamaConfig(**WIDE, tie_word_embeddings=True))
    if kind == "bert":
        return BertModel(BertConfig(**WIDE), add_pooling_layer=False)
    sizes = {"vocab_size": 64, "n_embd": 64, "n_layer": 3, "n_head": 4}
    return GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=1, eos_token_id=2))


def gradients(model: Any, seed: int = 0) -> dict[str, torch.Tensor]:
    """Of what trains, after one backward pass in training mode."""
    torch.manual_seed(seed)
    model.train()
    tokens = torch.arange(40).reshape(4, 10)
    hidden = model(input_ids=tokens, attention_mask=torch.ones_like(tokens))[0]
    hidden.float().pow(2).mean().backward()
    return {n: p.grad for n, p in trainable_parameters(model).items()}


@pytest.mark.parametrize("kind", ["llama", "bert", "gpt2"])
def test_qlora_is_lora_beside_the_restored_weights(kind: str) -> None:
    """Gradients are those of plain LoRA on linear layers that hold what NF4 made of the weights."""
    options = Finetuned(rank=4, dtype="fp32")
    quantized = random_adapters(METHODS["qlora"](wide(kind), options))
    restored = wide(kind)
    for name, layer in adapters(quantized):
        assert type(layer.base_layer).__name__ == "Linear4bit"
        inputs, outputs = layer.in_features, layer.out_features
        with torch.no_grad():
            bias = layer.base_layer(torch.zeros(1, inputs))
            plain = nn.Linear(inputs, outputs)
            plain.weight.copy_((layer.base_layer(torch.eye(inputs)) - bias).T)
            plain.bias.copy_(bias[0])
        parent, _, child = name.rpartition(".")
        setattr(restored.get_submodule(parent), child, plain)
    reference = random_adapters(METHODS["lora"](restored, options))
    with torch.no_grad():
        for (_, mine), (_, theirs) in zip(adapters(quantized), adapters(reference), strict=True):
            theirs.lora_A["default"].weight.copy_(mine.lora_A["default"].weight)
    found, expected = gradients(quantized), gradients(reference)
    assert found.keys() == expected.keys() and len(found) > 10
    for name, gradient in expected.items():
        assert gradient.norm() > 0
        assert (found[name] - gradient).norm() <= 1e-4 * gradient.norm(), name


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_adapters_beside_four_bits_are_fp32(dtype: str) -> None:
    model = METHODS["qlora"](wide("llama").bfloat16(), Finetuned(dtype=dtype))
    assert {p.dtype for p in trainable_parameters(model).values()} == {torch.float32}
    products = {layer.base_layer.compute_dtype for _, layer in adapters(model)}
    assert products == {torch.float32 if dtype == "fp32" else torch.bfloat16}


def test_what_is_quantized_already_is_not_quantized_again() -> None:
    model = quantize_linear_layers(wide("llama"), compute_dtype=torch.bfloat16)
    before = model.model.layers[0].mlp.up_proj
    adapted = METHODS["qlora"](model, Finetuned(dtype="fp32"))
    assert adapted.base_model.model.model.layers[0].mlp.up_proj.base_layer is before


@pytest.mark.parametrize("method", ["full", "freeze", "lora", "dora", "qlora"])
@pytest.mark.parametrize("kind", ["llama", "bert", "gpt2"])
def test_checkpointing_changes_no_gradient(kind: str, method: str) -> None:
    """With dropout, which must draw the same numbers again."""
    freeze = 1 if method == "freeze" else None
    options = Finetuned(method=method, rank=4, lora_dropout=0.3, freeze_layers=freeze, dtype="fp32")
    saved: list[int] = []
    found = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        chosen = options.model_copy(update={"checkpointing": checkpointing})
        model = random_adapters(prepare(wide(kind), METHODS[method], chosen))
        kept: dict[int, int] = {}

        def keep(tensor: torch.Tensor, kept: dict[int, int] = kept) -> torch.Tensor:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            model.train()
            tokens = torch.arange(40).reshape(4, 10)
            held = model(input_ids=tokens, attention_mask=torch.ones_like(tokens))[0]
        saved.append(sum(kept.values()))
        del held
        found.append(gradients(model))
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        # GPT-2 adds up the parts of a gradient in another order; the others give the same bits.
        assert (found[1][name] - gradient).norm() <= 1e-5 * gradient.norm(), name
    assert any(gradient.abs().sum() > 0 for gradient in found[0].values())
    assert saved[1] < saved[0]


def test_frozen_layers_stay_free_when_checkpointed() -> None:
    """No gradient goes below the first layer that trains, and nothing there is computed twice."""
    model = wide("llama")
    options = Finetuned(method="freeze", freeze_layers=2, checkpointing=True)
    model = prepare(model, METHODS["freeze"], options)
    calls = [0, 0, 0]
    for index, layer in enumerate(layers_of(model)):

        def count(module: Any, inputs: Any, index: int = index) -> None:
            calls[index] += 1

        layer.mlp.register_forward_pre_hook(count)
    gradients(model)
    assert calls == [1, 1, 2]


def test_checkpointing_leaves_the_terminal_and_writers_alone() -> None:
    encoder, decoder = wide("bert"), wide("llama")
    for model in (encoder, decoder):
        checkpoint_activations(model)
    assert not encoder.config.use_cache  # else transformers says that it was switched off
    assert decoder.config.use_cache  # generation needs it


def test_a_family_that_cannot_checkpoint_is_named() -> None:
    model = wide("llama")
    model.supports_gradient_checkpointing = False
    with pytest.raises(ModelError, match="family 'llama' do not support checkpointing"):
        checkpoint_activations(model)


@pytest.mark.parametrize("method", ["full", "lora", "dora", "qlora"])
def test_in_pure_bf16_all_that_trains_is_bf16(method: str) -> None:
    options = Finetuned(method=method, dtype="pure-bf16")
    model = METHODS[method](wide("llama").bfloat16(), options)
    found = gradients(model)
    assert {p.dtype for p in trainable_parameters(model).values()} == {torch.bfloat16}
    assert {g.dtype for g in found.values()} == {torch.bfloat16}


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "electra"])
def test_lora_trains_the_whole_of_a_new_head(family: str) -> None:
    from transformers import AutoConfig, AutoModelForSequenceClassification

    sizes = {"vocab_size": 64, "num_labels": 3}
    if family == "distilbert":
        sizes |= {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32}
    else:
        sizes |= {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
        sizes |= {"intermediate_size": 32}
    model = AutoModelForSequenceClassification.from_config(AutoConfig.for_model(family, **sizes))
    head = {
        name.partition(".")[0]: module
        for name, module in model.named_modules()
        if not name.startswith(model.base_model_prefix) and list(module.parameters(recurse=False))
    }
    of_head = sum(p.numel() for name in head for p in model.get_submodule(name).parameters())
    trained = trainable_parameters(METHODS["lora"](model, Finetuned(method="lora", rank=2)))
    assert sum(p.numel() for n, p in trained.items() if "modules_to_save" in n) == of_head
    assert all("lora_" in n or "modules_to_save" in n for n in trained)
    assert not any("lora_" in n and "classifier" in n for n in trained)


@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_a_router_that_is_a_linear_layer_stays_as_it_is(method: str) -> None:
    from transformers import Llama4ForCausalLM, Llama4TextConfig

    pytest.importorskip("bitsandbytes")
    config = Llama4TextConfig(
        vocab_size=64,
        hidden_size=64,
        intermediate_size=64,
        intermediate_size_mlp=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        num_local_experts=2,
        interleave_moe_layer_step=2,
        pad_token_id=0,
    )
    model = METHODS[method](
        Llama4ForCausalLM(config), Finetuned(method=method, rank=2, dtype="fp32")
    )
    adapted = {name for name in trainable_parameters(model) if "lora_A" in name}
    assert any("q_proj" in name for name in adapted)
    assert not any("router" in name for name in adapted)
    ids = torch.randint(1, 64, (2, 5))
    model(input_ids=ids, labels=ids).loss.backward()
    assert all(p.grad is not None for n, p in trainable_parameters(model).items() if "lora_B" in n)


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("kind", ["llama", "bert", "gpt2"])
def test_every_second_layer_checkpointed_changes_no_gradient(kind: str, method: str) -> None:
    """The first and the third of three are computed twice, the second once."""
    options = Finetuned(method=method, rank=4, lora_dropout=0.3, dtype="fp32")
    found = []
    for checkpointing in (False, 2):
        torch.manual_seed(0)
        chosen = options.model_copy(update={"checkpointing": checkpointing})
        model = random_adapters(prepare(wide(kind), METHODS[method], chosen))
        calls = [0, 0, 0]
        for index, layer in enumerate(layers_of(model)):

            def count(module: Any, inputs: Any, index: int = index, calls: Any = calls) -> None:
                calls[index] += 1

            next(iter(layer.children())).register_forward_pre_hook(count)
        found.append(gradients(model))
        assert calls == ([2, 1, 2] if checkpointing else [1, 1, 1])
    for name, gradient in found[0].items():
        assert (found[1][name] - gradient).norm() <= 1e-5 * gradient.norm(), name


def test_a_choice_of_layers_is_kept() -> None:
    """Memory is traced on a few of the layers, picked after the choice."""
    model = wide("llama")
    checkpoint_activations(model, 2)
    checkpoint_activations(model)
    assert [layer.gradient_checkpointing for layer in model.model.layers] == [True, False, True]
