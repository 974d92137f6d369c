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
from fitune.training.objectives.head import head_as_loss, head_inputs


class Sft:
    """Cross-entropy of each learned token given those before it (supervised fine-tuning).

    Args:
        packed: rows are laid end to end; the caller sees to it that they read only themselves
            (`training.packing`).
        shared: what packed rows all begin with stands before them once.
        fused: the loss and its gradient are computed with the output head, chunk by chunk, so that
            the logits of all tokens are never there at once; for models whose head is the last they
            do (`head.head_is_last`), and without label smoothing.
    """

    def __init__(
        self,
        items: Sequence[Encoded],
        *,
        pad: int,
        label_smoothing: float = 0.0,
        packed: bool = False,
        shared: bool = False,
        fused: bool = False,
    ) -> None:
        self.items, self.pad, self.label_smoothing = items, pad, label_smoothing
        self.packed, self.shared = packed, shared
        self._fused = fused and not label_smoothing

    def batch(self, rows: Sequence[int]) -> Batch:
        items = [self.items[i] for i in rows]
        return token_batch(items, rows, self.pad, packed=self.packed, shared=self.shared)

    def loss_sum(self, model: Any, batch: Batch) -> torch.Tensor:
        """`model` is a causal language model of transformers.

        The output head runs on the hidden states of learned tokens only, so the logits are
        ``[learned, vocabulary]`` at most and never ``[rows, tokens, vocabulary]``.
        """
        given = (
            {"position_ids": batch.position_ids}
            if batch.packed
            else {"attention_mask": batch.attention_mask}
        )
        if self._fused:
            with head_as_loss(model, batch.positions, batch.targets):
                output = model(input_ids=batch.input_ids, use_cache=False, **given)
            return output.logits.sum()
        with head_inputs(model, batch.positions):
            logits = model(input_ids=batch.input_ids, use_cache=False, **given).logits
        return functional.cross_entropy(
            logits[0].float(),
            batch.targets,
            reduction="sum",
            label_smoothing=self.label_smoothing,
        )
