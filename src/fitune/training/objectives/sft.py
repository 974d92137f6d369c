"""Learned tokens, each given those before it.

Knows causal language models.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional

from fitune.data.batches import Batch, token_batch
from fitune.data.template import Encoded
from fitune.training.objectives.head import head_inputs


class Sft:
    """Cross-entropy of each learned token given those before it (supervised fine-tuning)."""

    def __init__(self, items: Sequence[Encoded], *, pad: int, label_smoothing: float = 0.0) -> None:
        self.items, self.pad, self.label_smoothing = items, pad, label_smoothing

    def batch(self, rows: Sequence[int]) -> Batch:
        return token_batch([self.items[i] for i in rows], rows, self.pad)

    def loss_sum(self, model: Any, batch: Batch) -> torch.Tensor:
        """`model` is a causal language model of transformers.

        The output head runs on the hidden states of learned tokens only, so the logits are
        ``[learned, vocabulary]`` and never ``[rows, tokens, vocabulary]``.
        """
        with head_inputs(model, batch.positions):
            logits = model(
                input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False
            ).logits
        return functional.cross_entropy(
            logits[0].float(),
            batch.targets,
            reduction="sum",
            label_smoothing=self.label_smoothing,
        )
