"""Promise: loss and gradients are those that plain transformers and PEFT compute."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fitune.data.batches import Order, micro_batches
from fitune.training.methods import trainable_parameters
from fitune.training.step import step
from training_kit import Kit


def reference_batch(kit: Kit, rows: list[int]) -> dict[str, torch.Tensor]:
    """Rows as transformers' own collators lay them out: labels beside tokens, -100 where masked."""
    items = [kit.items[i] for i in rows]
    width = max(map(len, items))
    pad = kit.tokenizer.pad_token_id

    def padded(values: list[list[int]], fill: int) -> torch.Tensor:
        return torch.tensor([row + [fill] * (width - len(row)) for row in values])

    return {
        "input_ids": padded([list(item.tokens) for item in items], pad),
        "attention_mask": padded([[1] * len(item) for item in items], 0),
        "labels": padded(
            [
                [t if yes else -100 for t, yes in zip(item.tokens, item.learned, strict=True)]
                for item in items
            ],
            -100,
        ),
    }


@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_loss_curve_is_that_of_the_transformers_trainer(
    kit: Callable[..., Kit], tmp_path: Path, method: str
) -> None:
    """Thirty steps of `transformers.Trainer` on the same batches, weights and schedule."""
    from transformers import Trainer, TrainingArguments

    made = kit(method=method, rows=80, epochs=3.0, clip=1.0, weight_decay=0.0, random_b=True)
    reference = copy.deepcopy(made.model)
    order = Order(made.lengths, 8, 0)
    batches = [reference_batch(made, rows) for epoch in range(3) for rows in order.epoch(epoch)]

    class Same(Trainer):
        def get_train_dataloader(self) -> Any:
            return batches

    arguments = TrainingArguments(
        output_dir=str(tmp_path / "reference"),
        max_steps=len(batches),
        learning_rate=made.options.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=0,
        max_grad_norm=1.0,
        weight_decay=0.0,
        optim="adamw_torch",
        logging_steps=1,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
        seed=0,
    )
    trainer = Same(model=reference, args=arguments)
    trainer.train()
    expected = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]

    made.train(tmp_path)
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    measured = [record["loss"] for record in records if record["kind"] == "train"]
    assert len(measured) == len(expected) == 30
    assert measured[-1] < measured[0] - 0.2, "the run must learn, or equal curves prove nothing"
    # The Trainer logs rounded losses; 1e-3 is the promise.
    assert measured == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("after", [0, 3])
def test_gradients_equal_float64(kit: Callable[..., Kit], method: str, after: int) -> None:
    """Per tensor, at the start and after three updates, with B random so that A is not hidden."""
    made = kit(method=method, random_b=True, optimizer="sgd", learning_rate=0.05)
    for group in (optimizer := made.optimizer()).param_groups:
        group["lr"] = 0.05
    assert made.objective.packed
    batches = Order(made.lengths, 8, 0).epoch(0)
    with made.fused():
        for rows in batches[:after]:
            step(
                made.model,
                made.objective,
                optimizer,
                [made.objective.batch(rows)],
                clip=1e9,
                autocast=None,
            )
    rows = batches[after]
    double = copy.deepcopy(made.model).double()
    double(**reference_batch(made, rows)).loss.backward()

    captured: dict[str, torch.Tensor] = {}
    parameters = trainable_parameters(made.model)

    class Capture(torch.optim.SGD):
        def step(self, closure: Any = None) -> None:
            captured.update({n: p.grad.clone() for n, p in parameters.items()})

    parts = [
        made.objective.batch(part)
        for part in micro_batches(rows, made.lengths, max_tokens=100, packed=True)
    ]
    assert len(parts) > 2 and any(part.shared for part in parts)
    with made.fused():
        parameters = trainable_parameters(made.model)
        step(
            made.model,
            made.objective,
            Capture(parameters.values(), lr=0.0),
            parts,
            clip=1e9,
            autocast=None,
        )
    expected = {n: p.grad for n, p in trainable_parameters(double).items()}
    assert captured.keys() == expected.keys()
    for name, truth in expected.items():
        assert truth.norm() > 0, f"{name} has no gradient: nothing is compared"
        error = (captured[name].double() - truth).norm() / truth.norm()
        assert error <= 1e-4, f"{name}: relative error {error:.2e}"
