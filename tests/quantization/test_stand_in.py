"""Stand-ins against the real layers, by the allocator's own account of real tensors."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from fitune.errors import ModelError
from fitune.quantization.stand_in import StandInLinear4bit, stand_in_linear_layers
from fitune.quantization.weights import count_parameters, is_quantized, quantize_linear_layers
from quantization_kit import Chain, memory_events

SIZES = (192, 320, 128, 192)
"""Inputs of the first of a chain of layers, then the outputs of each."""

REAL: Callable[..., Any] = quantize_linear_layers
STAND_IN: Callable[..., Any] = stand_in_linear_layers
CASES = [
    # dtype of the weights, of products, of the input, under autocast
    (torch.float32, torch.float32, torch.float32, False),
    (torch.bfloat16, torch.bfloat16, torch.bfloat16, False),
    (torch.bfloat16, torch.bfloat16, torch.bfloat16, True),
    (torch.float32, torch.bfloat16, torch.float32, True),
]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("weights", "products", "given", "autocast"), CASES)
def test_the_same_bytes_come_and_go(
    weights: torch.dtype, products: torch.dtype, given: torch.dtype, autocast: bool, bias: bool
) -> None:
    """Not only the peak but every single event of forward, backward and evaluation."""
    seen = []
    for put in (REAL, STAND_IN):
        model = put(Chain(SIZES, weights, bias=bias), compute_dtype=products)
        x = torch.randn(7, 5, 192, dtype=given, requires_grad=True)

        def train(model: Any = model, x: Any = x) -> None:
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
                out = model.layers(x)
            out.backward(torch.ones_like(out))

        def answer(model: Any = model, x: Any = x) -> None:
            with torch.no_grad():
                model.layers(x)

        train()
        x.grad = None
        gc.collect()
        seen.append((memory_events(train), memory_events(answer)))
    assert sum(map(abs, seen[0][0])) > 0
    assert seen[1] == seen[0]


def held_by(model: nn.Module) -> int:
    """Bytes of the layers, with bitsandbytes' quantization states, which are no buffers."""
    tensors = [*model.parameters(), *model.buffers()]
    for parameter in model.parameters():
        state = getattr(parameter, "quant_state", None)
        if state is not None:
            tensors += [state.absmax, state.code, state.offset, state.state2.absmax]
            tensors.append(state.state2.code)
    return sum({t.data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


@pytest.mark.parametrize("bias", [False, True])
def test_they_hold_the_same_bytes(bias: bool) -> None:
    real = REAL(Chain(SIZES, torch.float32, bias=bias), compute_dtype=torch.bfloat16)
    stand_in = STAND_IN(Chain(SIZES, torch.float32, bias=bias), compute_dtype=torch.bfloat16)
    assert held_by(stand_in) == held_by(real)
    assert count_parameters(stand_in) == count_parameters(real)
    assert is_quantized(stand_in)


def test_they_run_on_fake_tensors_and_on_none() -> None:
    with torch.device("meta"):
        model = STAND_IN(Chain(SIZES, torch.bfloat16, bias=True), compute_dtype=torch.bfloat16)
    assert all(isinstance(layer, StandInLinear4bit) for layer in model.layers)
    assert all(t.is_meta for t in [*model.parameters(), *model.buffers()])
    x = torch.zeros(3, 192, dtype=torch.bfloat16, device="meta", requires_grad=True)
    model.layers(x).sum().backward()
    with FakeTensorMode():
        model = STAND_IN(Chain(SIZES, torch.bfloat16, bias=True), compute_dtype=torch.bfloat16)
        x = torch.zeros(3, 192, dtype=torch.bfloat16, requires_grad=True)
        model.layers(x).sum().backward()
        assert x.grad is not None and x.grad.shape == x.shape


def test_layers_that_cannot_be_quantized_are_told_alike() -> None:
    messages = []
    for put in (REAL, STAND_IN):
        model: Any = Chain(SIZES, torch.float32, bias=False)
        model.layers = nn.Sequential(nn.Linear(40, 40))
        model.config = type("Config", (), {"model_type": "chain"})
        with pytest.raises(ModelError) as caught:
            put(model, compute_dtype=torch.float32)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
