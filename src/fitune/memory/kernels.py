"""What kernels allocate between their ends.

Knows the inside of torch's CPU kernels; knows nothing of models. A tracker of operations sees what
goes into one and what comes out of it, and misses what is made and freed in between.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from fitune.memory.storages import Allocation, LiveStorages

SCRATCH: dict[Any, Callable[[torch.Tensor], int]] = {
    torch.ops.aten._safe_softmax.default: lambda weights: (
        weights.numel() + weights.numel() // max(1, weights.shape[-1]) + weights.element_size()
    ),
}
"""Operation → bytes, from its result. *Safe softmax*: a boolean mask of the scores that are -inf,
one of the rows that are nothing else, and a zero to put there
(``aten/src/ATen/native/transformers/attention.cpp``); attention comes to it where no fused kernel
fits, as when keys and values differ in size (multi-head latent attention)."""


class ThoroughStorages(LiveStorages):
    """As `LiveStorages`, and notes what kernels allocate in between, too."""

    def after(self, func: Any, result: Any, args: tuple[Any, ...] = ()) -> None:
        super().after(func, result, args)
        scratch = SCRATCH.get(func)
        if scratch is None:
            return
        phase, module, recomputed = self._where()
        self._moment += 1
        self.allocations.append(
            Allocation(
                bytes=scratch(result),
                start=self._moment,
                phase=phase,
                round=self._round,
                module=module,
                operation=str(func),
                recomputed=recomputed,
                end=self._moment,
            )
        )
