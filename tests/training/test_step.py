"""The step: clipping, its report, and that it runs where only shapes exist."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from fitune.data.batches import Batch
from fitune.training.methods import trainable_parameters
from fitune.training.packing import rows_apart
from fitune.training.step import step
from training_kit import Kit


def take(kit: Kit, optimizer: torch.optim.Optimizer, clip: float) -> tuple[float, float]:
    parts = [kit.objective.batch(range(8))]
    result = step(kit.model, kit.objective, optimizer, parts, clip=clip, autocast=None)
    return float(result.loss), float(result.grad_norm)


def test_the_update_is_clipped_to_the_limit(kit: Callable[..., Kit]) -> None:
    made = kit(random_b=True, optimizer="sgd", weight_decay=0.0)
    before = {n: p.detach().clone() for n, p in trainable_parameters(made.model).items()}
    _, norm = take(made, made.optimizer_at(1.0), clip=0.01)
    assert norm > 0.01, "the norm is the one before clipping"
    moved = torch.cat(
        [(p - before[n]).flatten() for n, p in trainable_parameters(made.model).items()]
    )
    assert moved.norm().item() == pytest.approx(0.01, rel=1e-3)


def test_the_loss_is_that_before_the_update(kit: Callable[..., Kit]) -> None:
    made = kit(random_b=True, optimizer="sgd")
    batch = made.objective.batch(range(8))
    with torch.no_grad(), rows_apart(made.model, batch):
        expected = float(made.objective.loss_sum(made.model, batch)) / batch.learned
    loss, _ = take(made, made.optimizer_at(1.0), clip=1.0)
    assert loss == pytest.approx(expected, rel=1e-6)


def test_gradients_do_not_outlive_the_step(kit: Callable[..., Kit]) -> None:
    made = kit()
    take(made, made.optimizer(), clip=1.0)
    assert all(p.grad is None for p in made.model.parameters())


def test_seeds_fix_dropout_part_by_part(kit: Callable[..., Kit]) -> None:
    losses = []
    for seed in (1, 1, 2):
        made = kit(random_b=True, lora_dropout=0.5)
        made.model.train()
        parts = [made.objective.batch(range(4)), made.objective.batch(range(4, 8))]
        result = step(
            made.model,
            made.objective,
            made.optimizer(),
            parts,
            clip=1.0,
            autocast=None,
            seed=seed,
        )
        losses.append(float(result.loss))
    assert losses[0] == losses[1] != losses[2]


def test_two_steps_run_on_fake_tensors() -> None:
    """No value is read on the way: memory can be traced through this very function."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from fitune.training.objectives import Sft

    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
    )
    with FakeTensorMode(allow_non_fake_inputs=False):
        model = LlamaForCausalLM(config)
        model.train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        batch = Batch(
            input_ids=torch.zeros(2, 16, dtype=torch.int64),
            attention_mask=torch.ones(2, 16, dtype=torch.int64),
            targets=torch.zeros(5, dtype=torch.int64),
            positions=torch.zeros(5, dtype=torch.int64),
            tokens=32,
            rows=(0, 1),
        )
        for _ in range(2):
            step(model, Sft([], pad=0), optimizer, [batch, batch], clip=1.0, autocast=None)
        assert all(optimizer.state[p]["exp_avg"].shape == p.shape for p in model.parameters())
