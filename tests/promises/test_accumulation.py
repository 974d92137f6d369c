"""Promise: how a global batch is cut into micro-batches changes the update by rounding only."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fitune.data.batches import micro_batches
from fitune.training.methods import trainable_parameters
from fitune.training.step import step
from training_kit import Kit


def update(kit: Callable[..., Kit], cut: list[list[int]], *, naive: bool = False) -> torch.Tensor:
    """All trainable parameters, flat, after one step on the rows of `cut`, one part each."""
    made = kit(random_b=True, optimizer="sgd")
    optimizer = made.optimizer()
    for group in optimizer.param_groups:
        group["lr"] = 1.0
    if naive:  # the mean of the parts' means: what accumulation must not be
        for rows in cut:
            batch = made.objective.batch(rows)
            (made.objective.loss_sum(made.model, batch) / batch.learned / len(cut)).backward()
        optimizer.step()
    else:
        parts = [made.objective.batch(rows) for rows in cut]
        step(made.model, made.objective, optimizer, parts, clip=1e9, autocast=None)
    return torch.cat([p.detach().flatten() for p in trainable_parameters(made.model).values()])


@given(data=st.data())
@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_cut_gives_the_same_update(kit: Callable[..., Kit], data: st.DataObject) -> None:
    rows = list(range(12))
    whole = update(kit, [rows])
    shuffled = data.draw(st.permutations(rows))
    borders = sorted(data.draw(st.sets(st.integers(1, 11), max_size=5)))
    cut = [shuffled[a:b] for a, b in zip([0, *borders], [*borders, len(rows)], strict=True)]
    torch.testing.assert_close(update(kit, cut), whole, rtol=1e-5, atol=1e-6)


def test_the_mean_of_means_would_not_pass(kit: Callable[..., Kit]) -> None:
    """The check above can fail: the usual accumulation differs far beyond its tolerance."""
    rows = list(range(12))
    cut = [rows[:2], rows[2:]]
    difference = (update(kit, cut, naive=True) - update(kit, [rows])).abs().max()
    assert difference > 1e-3


@pytest.mark.parametrize("tokens", [1, 40, 100, 100_000])
def test_micro_batch_size_does_not_change_a_run(
    kit: Callable[..., Kit], tmp_path: object, tokens: int
) -> None:
    from pathlib import Path

    folder = Path(str(tmp_path))
    base, other = kit(rows=24, epochs=2.0), kit(rows=24, epochs=2.0, micro_batch_tokens=tokens)
    base.train(folder / "base")
    other.train(folder / "other")
    for name, parameter in trainable_parameters(base.model).items():
        # Adam divides by the gradient's size, which lifts rounding where gradients are tiny.
        torch.testing.assert_close(
            trainable_parameters(other.model)[name], parameter, rtol=2e-3, atol=2e-4
        )


def test_cutting_respects_the_token_budget() -> None:
    lengths = [5, 9, 3, 7, 7, 2]
    for part in micro_batches(range(6), lengths, 14):
        assert len(part) * max(lengths[i] for i in part) <= 14
