"""What every objective can do.

Knows batches; knows no objective.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch

from fitune.data.batches import Batch


class Objective(Protocol):
    """Turns rows into batches and batches into a loss."""

    def batch(self, rows: Sequence[int]) -> Batch:
        """The rows with these indices, padded."""

    def loss_sum(self, model: Any, batch: Batch) -> torch.Tensor:
        """The summed loss of a batch: a float32 scalar with a gradient."""
