"""In which dtype weights are held and matrices multiplied.

Knows the names of `dtype` in a task file and of methods; knows nothing of models.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

LOW_RANK = ("lora", "dora", "qlora")
"""Methods with two narrow matrices beside a weight."""

FROZEN_BASE = frozenset({*LOW_RANK, "ia3", "prompt-tuning", "prefix-tuning"})
"""Methods that leave every base weight as it is, so that 16 bits are enough to hold it. What trains
must be fp32: an update of 1e-4 vanishes beside a bf16 weight."""


class Precision(NamedTuple):
    """Attributes:
    weights: of the base model's weights.
    autocast: of matrix products; None for the weights' own dtype.
    """

    weights: torch.dtype
    autocast: torch.dtype | None

    @property
    def compute(self) -> torch.dtype:
        """Of matrix products."""
        return self.autocast or self.weights


def precision(dtype: str, method: str, *, decoder: bool) -> Precision:
    """What `dtype` (``"fp32"``, ``"bf16"`` or ``"pure-bf16"``) means for a method.

    An encoder's base stays in fp32 under ``"bf16"``, adapters or not: it is small, and its answers
    are computed in fp32.
    """
    if dtype == "pure-bf16":
        return Precision(torch.bfloat16, None)
    if dtype == "bf16":
        frozen = decoder and method in FROZEN_BASE
        return Precision(torch.bfloat16 if frozen else torch.float32, torch.bfloat16)
    return Precision(torch.float32, None)
