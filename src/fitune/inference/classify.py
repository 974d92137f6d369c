"""Logits of a classifier for many rows.

Knows classifiers and token ids; knows nothing of labels' names or of losses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from fitune.data.batches import label_batch, micro_batches
from fitune.data.template import Encoded

BATCH_TOKENS = 4096
"""Most tokens, padding included, in one forward pass."""


def classify(
    model: Any,
    items: Sequence[Encoded],
    *,
    pad: int,
    device: str,
    progress: Callable[[int, int], None] | None = None,
    autocast: torch.dtype | None = None,
) -> np.ndarray:
    """Logits ``[rows, labels]`` float32, in the order of `items`.

    Args:
        autocast: the dtype of matrix products; None for the weights' own, which answers are
            computed in: an answer should not depend on which rows it was computed beside beyond
            float32's rounding.
    """
    model.eval()
    lengths = [len(item) for item in items]
    result: np.ndarray | None = None
    done = 0
    faster = torch.autocast(device, dtype=autocast, enabled=autocast is not None)
    with torch.inference_mode(), faster:
        for rows in micro_batches(range(len(items)), lengths, BATCH_TOKENS):
            batch = label_batch([items[i] for i in rows], [0] * len(rows), rows, pad).to(device)
            logits = model(batch.input_ids, batch.attention_mask).float().cpu().numpy()
            if result is None:
                result = np.empty((len(items), logits.shape[1]), dtype=np.float32)
            result[list(rows)] = logits
            done += len(rows)
            if progress:
                progress(done, len(items))
    return result if result is not None else np.empty((0, 0), dtype=np.float32)
