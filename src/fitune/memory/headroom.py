"""How much of a budget tensors may take.

Knows what allocators and libraries take besides live tensors; knows nothing of models.
"""

from __future__ import annotations

from fitune.memory.cuda import UNCERTAINTY, outside_allocator, workspace_bytes
from fitune.memory.options import Device

CPU_FIXED = {"fp32": 48 << 20, "bf16": 96 << 20}
"""Bytes: matrix libraries' scratch space and compiled kernels, threads' stacks and small blocks,
which no tensor of an estimate accounts for. Products in bf16 reorder whole matrices in a scratch
space that is kept. Measured under a hard limit, where large blocks are mapped by themselves
(`fitune.malloc`): fp32 10 to 35 MiB, bf16 60 to 95 MiB."""

CPU_SHARE = {"fp32": 0.005, "bf16": 0.02}
"""Of the rest: what an estimate may be wrong by (at worst 0.41 % in the published grid), and in
bf16 the scratch space of longer products: with 0.005, a step of 30,000 tokens needed more than the
119 MiB that were left above its tensors. In fp32 what is above them does not grow."""


def live_bytes(
    budget: int,
    device: Device,
    capability: tuple[int, int] | None = None,
    *,
    dtype: str = "bf16",
) -> int:
    """The most bytes of live tensors that fit into `budget` bytes; never less than 0.

    Args:
        capability: of a CUDA device; None: an unknown one.
        dtype: of training, as in a task file.
    """
    if device == "cuda":
        known = capability or (8, 0)
        apart = sum(outside_allocator(known).values()) + workspace_bytes(known)
        return max(0, int((budget - apart) / (1 + UNCERTAINTY["reserved"])))
    computed = "fp32" if dtype == "fp32" else "bf16"
    return max(0, int((budget - CPU_FIXED[computed]) / (1 + CPU_SHARE[computed])))
