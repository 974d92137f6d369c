"""One label per row.

Knows a classifier's logits; knows nothing of tokens that are written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from fitune.data.batches import Batch, label_batch
from fitune.data.template import Encoded


@dataclass(frozen=True)
class WeightedBatch(Batch):
    """Rows that do not all count the same.

    Attributes:
        weight: the sum of the rows' weights, by which the step divides.
    """

    weight: float = 0.0

    @property
    def learned(self) -> float:  # type: ignore[override]  # a sum of weights is no whole number
        return self.weight


class Classify:
    """Cross-entropy of one label per row.

    Args:
        items: encoded rows.
        labels: the index of each row's label.
        label_smoothing: weight moved from the label to all labels alike (Szegedy et al.,
            arXiv:1512.00567, section 7).
        weights: of each label, as torch's `cross_entropy` has them: the mean over a global batch is
            weighted by the sum of its rows' weights. None: all weigh the same.
    """

    packed = False

    def __init__(
        self,
        items: Sequence[Encoded],
        labels: Sequence[int],
        *,
        pad: int,
        label_smoothing: float,
        weights: Sequence[float] | None = None,
    ) -> None:
        self.items, self.labels, self.pad = items, labels, pad
        self.label_smoothing = label_smoothing
        self.weights = weights

    def batch(self, rows: Sequence[int]) -> Batch:
        labels = [self.labels[i] for i in rows]
        batch = label_batch([self.items[i] for i in rows], labels, rows, self.pad)
        if self.weights is None:
            return batch
        return WeightedBatch(**vars(batch), weight=sum(self.weights[label] for label in labels))

    def loss_sum(self, model: Any, batch: Batch) -> torch.Tensor:
        """`model` maps ``(input_ids, attention_mask)`` to logits ``[rows, labels]``."""
        logits = model(batch.input_ids, batch.attention_mask).float()
        weight = None if self.weights is None else logits.new_tensor(self.weights)
        return functional.cross_entropy(
            logits,
            batch.targets,
            weight=weight,
            reduction="sum",
            label_smoothing=self.label_smoothing,
        )
