"""What every objective can do.

Knows batches; knows no objective.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch

from fitune.data.batches import Batch


class Objective(Protocol):
    """Turns rows into batches and batches into a loss."""

    packed: bool
    """Whether rows are laid end to end instead of being padded."""

    def batch(self, rows: Sequence[int]) -> Batch:
        """The rows with these indices."""

    def loss_sum(self, model: Any, batch: Batch) -> torch.Tensor:
        """The summed loss of a batch: a float32 scalar with a gradient."""


@runtime_checkable
class Redrawn(Protocol):
    """What an objective also does whose batches differ from epoch to epoch: a function of the
    epoch, so that a resumed training meets the same."""

    def begin_epoch(self, epoch: int) -> None:
        """Batches from here on are of this epoch, counted from 0."""
