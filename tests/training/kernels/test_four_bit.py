"""Adapters on joined four-bit layers against PEFT's and bitsandbytes' own computation."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

from fitune.config import Finetuned
from fitune.quantization.joined import JoinedLayers
from fitune.quantization.weights import quantize_linear_layers
from fitune.training.kernels.four_bit import Joined4bit, four_bit_outputs
from fitune.training.kernels.fused import fuse, fused_layers
from fitune.training.methods import METHODS, checkpoint_activations, trainable_parameters
from quantization_kit import Chain

LLAMA = LlamaConfig(
    vocab_size=64,
    hidden_size=64,
    intermediate_size=192,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    eos_token_id=None,
)
GPT2 = GPT2Config(
    vocab_size=64, n_embd=64, n_layer=2, n_head=4, bos_token_id=1, eos_token_id=2, resid_pdrop=0.0
)
GPT2.embd_pdrop = GPT2.attn_pdrop = 0.0
MAKERS: dict[str, tuple[type[PreTrainedModel], Any]] = {
    "llama": (LlamaForCausalLM, LLAMA),
    "gpt2": (GPT2LMHeadModel, GPT2),
}
TOKENS = torch.arange(36).reshape(3, 12)


def build(family: str = "llama", dtype: str = "fp32", **changes: Any) -> Any:
    """Under fp32, too, weights are ones that bf16 has: then both are quantized to the same."""
    torch.manual_seed(0)
    make, config = MAKERS[family]
    model = make(config).bfloat16()
    if dtype == "fp32":
        model = model.float()
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter, std=0.5)
            parameter.data = parameter.data.bfloat16().to(parameter.dtype)
    options = Finetuned(method="qlora", rank=3, dtype=dtype, **changes)
    model = METHODS["qlora"](model, options)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.02)
    return model.train()


def joined_layers(model: nn.Module) -> int:
    """How many adapted layers are computed by a kernel."""
    return sum("lora_A" in vars(m)["_modules"] and "forward" in vars(m) for m in model.modules())


def loss_and_gradients(model: Any, dtype: str = "fp32") -> tuple[float, dict[str, torch.Tensor]]:
    model.zero_grad(set_to_none=True)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == "bf16"):
        loss = model(TOKENS, labels=TOKENS).loss
    loss.backward()
    gradients = {n: p.grad for n, p in trainable_parameters(model).items() if p.grad is not None}
    return float(loss.detach()), gradients


def distance(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    """The largest relative error of a gradient."""
    assert found.keys() == expected.keys() and found
    norms = {name: float(gradient.norm()) for name, gradient in expected.items()}
    assert min(norms.values()) > 0
    return max(float((found[name] - expected[name]).norm()) / norms[name] for name in norms)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(("family", "count"), [("llama", 14), ("gpt2", 8)])
def test_loss_and_gradients_are_pefts(family: str, count: int, checkpointing: bool) -> None:
    model = build(family)
    loss, gradients = loss_and_gradients(model)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    if checkpointing:
        checkpoint_activations(model)
    undo = fuse(model, torch.float32)
    assert joined_layers(model) == count
    for _ in range(2):  # nothing is left over from the first time
        found, found_gradients = loss_and_gradients(model)
        assert found == pytest.approx(loss, rel=1e-6)
        assert distance(found_gradients, gradients) < 1e-5

    undo()
    assert joined_layers(model) == 0
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    packed = [p for p in model.parameters() if p.dtype == torch.uint8]
    assert len({p.untyped_storage().data_ptr() for p in packed}) == len(packed) == count
    assert loss_and_gradients(model)[0] == loss


@pytest.mark.parametrize("family", MAKERS)
def test_in_bf16_it_is_as_near_to_fp32_as_pefts(family: str) -> None:
    exact, model = build(family), build(family, "bf16")
    exact.load_state_dict(trainable_parameters(model), strict=False)
    _, truth = loss_and_gradients(exact)
    _, own = loss_and_gradients(model, "bf16")
    with fused_layers(model, torch.bfloat16):
        assert joined_layers(model) > 0
        _, found = loss_and_gradients(model, "bf16")
    assert 0 < distance(found, truth) < 2 * distance(own, truth) < 0.06


def test_adapters_switched_off_and_answers() -> None:
    model = build().eval()
    with torch.no_grad():
        with model.disable_adapter():
            expected = model(input_ids=TOKENS).logits
        adapted = model(input_ids=TOKENS).logits
        answer = model.generate(input_ids=TOKENS, max_new_tokens=4, do_sample=False)
        assert not torch.allclose(adapted, expected, atol=1e-2)
        with fused_layers(model, torch.float32):
            assert joined_layers(model) == 14
            with model.disable_adapter():
                torch.testing.assert_close(model(input_ids=TOKENS).logits, expected)
            torch.testing.assert_close(model(input_ids=TOKENS).logits, adapted)
            found = model.generate(input_ids=TOKENS, max_new_tokens=4, do_sample=False)
    assert torch.equal(found, answer)


def test_what_is_more_than_one_plain_adapter_is_left_to_peft() -> None:
    with fused_layers(model := build(lora_dropout=0.1), torch.float32):
        assert joined_layers(model) == 0
    with fused_layers(model := build(), torch.bfloat16):  # products of another dtype
        assert joined_layers(model) == 0
    model.add_adapter("second", copy.deepcopy(model.peft_config["default"]))
    model.base_model.set_adapter(["default", "second"])
    with fused_layers(model, torch.float32):
        assert joined_layers(model) == 0


def test_a_kernel_by_itself() -> None:
    """Outputs and gradients in the dtypes that they are to have; and no weight is kept."""
    chains = [Chain((64, outputs), torch.float32, bias=False) for outputs in (128, 192)]
    layers = [quantize_linear_layers(c, compute_dtype=torch.float32).layers[0] for c in chains]
    weights = JoinedLayers(layers)
    downs = [torch.randn(2, 64, requires_grad=True), torch.randn(3, 64, requires_grad=True)]
    ups = [torch.randn(128, 2, requires_grad=True), torch.randn(192, 3, requires_grad=True)]
    bias = torch.randn(320)
    joined = Joined4bit(
        sizes=(128, 192),
        ranks=(2, 3),
        scale=0.5,
        downs=torch.empty(5, 64),
        ups=torch.zeros(320, 5),
        bias=bias,
        weights=weights,
    )
    for room, adapter in zip(joined.rooms(), [*downs, *ups], strict=True):
        room.copy_(adapter.detach())
    x = torch.randn(2, 3, 64, requires_grad=True)
    kept: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        found = four_bit_outputs(x, joined, downs, ups)
    assert sorted(tuple(t.shape) for t in kept) == [(5, 64), (6, 5), (6, 64), (320, 5)]
    matrices = weights.restored().split((128, 192))
    expected = [
        functional.linear(x, matrix, b) + 0.5 * (x @ down.T) @ up.T
        for matrix, b, down, up in zip(matrices, bias.split((128, 192)), downs, ups, strict=True)
    ]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
    inputs, d_outputs = [x, *downs, *ups], [torch.randn_like(each) for each in expected]
    gradients = torch.autograd.grad(found, inputs, d_outputs)
    wanted = torch.autograd.grad(expected, inputs, d_outputs)
    for one, other in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-4)
