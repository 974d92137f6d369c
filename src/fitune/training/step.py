"""One optimizer step on one global batch.

Knows the model, the objective, the optimizer and the batch's parts; knows nothing of files, epochs
or evaluation. It runs on fake tensors, too, where only shapes and bytes exist.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from fitune.data.batches import Batch
from fitune.training.fake import has_values
from fitune.training.objectives import Objective
from fitune.training.packing import rows_apart


@dataclass(frozen=True)
class StepResult:
    """What a step measured, as tensors, so that reading them is the caller's choice.

    Attributes:
        loss: mean over the global batch's learned targets, float32 scalar.
        grad_norm: of all gradients together, before clipping, float32 scalar.
        updated: whether the weights changed: not where one of these is no finite number.
    """

    loss: torch.Tensor
    grad_norm: torch.Tensor
    updated: bool


class OutOfMemory(Exception):
    """There was not enough memory for a forward or backward pass; no weight has changed yet."""


def step(
    model: nn.Module | Any,
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    parts: Sequence[Batch],
    *,
    clip: float,
    autocast: torch.dtype | None,
    seed: int | None = None,
) -> StepResult:
    """Forward and backward over all parts, then one update.

    Each part's summed loss is divided by the number of learned targets of the *global* batch, so
    how the batch was cut changes the update by rounding only.

    Args:
        parts: the global batch, cut into micro-batches on the model's device.
        clip: the largest norm of all gradients together.
        autocast: the dtype of matrix products; None for the weights' own.
        seed: fixes the random numbers of this step (dropout), part by part; None where the model
            draws none. With dropout, cutting a batch otherwise changes which numbers a row meets.

    Raises:
        OutOfMemory: before the update, which so can be tried again in smaller parts.
    """
    learned = sum(part.learned for part in parts)
    total: torch.Tensor | None = None
    for index, part in enumerate(parts):
        if seed is not None:
            torch.manual_seed(seed + index)
        context: Any = (
            torch.autocast(part.input_ids.device.type, dtype=autocast)
            if autocast is not None
            else contextlib.nullcontext()
        )
        try:
            with rows_apart(model, part):
                with context:
                    loss = objective.loss_sum(model, part) / learned
                loss.backward()
        except (MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
            optimizer.zero_grad(set_to_none=True)
            raise OutOfMemory from error
        total = loss.detach() if total is None else total + loss.detach()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    norm = torch.nn.utils.clip_grad_norm_(parameters, clip)
    assert total is not None, "a global batch has at least one part"
    updated = not has_values(norm) or bool(torch.isfinite(norm) & torch.isfinite(total))
    if updated:
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return StepResult(loss=total, grad_norm=norm, updated=updated)


def _is_out_of_memory(error: BaseException) -> bool:
    """torch's CPU allocator raises a plain RuntimeError."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        "can't allocate memory" in str(error) or "not enough memory" in str(error)
    )
