"""A model on kernels and packed rows against plain transformers and PEFT on padded ones."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from fitune.config import Finetuned
from fitune.data.template import Encoded, Reason
from fitune.models.load import set_dropout
from fitune.training.kernels.fused import fuse, fused_layers
from fitune.training.methods import METHODS, trainable_parameters
from fitune.training.objectives import Sft
from fitune.training.objectives.head import head_is_last
from fitune.training.packing import can_pack, rows_apart

SIZES: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
"""Of a tiny model; a family takes those it knows."""

# family → (changes to the sizes, whether rows can be packed, whether the head is last, modules that
# kernels compute with LoRA on all linear layers: norms, gated layers, adapted layers)
FAMILIES: dict[str, tuple[dict[str, Any], bool, bool, tuple[int, int, int]]] = {
    "llama": ({}, True, True, (5, 2, 14)),
    "mistral": ({"sliding_window": 4}, True, True, (5, 2, 14)),
    "qwen2": ({}, True, True, (5, 2, 14)),
    "qwen3": ({}, True, True, (9, 2, 14)),
    "gemma": ({}, True, True, (5, 2, 14)),
    "gemma2": ({}, False, False, (9, 2, 14)),
    "gemma3_text": ({"sliding_window": 4}, True, True, (13, 2, 14)),
    "olmo2": ({}, True, True, (9, 2, 14)),
    "phi3": ({}, True, True, (5, 0, 8)),
    "granite": ({"logits_scaling": 8.0}, True, False, (5, 2, 14)),
    "cohere": ({"logit_scale": 0.0625}, True, False, (0, 2, 14)),
    "gpt_neox": ({}, True, True, (0, 0, 8)),
    "gpt2": ({}, True, True, (0, 0, 0)),
    "bloom": ({}, False, True, (0, 0, 8)),
    "opt": ({"ffn_dim": 64, "word_embed_proj_dim": 32}, True, True, (0, 0, 12)),
    # What the shared expert gives is added to in place.
    "llama4_text": (
        {"intermediate_size_mlp": 64, "num_local_experts": 4, "interleave_moe_layer_step": 2},
        False,
        True,
        (5, 0, 13),
    ),
}


def build(family: str) -> Any:
    changes, *_ = FAMILIES[family]
    config = AutoConfig.for_model(family, **SIZES | changes)
    set_dropout(config, 0.0)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    model = METHODS["lora"](model, Finetuned(rank=3))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def rows() -> list[Encoded]:
    random = torch.Generator().manual_seed(1)
    made = []
    for length in (2, 7, 5, 5, 9):
        ids = torch.randint(3, 64, (length,), generator=random).tolist()
        reasons = [Reason.ANSWER if i > length // 2 else Reason.TEXT for i in range(length)]
        reasons[1] = Reason.ANSWER
        made.append(Encoded(tuple(ids), tuple(reasons)))
    return made


def loss_and_gradients(model: Any, objective: Sft) -> tuple[float, dict[str, torch.Tensor]]:
    batch = objective.batch(range(5))
    with rows_apart(model, batch):
        loss = objective.loss_sum(model, batch)
        loss.backward()
    parameters = trainable_parameters(model)
    return float(loss.detach()), {n: p.grad for n, p in parameters.items() if p.grad is not None}


@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_gradients_are_the_plain_models(family: str) -> None:
    _, packs, last, counts = FAMILIES[family]
    model = build(family)
    plain = copy.deepcopy(model)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    assert can_pack(model) is packs
    assert head_is_last(model) is last

    undo = fuse(model, torch.float32)
    replaced = [m for m in model.modules() if "forward" in vars(m)]
    norms = [m for m in replaced if "Norm" in type(m).__name__]
    gated = [m for m in replaced if "MLP" in type(m).__name__]
    assert (len(norms), len(gated), len(replaced) - len(norms) - len(gated)) == counts

    found = loss_and_gradients(model, Sft(rows(), pad=0, packed=packs, fused=last))
    expected = loss_and_gradients(plain, Sft(rows(), pad=0))
    assert found[0] == pytest.approx(expected[0], rel=1e-5)
    assert found[1].keys() == expected[1].keys() and found[1]
    for name, gradient in expected[1].items():
        assert gradient.norm() > 0
        error = (found[1][name] - gradient).norm() / gradient.norm()
        assert error < 1e-4, f"{name}: {error:.1e}"

    undo()
    assert not [m for m in model.modules() if "forward" in vars(m)]
    after = dict(model.named_parameters())
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_with_adapters_switched_off_the_base_model_answers() -> None:
    model = build("llama")
    tokens = torch.tensor([[5, 9, 3]])
    with torch.no_grad():
        with model.disable_adapter():
            expected = model(input_ids=tokens).logits
        with fused_layers(model, torch.float32), model.disable_adapter():
            found = model(input_ids=tokens).logits
    torch.testing.assert_close(found, expected)


def test_a_gated_layer_that_does_something_else_is_left_alone() -> None:
    model = build("llama")
    layer = model.get_base_model().model.layers[0].mlp

    class Doubling(type(layer)):  # type: ignore[misc]
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(x)

    layer.__class__ = Doubling
    with fused_layers(model, torch.float32):
        assert "forward" not in vars(layer)
        assert "forward" in vars(model.get_base_model().model.layers[1].mlp)
