"""What kernels allocate between their ends, against the allocator's account."""

from __future__ import annotations

import pytest
import torch

from fitune.memory.kernels import ThoroughStorages
from fitune.memory.measure import allocator_peak
from fitune.memory.storages import moments


class SafeSoftmax(torch.nn.Module):
    def forward(self, scores: torch.Tensor) -> torch.Tensor:
        return torch.ops.aten._safe_softmax.default(scores, -1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_safe_softmax(dtype: torch.dtype) -> None:
    scores = torch.randn(4, 8, 96, 96, dtype=dtype)
    model = SafeSoftmax()
    storages = ThoroughStorages(model)
    with storages, storages.phase("forward"):
        model(scores)
    masks = 4 * 8 * 96 * 96 + 4 * 8 * 96  # a byte each
    above = max(moments(storages.allocations))
    assert (
        above
        == allocator_peak(lambda: model(scores))
        == scores.nbytes + masks + scores.element_size()
    )
