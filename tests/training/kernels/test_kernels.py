"""Each kernel against the operations it stands for, values and gradients in float64."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from fitune.training.kernels import head_loss
from fitune.training.kernels.gated import ACTIVATIONS, gated
from fitune.training.kernels.head_loss import head_loss_sum
from fitune.training.kernels.lora import Joined, lora_outputs
from fitune.training.kernels.norms import rms_norm


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=random, dtype=torch.float64).requires_grad_()


@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_a_norm_is_torchs(offset: float) -> None:
    x, weight = draw(2, 3, 8), draw(8, seed=1)
    twin, twin_weight = x.detach().clone().requires_grad_(), weight.detach().clone()
    twin_weight.requires_grad_()
    found = rms_norm(x, weight, 1e-5, offset)
    expected = functional.rms_norm(twin, (8,), twin_weight + offset, 1e-5)
    torch.testing.assert_close(found, expected)
    found.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(x.grad, twin.grad)
    torch.testing.assert_close(weight.grad, twin_weight.grad)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_a_gated_layer(name: str) -> None:
    gate, value = draw(3, 5), draw(3, 5, seed=1)
    activate, _ = ACTIVATIONS[name]
    torch.testing.assert_close(gated(gate, value, name), activate(gate) * value)
    assert torch.autograd.gradcheck(lambda g, v: gated(g, v, name), (gate, value))


def test_joined_adapters() -> None:
    x, weights, biases = draw(2, 3, 6), draw(7, 6, seed=1).detach(), draw(7, seed=2).detach()
    downs, ups = [draw(2, 6, seed=3), draw(1, 6, seed=4)], [draw(4, 2, seed=5), draw(3, 1, seed=6)]

    def joined(*given: torch.Tensor) -> tuple[torch.Tensor, ...]:
        with_room = torch.cat([weights, torch.zeros(3, 6, dtype=torch.float64)])
        both = Joined(
            sizes=(4, 3),
            ranks=(2, 1),
            scale=0.5,
            downs=with_room[7:],
            ups=torch.zeros(7, 3, dtype=torch.float64),
            bias=biases,
            weights=with_room,
        )
        for room, adapter in zip(both.rooms(), given[1:], strict=True):
            room.copy_(adapter.detach())
        return lora_outputs(given[0], both, given[1:3], given[3:])

    def apart(*given: torch.Tensor) -> list[torch.Tensor]:
        return [
            functional.linear(given[0], weight, bias) + 0.5 * (given[0] @ down.T) @ up.T
            for weight, bias, down, up in zip(
                weights.split((4, 3)), biases.split((4, 3)), given[1:3], given[3:], strict=True
            )
        ]

    for found, expected in zip(joined(x, *downs, *ups), apart(x, *downs, *ups), strict=True):
        torch.testing.assert_close(found, expected)
    assert torch.autograd.gradcheck(joined, (x, *downs, *ups))


@pytest.mark.parametrize("chunk", [1, 10, 1000])
def test_the_loss_of_a_head(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_loss, "CHUNK_VALUES", chunk * 5)
    hidden, weight, bias = draw(7, 4), draw(5, 4, seed=1), draw(5, seed=2)
    targets = torch.tensor([0, 4, 2, 2, 1, 3, 0])

    def composed(*given: torch.Tensor) -> torch.Tensor:
        logits = functional.linear(*given)
        return functional.cross_entropy(logits, targets, reduction="sum")

    found = head_loss_sum(hidden, weight, bias, targets)
    expected = composed(hidden, weight, bias)
    torch.testing.assert_close(found, expected)
    (3 * found).backward()
    wanted = torch.autograd.grad(3 * expected, (hidden, weight, bias))
    for tensor, gradient in zip((hidden, weight, bias), wanted, strict=True):
        torch.testing.assert_close(tensor.grad, gradient)


def test_the_loss_is_finite_where_a_target_is_all_but_impossible() -> None:
    weight = torch.eye(3, dtype=torch.bfloat16) * 200
    hidden = torch.eye(3, dtype=torch.bfloat16)[:1].requires_grad_()
    loss = head_loss_sum(hidden, weight, None, torch.tensor([1]))
    assert float(loss.detach()) == pytest.approx(200.0)
    loss.backward()
    assert hidden.grad is not None and bool(hidden.grad.isfinite().all())
