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


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_one_update_by_hand(name: str) -> None:
    """Two updates with gradients 3 and -1 at learning rate 0.1, decay 0.5, in float64."""
    parameter = nn.Parameter(torch.tensor([[2.0]], dtype=torch.float64))
    groups = [{"params": [parameter], "lr": 0.1, "peak": 0.1, "weight_decay": 0.5}]
    optimizer = OPTIMIZERS[name](groups, Finetuned())
    value, first, second, velocity = 2.0, 0.0, 0.0, 0.0
    for t, gradient in enumerate([3.0, -1.0], start=1):
        parameter.grad = torch.tensor([[gradient]], dtype=torch.float64)
        optimizer.step()
        if name == "adamw":
            first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
            step = (first / (1 - 0.9**t)) / (math.sqrt(second / (1 - 0.999**t)) + 1e-8)
            value = value * (1 - 0.1 * 0.5) - 0.1 * step
        else:
            total = gradient + 0.5 * value
            velocity = 0.9 * velocity + total if name == "momentum" and t > 1 else total
            value -= 0.1 * velocity
    assert parameter.item() == pytest.approx(value, rel=1e-6)
