"""One label per row.

Knows a classifier's logits; knows nothing of tokens that are written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional

from fitune.data.batches import Batch, label_batch
from fitune.data.template import Encoded


class Classify:
    """Cross-entropy of one label per row.

    Args:
        items: encoded rows.
        labels: the index of each row's label.
        label_smoothing: weight moved from the label to all labels alike (Szegedy et al.,
            arXiv:1512.00567, section 7).
    """

    def __init__(
        self, items: Sequence[Encoded], labels: Sequence[int], *, pad: int, label_smoothing: float
    ) -> None:
        self.items, self.labels, self.pad = items, labels, pad
        self.label_smoothing = label_smoothing

    def batch(self, rows: Sequence[int]) -> Batch:
        return label_batch(
            [self.items[i] for i in rows], [self.labels[i] for i in rows], rows, self.pad
        )

    def loss_sum(self, model: Any, batch: Batch) -> torch.Tensor:
        """`model` maps ``(input_ids, attention_mask)`` to logits ``[rows, labels]``."""
        logits = model(batch.input_ids, batch.attention_mask)
        return functional.cross_entropy(
            logits.float(), batch.targets, reduction="sum", label_smoothing=self.label_smoothing
        )
