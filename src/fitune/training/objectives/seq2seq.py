"""Answers, given inputs that another half of the model reads.

Knows sequence-to-sequence language models.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional

from fitune.data.batches import Batch, answer_batch
from fitune.data.template import Encoded
from fitune.training.objectives.head import head_inputs


class Seq2Seq:
    """Cross-entropy of each token of an answer given the input and the tokens before it.

    Args:
        items: encoded inputs.
        answers: the token ids of each answer, its end included.
    """

    packed = False

    def __init__(
        self,
        items: Sequence[Encoded],
        answers: Sequence[Sequence[int]],
        *,
        pad: int,
        label_smoothing: float = 0.0,
    ) -> None:
        self.items, self.answers, self.pad = items, answers, pad
        self.label_smoothing = label_smoothing

    def batch(self, rows: Sequence[int]) -> Batch:
        return answer_batch(
            [self.items[i] for i in rows], [self.answers[i] for i in rows], rows, self.pad
        )

    def loss_sum(self, model: Any, batch: Batch) -> torch.Tensor:
        """`model` is a sequence-to-sequence language model of transformers; for its output head see
        `Sft`."""
        inputs = model.prepare_decoder_input_ids_from_labels(labels=batch.answers)
        with head_inputs(model, batch.positions):
            logits = model(
                input_ids=batch.input_ids,
                attention_mask=batch.attention_mask,
                decoder_input_ids=inputs,
                use_cache=False,
            ).logits
        return functional.cross_entropy(
            logits[0].float(),
            batch.targets,
            reduction="sum",
            label_smoothing=self.label_smoothing,
        )
