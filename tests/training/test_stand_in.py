"""Stand-ins in the whole of a step: adapters and optimizers against the real ones, and on fakes."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import (
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

from fitune.config import Finetuned
from fitune.quantization.stand_in import stand_in_linear_layers
from fitune.quantization.weights import quantize_linear_layers
from fitune.training.kernels.adapted import join_adapters
from fitune.training.methods import METHODS, checkpoint_activations, trainable_parameters
from fitune.training.optim import OPTIMIZERS, parameter_groups
from fitune.training.stand_in import StandInAdamW8bit, assume_device
from quantization_kit import memory_events

SIZES: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 128,
    "intermediate_size": 320,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}


def base(kind: str, dtype: torch.dtype) -> Any:
    torch.manual_seed(0)
    if kind == "llama":
        return LlamaForCausalLM(LlamaConfig(**SIZES)).to(dtype)
    if kind == "bert":
        return BertModel(BertConfig(**SIZES)).to(dtype)
    config = GPT2Config(
        vocab_size=96, n_embd=128, n_layer=2, n_head=4, bos_token_id=1, eos_token_id=2
    )
    return GPT2LMHeadModel(config).to(dtype)


def peak(work: Callable[[], object]) -> int:
    """The most bytes that the CPU allocator handed out at once."""
    gc.collect()
    held = most = 0
    for change in memory_events(work):
        held += change
        most = max(most, held)
    return most


@pytest.mark.filterwarnings("ignore")  # of PEFT's about transformers' names, and of fan_in_fan_out
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("dtype", ["fp32", "bf16", "pure-bf16"])
@pytest.mark.parametrize("kind", ["llama", "bert", "gpt2"])
def test_an_adapted_model_peaks_alike(kind: str, dtype: str, checkpointing: bool) -> None:
    options = Finetuned(method="qlora", rank=8, dtype=dtype, lora_dropout=0.1)
    weights = torch.float32 if dtype == "fp32" or (kind, dtype) == ("bert", "bf16") else None
    products = torch.float32 if dtype == "fp32" else torch.bfloat16
    peaks = []
    for put in (quantize_linear_layers, stand_in_linear_layers):
        model = put(base(kind, weights or torch.bfloat16), compute_dtype=products)
        model = METHODS["qlora"](model, options)
        if checkpointing:
            checkpoint_activations(model)
        tokens = torch.randint(0, 90, (3, 21))

        def step(model: Any = model, tokens: Any = tokens) -> None:
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == "bf16"):
                out = model(tokens)[0]
            out.float().pow(2).mean().backward()

        model.train()
        step()
        model.zero_grad(set_to_none=True)
        peaks.append(peak(step))
    assert peaks[0] > 0
    assert peaks[1] == pytest.approx(peaks[0], rel=0.01)


@pytest.mark.filterwarnings("ignore")  # of PEFT's about transformers' names, and of fan_in_fan_out
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(
    ("kind", "dtype"), [("llama", "fp32"), ("llama", "bf16"), ("bert", "bf16"), ("gpt2", "bf16")]
)
def test_joined_layers_take_the_same(kind: str, dtype: str, checkpointing: bool) -> None:
    """Every single event of a step and of an evaluation, where layers with adapters are joined."""
    options = Finetuned(method="qlora", rank=8, dtype=dtype)
    compute = torch.float32 if dtype == "fp32" else torch.bfloat16
    source = torch.float32 if kind == "bert" else compute
    seen = []
    for put in (quantize_linear_layers, stand_in_linear_layers):
        model: Any = METHODS["qlora"](put(base(kind, source), compute_dtype=compute), options)
        if checkpointing:
            checkpoint_activations(model)
        replaced: list[nn.Module] = []

        def replace(module: nn.Module, forward: Any, replaced: Any = replaced) -> None:
            vars(module)["forward"] = forward
            replaced.append(module)

        join_adapters(model, compute, replace)
        assert len(replaced) == {"llama": 14, "bert": 13, "gpt2": 8}[kind]
        tokens = torch.randint(0, 90, (3, 21))

        def step(model: Any = model, tokens: Any = tokens) -> None:
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == "bf16"):
                out = model(tokens)[0]
            out.float().pow(2).mean().backward()

        def answer(model: Any = model, tokens: Any = tokens) -> None:
            with torch.no_grad():
                model(tokens)

        model.train()
        step()
        model.zero_grad(set_to_none=True)
        seen.append((memory_events(step), memory_events(answer)))
    assert sum(map(abs, seen[0][0])) > 0
    assert seen[1] == seen[0]


def parameters(dtype: torch.dtype) -> list[nn.Parameter]:
    """Large and small ones, and one whose last block is not full."""
    shapes = [(256, 128), (40, 64), (133, 131), (64,), (4096,)]
    return [nn.Parameter(torch.randn(shape).to(dtype)) for shape in shapes]


def give_gradients(optimizer: torch.optim.Optimizer) -> None:
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.randn_like(parameter)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_8_bit_optimizer_takes_and_holds_the_same(dtype: torch.dtype) -> None:
    found = []
    for make in (
        lambda groups: OPTIMIZERS["adamw-8bit"](groups, Finetuned()),
        lambda groups: StandInAdamW8bit(groups),
    ):
        torch.manual_seed(0)
        optimizer = make([{"params": parameters(dtype), "lr": 1e-3, "weight_decay": 0.1}])
        give_gradients(optimizer)
        first = peak(optimizer.step)
        give_gradients(optimizer)
        second = peak(optimizer.step)
        tensors = {
            value.data_ptr(): value.untyped_storage().nbytes()
            for state in optimizer.state.values()
            for value in state.values()
            if isinstance(value, torch.Tensor)
        }
        names = [sorted(state) for state in optimizer.state.values()]
        found.append((first, second, sum(tensors.values()), names))
    (first, second, states, names), stand_in = found
    assert first > second > 0
    assert stand_in[:2] == pytest.approx((first, second), rel=0.01)
    assert stand_in[2:] == (states, names)


def test_paged_states_are_no_part_of_what_the_device_hands_out() -> None:
    with FakeTensorMode():
        large = nn.Parameter(torch.zeros(400, 400))
        small = nn.Parameter(torch.zeros(100, 100))
        groups = [{"params": [large, small], "lr": 1.0, "weight_decay": 0.0}]
        optimizer: Any = OPTIMIZERS["paged-adamw-8bit"](groups, Finetuned())
        give_gradients(optimizer)
        optimizer.step()
        assert optimizer.page_bytes == 2 * 400 * 400
        assert "state1" not in optimizer.state[large]
        assert optimizer.state[small]["state1"].dtype == torch.uint8


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("method", "name"),
    [*((m, "adamw-8bit") for m in ("lora", "dora", "qlora")), *(("full", o) for o in OPTIMIZERS)],
)
def test_every_method_and_optimizer_runs_on_fake_tensors(method: str, name: str) -> None:
    """Made on the meta device, two steps on fake tensors: as memory is traced."""
    options = Finetuned(method=method, rank=4, optimizer=name, dtype="bf16")
    with torch.device("meta"):
        made: Any = METHODS[method](base("llama", torch.bfloat16), options)
        checkpoint_activations(made)
    with FakeTensorMode(allow_non_fake_inputs=True):
        model: Any = made.to_empty(device="cpu")
        groups = parameter_groups(
            trainable_parameters(model),
            head=[],
            learning_rate=1e-3,
            head_learning_rate=1e-3,
            weight_decay=0.1,
        )
        optimizer = OPTIMIZERS[name](groups, options)
        assume_device(model, optimizer, device="cuda", autocast=True)
        tokens = torch.ones((2, 9), dtype=torch.int64)
        model.train()
        for _ in range(2):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                out = model(tokens, attention_mask=tokens, use_cache=False).logits
            out.float().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
