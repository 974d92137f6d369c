"""How much of a budget tensors may take.

Knows what allocators and libraries take besides live tensors; knows nothing of models.
"""

from __future__ import annotations

from fitune.memory.cuda import UNCERTAINTY, outside_allocator, workspace_bytes
from fitune.memory.options import Device

CPU_FIXED = 96 << 20
"""Bytes: matrix libraries' scratch space and compiled kernels, threads' stacks and small blocks,
which no tensor of an estimate accounts for. Measured, where large blocks are mapped by themselves
(`fitune.malloc`): 35 to 70 MiB of resident memory, and up to 95 MiB with what is only reserved,
which a hard limit counts, too."""

CPU_SHARE = 0.04
"""Of the rest: what is lost to whole pages (about 1 %), and what an estimate may be wrong by."""


def live_bytes(budget: int, device: Device, capability: tuple[int, int] | None = None) -> int:
    """The most bytes of live tensors that fit into `budget` bytes; never less than 0.

    Args:
        capability: of a CUDA device; None: an unknown one.
    """
    if device == "cuda":
        known = capability or (8, 0)
        apart = sum(outside_allocator(known).values()) + workspace_bytes(known)
        return max(0, int((budget - apart) / (1 + UNCERTAINTY["reserved"])))
    return max(0, int((budget - CPU_FIXED) / (1 + CPU_SHARE)))
