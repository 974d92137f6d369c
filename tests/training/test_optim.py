"""Optimizers and schedules against transformers' schedules and textbook updates."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers import get_cosine_schedule_with_warmup, get_linear_schedule_with_warmup

from fitune.config import Finetuned
from fitune.errors import ResourceError
from fitune.training.optim import OPTIMIZERS, parameter_groups, schedule_factor


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_after_warmup_the_schedule_is_that_of_transformers(schedule: str) -> None:
    make = {
        "linear": get_linear_schedule_with_warmup,
        "cosine": get_cosine_schedule_with_warmup,
    }[schedule]
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = make(optimizer, num_warmup_steps=10, num_training_steps=100)
    for step in range(100):
        ours = schedule_factor(step, 100, warmup=0.1, schedule=schedule)
        if step >= 10:
            assert ours == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-12)
        else:  # theirs starts at zero, which wastes the first step
            assert ours == pytest.approx((step + 1) / 10)
        optimizer.step()
        theirs.step()


@given(
    total=st.integers(1, 5000),
    warmup=st.floats(0, 0.99),
    schedule=st.sampled_from(["linear", "cosine", "constant"]),
)
def test_a_factor_is_always_usable(total: int, warmup: float, schedule: str) -> None:
    for step in {0, total // 2, total - 1}:
        factor = schedule_factor(step, total, warmup=warmup, schedule=schedule)
        assert 0.0 < factor <= 1.0 and math.isfinite(factor)


def test_biases_do_not_decay_and_the_head_has_its_own_rate() -> None:
    trunk, head = nn.Linear(4, 4), nn.Linear(4, 2)
    model = nn.ModuleDict({"trunk": trunk, "head": head})
    groups = parameter_groups(
        dict(model.named_parameters()),
        head=head.parameters(),
        learning_rate=1e-3,
        head_learning_rate=1e-2,
        weight_decay=0.1,
    )
    found = {
        id(p): (group["peak"], group["weight_decay"]) for group in groups for p in group["params"]
    }
    assert found == {
        id(trunk.weight): (1e-3, 0.1),
        id(trunk.bias): (1e-3, 0.0),
        id(head.weight): (1e-2, 0.1),
        id(head.bias): (1e-2, 0.0),
    }


def update_by_hand(name: str, t: int, gradient: float, value: float, state: list[float]) -> float:
    """One textbook update at learning rate 0.1 and decay 0.5."""
    if name.startswith("adamw"):
        state[0] = 0.9 * state[0] + 0.1 * gradient
        state[1] = 0.999 * state[1] + 0.001 * gradient**2
        step = (state[0] / (1 - 0.9**t)) / (math.sqrt(state[1] / (1 - 0.999**t)) + 1e-8)
        return value * (1 - 0.1 * 0.5) - 0.1 * step
    if name == "adafactor":
        # Shazeer and Stern, arXiv:1804.04235, algorithm 4; of one value, row and column are it.
        decay = 1 - t**-0.8
        state[0] = decay * state[0] + (1 - decay) * (gradient**2 + 1e-30)
        step = gradient / math.sqrt(state[0])
        step /= max(1.0, abs(step))
        return value * (1 - 0.1 * 0.5) - 0.1 * step
    if name == "lion":
        direction = math.copysign(1.0, 0.9 * state[0] + 0.1 * gradient)
        state[0] = 0.99 * state[0] + 0.01 * gradient
        return value - 0.1 * (direction + 0.5 * value)
    total = gradient + 0.5 * value
    state[0] = 0.9 * state[0] + total if name == "momentum" and t > 1 else total
    return value - 0.1 * state[0]


ANYWHERE = [name for name in OPTIMIZERS if name != "paged-adamw-8bit"]
"""Those that run on a CPU."""


@pytest.mark.parametrize("name", ANYWHERE)
def test_two_updates_by_hand(name: str) -> None:
    """With gradients 3 and -1, learning rate 0.1, decay 0.5."""
    parameter = nn.Parameter(torch.tensor([[2.0]]))
    groups = [{"params": [parameter], "lr": 0.1, "peak": 0.1, "weight_decay": 0.5}]
    optimizer = OPTIMIZERS[name](groups, Finetuned())
    value, state = 2.0, [0.0, 0.0]
    for t, gradient in enumerate([3.0, -1.0], start=1):
        parameter.grad = torch.tensor([[gradient]])
        optimizer.step()
        value = update_by_hand(name, t, gradient, value, state)
    assert parameter.item() == pytest.approx(value, rel=1e-6)


def run(name: str, *, steps: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """A matrix of 8,192 values that learns a least-squares target from noisy gradients."""
    torch.manual_seed(0)
    target = torch.randn(64, 128)
    parameter = nn.Parameter(torch.zeros(64, 128, dtype=dtype))
    groups = [{"params": [parameter], "lr": 1.0, "peak": 1.0, "weight_decay": 0.0}]
    optimizer = OPTIMIZERS[name](groups, Finetuned())
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 0.05 * (1 - step / steps)
        noise = 0.1 * torch.randn(64, 128)
        parameter.grad = (parameter.detach().float() - target + noise).to(dtype)
        optimizer.step()
    return (parameter.detach().float() - target).norm() / target.norm()


def test_eight_bits_do_about_as_well_as_thirty_two() -> None:
    full, eight = run("adamw", steps=200), run("adamw-8bit", steps=200)
    assert full < 0.05
    assert eight < 1.2 * full


def test_adafactor_leaves_zero_at_once() -> None:
    """As LoRA's B must; a learning rate relative to the parameter's size would keep it there."""
    assert run("adafactor", steps=200) < 0.05


def states(name: str, shape: tuple[int, ...], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    parameter = nn.Parameter(torch.randn(shape).to(dtype))
    optimizer = OPTIMIZERS[name]([{"params": [parameter], "weight_decay": 0.1}], Finetuned())
    parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    found = optimizer.state[parameter].items()
    return {key: value for key, value in found if isinstance(value, torch.Tensor)}


def test_what_optimizers_keep() -> None:
    """Bytes per parameter: the point of having more than one."""

    def kept(name: str, dtype: torch.dtype = torch.float32) -> int:
        return sum(t.nbytes for t in states(name, (64, 128), dtype).values() if t.ndim)

    count = 64 * 128
    assert kept("adamw") == 8 * count
    assert kept("adamw", torch.bfloat16) == 4 * count
    assert kept("sgd") == 0
    assert kept("momentum") == 4 * count
    assert kept("lion") == 4 * count
    assert kept("lion", torch.bfloat16) == 2 * count
    assert kept("adafactor") == 4 * (64 + 128)
    assert kept("adamw-8bit") == 2 * count + 2 * 4 * count // 256 + 2 * 4 * 256


def test_paged_states_need_a_gpu() -> None:
    groups = [{"params": [nn.Parameter(torch.zeros(4))], "weight_decay": 0.0}]
    with pytest.raises(ResourceError, match="between a GPU and the host, and the device is cpu"):
        OPTIMIZERS["paged-adamw-8bit"](groups, Finetuned())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("name", "factor"), [("sgd", 0.0), ("momentum", 0.9)])
def test_descent_is_that_of_the_textbook_in_every_dtype(
    name: str, factor: float, dtype: torch.dtype
) -> None:
    """Against float64, on enough values for vector instructions."""
    torch.manual_seed(0)
    parameter = nn.Parameter(torch.randn(50, 20).to(dtype))
    value, velocity = parameter.detach().double(), torch.zeros(50, 20, dtype=torch.float64)
    groups = [{"params": [parameter], "lr": 0.1, "weight_decay": 0.1}]
    optimizer = OPTIMIZERS[name](groups, Finetuned())
    for _ in range(5):
        parameter.grad = torch.randn(50, 20).to(dtype)
        optimizer.step()
        velocity = factor * velocity + parameter.grad.double() + 0.1 * value
        value = value - 0.1 * velocity
    precision = 1e-6 if dtype == torch.float32 else 0.03
    assert (parameter.double() - value).abs().max() <= precision * value.abs().max()
