"""How likely a language model finds the learned tokens of each row.

Knows language models and batches; knows nothing of losses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional

from fitune.data.batches import Batch
from fitune.training.objectives.head import head_inputs


def log_probs(model: Any, batch: Batch, counts: Sequence[int], **options: Any) -> torch.Tensor:
    """``[rows]`` float32: the log-probability of each row's targets, summed.

    The output head runs on the hidden states of learned tokens only. Each target's log-probability
    is put in its place and the places are summed: added up by an index, their order on a GPU would
    change from run to run, and a resumed run with it.

    Args:
        model: a language model of transformers, causal or masked.
        counts: targets of each row; those of the first row come first.
        options: handed to the model.
    """
    given = (
        {"position_ids": batch.position_ids}
        if batch.packed
        else {"attention_mask": batch.attention_mask}
    )
    with head_inputs(model, batch.positions):
        logits = model(input_ids=batch.input_ids, **given, **options).logits
    each = -functional.cross_entropy(logits[0].float(), batch.targets, reduction="none")
    width = max(counts)
    places = [i * width + at for i, count in enumerate(counts) for at in range(count)]
    placed = each.new_zeros(len(counts) * width).index_copy(
        0, torch.tensor(places, dtype=torch.int64, device=each.device), each
    )
    return placed.view(len(counts), width).sum(dim=1)
