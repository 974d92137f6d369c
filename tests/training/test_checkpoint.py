"""Checkpoints: every optimizer goes on from one exactly as if it had never stopped."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fitune.data.batches import Order
from fitune.training.checkpoint import load_checkpoint, restore, save_checkpoint
from fitune.training.methods import trainable_parameters
from fitune.training.optim import OPTIMIZERS
from fitune.training.step import step
from training_kit import Kit

ANYWHERE = [name for name in OPTIMIZERS if name != "paged-adamw-8bit"]


def take(kit: Kit, optimizer: torch.optim.Optimizer, steps: range) -> None:
    batches = Order(kit.lengths, 8, 0).epoch(0)
    for number in steps:
        part = kit.objective.batch(batches[number])
        step(kit.model, kit.objective, optimizer, [part], clip=1.0, autocast=None)


def states(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    return [optimizer.state[p] for group in optimizer.param_groups for p in group["params"]]


@pytest.mark.parametrize("dtype", ["fp32", "pure-bf16"])
@pytest.mark.parametrize("name", ANYWHERE)
def test_states_come_back_to_the_bit(
    kit: Callable[..., Kit], tmp_path: Path, name: str, dtype: str
) -> None:
    """Three steps, a checkpoint, a new model and optimizer, two more: as five at a stretch."""

    def make() -> tuple[Kit, torch.optim.Optimizer]:
        # The embeddings have enough values for 8 bits, the norms too few.
        made = kit(method="full", optimizer=name, dtype=dtype)
        if dtype == "pure-bf16":
            made.model.bfloat16()
        return made, made.optimizer_at(1e-2)

    whole, optimizer = make()
    take(whole, optimizer, range(3))
    parameters = trainable_parameters(whole.model)
    save_checkpoint(tmp_path, 3, parameters, optimizer, {})
    other, fresh = make()
    checkpoint = load_checkpoint(tmp_path)
    assert checkpoint is not None
    restore(checkpoint, trainable_parameters(other.model), fresh)
    for old, new in zip(states(optimizer), states(fresh), strict=True):
        assert old.keys() == new.keys()
        for key, value in old.items():
            if isinstance(value, torch.Tensor):
                assert value.dtype == new[key].dtype and torch.equal(value, new[key]), key
            else:
                assert value == new[key] and type(value) is type(new[key]), key
    take(whole, optimizer, range(3, 5))
    take(other, fresh, range(3, 5))
    for key, value in trainable_parameters(other.model).items():
        assert torch.equal(value, parameters[key]), key


def test_code_books_are_saved_and_held_once(kit: Callable[..., Kit], tmp_path: Path) -> None:
    made = kit(method="full", optimizer="adamw-8bit")
    made.model.requires_grad_(True)
    optimizer = made.optimizer_at(1e-2)
    take(made, optimizer, range(1))
    save_checkpoint(tmp_path, 1, trainable_parameters(made.model), optimizer, {})
    checkpoint = load_checkpoint(tmp_path)
    assert checkpoint is not None
    assert len([key for key in checkpoint.optimizer if key.endswith("qmap1")]) == 1
    fresh = made.optimizer_at(1e-2)
    restore(checkpoint, trainable_parameters(made.model), fresh)
    books = {state["qmap1"].data_ptr() for state in states(fresh) if "qmap1" in state}
    assert len(books) == 1
    assert len([state for state in states(fresh) if "qmap1" in state]) > 1


def test_numbers_are_plain_json(kit: Callable[..., Kit], tmp_path: Path) -> None:
    made = kit(method="lora", optimizer="adafactor")
    optimizer = made.optimizer_at(1e-2)
    take(made, optimizer, range(2))
    save_checkpoint(tmp_path, 2, trainable_parameters(made.model), optimizer, {})
    numbers = json.loads((tmp_path / "step-00000002" / "numbers.json").read_text())
    assert numbers and set(numbers.values()) == {2}
