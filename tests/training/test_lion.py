"""Lion against algorithm 2 of its paper, step by step in float64."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fitune.training.lion import Lion


@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-6), (torch.bfloat16, 2**-7)])
def test_the_algorithm(dtype: torch.dtype, error: float) -> None:
    """Each step from where the last one ended, so that rounding does not add up."""
    torch.manual_seed(0)
    parameter = nn.Parameter(torch.randn(20, 30).to(dtype))
    optimizer = Lion([{"params": [parameter]}], lr=0.1, betas=(0.8, 0.95), weight_decay=0.3)
    momentum = torch.zeros(20, 30, dtype=torch.float64)
    for _ in range(20):
        value = parameter.detach().double()
        parameter.grad = torch.randn(20, 30).to(dtype)
        optimizer.step()
        gradient = parameter.grad.double()
        mixed = 0.8 * momentum + 0.2 * gradient
        expected = value - 0.1 * (torch.sign(mixed) + 0.3 * value)
        wrong = (parameter.double() - expected).abs() > error * expected.abs().max()
        assert (mixed[wrong].abs() <= error / 10).all()  # rounding may turn such a sign
        assert wrong.double().mean() < 0.01
        kept = optimizer.state[parameter]["exp_avg"]
        assert kept.dtype == dtype
        momentum = 0.95 * momentum + 0.05 * gradient
        assert (kept.double() - momentum).norm() <= error * momentum.norm()
        momentum = kept.double()


def test_what_has_no_gradient_stays() -> None:
    parameter = nn.Parameter(torch.ones(2))
    optimizer = Lion([{"params": [parameter]}], lr=0.1, weight_decay=0.5)
    optimizer.step()
    assert torch.equal(parameter, torch.ones(2)) and not optimizer.state


def test_bitsandbytes_does_the_same() -> None:
    bitsandbytes = pytest.importorskip("bitsandbytes")
    torch.manual_seed(0)
    start, results = torch.randn(64, 64), []
    gradients = [torch.randn(64, 64) for _ in range(5)]
    for make in (Lion, bitsandbytes.optim.Lion32bit):
        parameter = nn.Parameter(start.clone())
        optimizer = make([{"params": [parameter]}], lr=0.01, betas=(0.9, 0.99), weight_decay=0.1)
        for gradient in gradients:
            parameter.grad = gradient.clone()
            optimizer.step()
        results.append(parameter.detach())
    assert torch.allclose(*results, atol=1e-6)
