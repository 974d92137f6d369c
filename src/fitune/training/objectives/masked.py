"""Hidden tokens, each given those around it.

Knows masked language models.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from fitune.data.batches import Batch, token_batch
from fitune.data.template import Encoded, Reason
from fitune.training.objectives.head import head_inputs

HIDDEN = 0.15
"""Of the tokens of a row."""

MASK, RANDOM = 0.8, 0.1
"""Of the hidden tokens, those that the mask stands for and those that any other token stands for;
the rest stays as it is, but must be told all the same."""


class Masked:
    """Cross-entropy of hidden tokens given the others (Devlin et al., arXiv:1810.04805, section
    3.1), hidden anew in each epoch (Liu et al., arXiv:1907.11692, section 4.1).

    What is hidden in a row is a function of (seed, epoch, row), so neither resuming nor how a batch
    is cut changes it.

    Args:
        items: rows; tokens whose reason is TEXT can be hidden, and each row has one.
        mask: the mask's token.
        words: the tokens that may stand in for a hidden one: all that are not special.
        fixed: hide the same tokens in every epoch, for rows that are only looked at.
    """

    packed = False

    def __init__(
        self,
        items: Sequence[Encoded],
        *,
        pad: int,
        mask: int,
        words: Sequence[int],
        seed: int,
        label_smoothing: float = 0.0,
        fixed: bool = False,
    ) -> None:
        self.items, self.pad, self.mask, self.seed = items, pad, mask, seed
        self.label_smoothing = label_smoothing
        self.words, self.fixed = np.asarray(words), fixed
        self._epoch = 0

    def begin_epoch(self, epoch: int) -> None:
        """Batches from here on are of this epoch."""
        self._epoch = 0 if self.fixed else epoch

    def hide(self, row: int) -> tuple[list[int], list[int]]:
        """The row's tokens as the model sees them, and where tokens are hidden, in order."""
        item = self.items[row]
        random = np.random.default_rng([self.seed, self._epoch, row])
        text = [i for i, reason in enumerate(item.reasons) if reason is Reason.TEXT]
        count = max(1, round(HIDDEN * len(text)))
        hidden = sorted(random.choice(text, count, replace=False).tolist())
        tokens = list(item.tokens)
        for at, chance in zip(hidden, random.random(count), strict=True):
            if chance < MASK:
                tokens[at] = self.mask
            elif chance < MASK + RANDOM:
                tokens[at] = int(random.choice(self.words))
        return tokens, hidden

    def batch(self, rows: Sequence[int]) -> Batch:
        """With `positions` where the hidden tokens stand, and them as `targets`, row by row."""
        seen = [self.hide(row) for row in rows]
        items = [
            Encoded(tuple(tokens), self.items[row].reasons)
            for row, (tokens, _) in zip(rows, seen, strict=True)
        ]
        plain = token_batch(items, rows, self.pad)
        width = plain.input_ids.shape[1]
        pairs = [
            (i * width + at, self.items[row].tokens[at])
            for i, (row, (_, hidden)) in enumerate(zip(rows, seen, strict=True))
            for at in hidden
        ]
        positions, targets = torch.tensor(pairs, dtype=torch.int64).unbind(1)
        return Batch(
            plain.input_ids, plain.attention_mask, targets, positions, plain.tokens, tuple(rows)
        )

    def loss_sum(self, model: Any, batch: Batch) -> torch.Tensor:
        """`model` is a masked language model of transformers; the last layer of its head runs on
        the hidden tokens only."""
        with head_inputs(model, batch.positions):
            logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
        return functional.cross_entropy(
            logits[0].float(),
            batch.targets,
            reduction="sum",
            label_smoothing=self.label_smoothing,
        )
