"""Steps whose loss or gradient is no finite number: which rows do it, and when to stop.

Knows objectives; knows nothing of the loop.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from typing import Any

import torch

from fitune.errors import TrainingError
from fitune.training.objectives import Objective
from fitune.training.packing import rows_apart

MOST_IN_A_ROW = 5
"""Updates left out one after the other, before training stops: a single row may overflow, and the
next batches are sound; but where weights have diverged, no batch is."""

NAMED = 3
"""Rows that a message names."""


def left_out(step: int, loss: float, norm: float) -> str:
    """What is said of one step."""
    return f"step {step:,} changed nothing: its loss is {loss} and its gradient norm {norm}"


def diverged(
    model: Any,
    objective: Objective,
    rows: Sequence[int],
    *,
    step: int,
    learning_rate: float,
    sources: Sequence[str],
    device: str,
    autocast: torch.dtype | None,
) -> TrainingError:
    """The error that ends training.

    Args:
        rows: of the last global batch; those whose own loss is not finite are named.
        sources: where each row of the data set was read; empty where nobody knows.
    """
    guilty = [row for row in rows if not _is_finite(model, objective, row, device, autocast)]
    if len(guilty) in (0, len(rows)):
        who = "for every row of the batch" if guilty else "though each row's loss is finite"
    else:
        named = [sources[row] if sources else f"row {row}" for row in guilty[:NAMED]]
        more = f" and {len(guilty) - NAMED} more" if len(guilty) > NAMED else ""
        who = f"for {', '.join(named)}{more}"
    return TrainingError(
        f"at step {step:,} the loss or its gradient is no finite number, {who}, and it was the "
        f"{MOST_IN_A_ROW}th step in a row: training diverged",
        fix=f"lower learning_rate (now {learning_rate:g}), set dtype: fp32, or look at these rows",
    )


def _is_finite(
    model: Any, objective: Objective, row: int, device: str, autocast: torch.dtype | None
) -> bool:
    batch = objective.batch([row]).to(device)
    faster: Any = torch.autocast(device, dtype=autocast) if autocast else contextlib.nullcontext()
    with torch.no_grad(), rows_apart(model, batch), faster:
        return math.isfinite(float(objective.loss_sum(model, batch)))
