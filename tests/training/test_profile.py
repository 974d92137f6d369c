"""A profile: its figures are those of the steps that were taken."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from fitune.data.batches import Order, micro_batches
from fitune.errors import ResourceError
from fitune.training import profile as profiles
from fitune.training.flops import find_products, step_flops
from fitune.training.loop import Settings
from fitune.training.matrix_limit import MatrixLimit, matrix_limit
from fitune.training.operations import KINDS
from fitune.training.profile import PHASES, UNDER_PROFILER, WARM_UP, Profile, measure_steps
from training_kit import Kit

LIMIT = MatrixLimit(1e9, "float32", (8, 8, 8))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiles, "matrix_limit", lambda dtype, device: LIMIT)


def measure(made: Kit, steps: int, told: list[tuple[int, int]] | None = None) -> Profile:
    products = find_products(made.model, made.objective, made.objective.batch([0]))
    seen = told if told is not None else []
    with made.fused():
        return measure_steps(
            made.model,
            made.objective,
            made.optimizer(),
            Settings(made.options, made.lengths, None, "cpu", 0, "any"),
            steps=steps,
            products=products,
            compute=torch.float32,
            progress=lambda label, done, total: seen.append((done, total)),
        )


def test_the_figures_are_those_of_the_first_steps(kit: Callable[..., Kit]) -> None:
    made = kit(rows=40, method="lora", micro_batch_tokens=200)
    told: list[tuple[int, int]] = []
    found = measure(made, 2, told)
    order = Order(made.lengths, 8, 0)
    batches = order.epoch(0)[WARM_UP : WARM_UP + 2]
    rows = [row for batch in batches for row in batch]
    assert (found.steps, found.rows, found.steps_per_epoch) == (2, 8, 5)
    assert found.tokens == sum(made.lengths[row] for row in rows) / 2
    assert found.micro_batches > 1 and found.padding == 0 < found.shared
    assert found.shared + found.positions == found.tokens
    plain = kit(rows=40, method="lora")
    products = find_products(plain.model, plain.objective, plain.objective.batch([0]))
    parts = [
        plain.objective.batch(part)
        for batch in batches
        for part in micro_batches(batch, plain.lengths, 200, packed=True)
    ]
    assert found.flops.total == step_flops(products, parts).total / 2
    assert tuple(found.phases) == PHASES and tuple(found.kinds) == KINDS
    assert sum(found.phases.values()) == pytest.approx(found.seconds)
    assert all(seconds > 0 for seconds in found.phases.values())
    assert found.phases["forward"] + found.phases["backward"] > found.seconds / 3
    assert sum(found.kinds.values()) == pytest.approx(1)
    assert found.utilisation == pytest.approx(found.flops.total / found.seconds / 1e9)
    total = WARM_UP + 2 + min(2, UNDER_PROFILER)
    assert told == [(done + 1, total) for done in range(total)]
    record = found.to_json()
    assert record["tokens_per_second"] == found.tokens / found.seconds
    assert record["flops"]["total"] == found.flops.total


def test_an_epoch_of_fewer_steps_begins_again(kit: Callable[..., Kit]) -> None:
    found = measure(kit(rows=8), 3)
    assert (found.steps, found.steps_per_epoch) == (3, 1)


def test_padding_is_told(kit: Callable[..., Kit]) -> None:
    found = measure(kit(rows=40, packing=False), 1)
    assert 0.05 < found.padding < 0.9
    assert found.positions == pytest.approx(found.tokens / (1 - found.padding))


def test_memory_that_runs_out_is_one_sentence(
    kit: Callable[..., Kit], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = kit(rows=8)
    loss_sum = made.objective.loss_sum

    def nothing_fits(model: Any, batch: Any) -> Any:
        if model.training:
            raise MemoryError
        return loss_sum(model, batch)

    monkeypatch.setattr(made.objective, "loss_sum", nothing_fits)
    with pytest.raises(ResourceError, match=r"with micro-batches of 4,096 tokens"):
        measure(made, 1)


def test_the_limit_is_the_fastest_product() -> None:
    found = matrix_limit(torch.float32, shapes=((64, 64, 64), (256, 256, 256)), seconds=0.02)
    assert found.dtype == "float32" and found.flops_per_second > 1e8
    assert found.shape in ((64, 64, 64), (256, 256, 256))
