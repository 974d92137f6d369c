"""What the C library does with memory that is freed.

Knows glibc's malloc; knows nothing of tensors. All of it is for the whole process, and does nothing
where the C library is not glibc.

glibc cuts small blocks from a heap that only grows, and asks the kernel for a mapping of its own
for each large one. The heap is fast, but torch asks for aligned blocks, and the hole that one
leaves is too small for the next of the same size: measured in training, the heap grew to between
1.4 and 6 times of what was alive at once. Mappings are exact, but come as fresh pages that the
kernel fills with zeros first: a training step takes a tenth to a third longer.
"""

from __future__ import annotations

import ctypes
import sys

FRAGMENTED = 6
"""What the heap may grow to, times what is alive at once."""

LARGE = 1 << 18
"""Bytes of a block that gets a mapping of its own where memory is scarce."""


def has_plenty(needed: int, budget: int) -> bool:
    """Whether the heap may grow as it does: `needed` bytes alive at once, of `budget` there are."""
    return FRAGMENTED * needed <= budget


def prepare_for_training(needed: int, budget: int) -> None:
    """Let freed memory be kept for the next step where there is room for it, else be exact.

    Args:
        needed: bytes alive at once.
        budget: bytes there are.
    """
    if has_plenty(needed, budget):
        keep_freed_memory()
    else:
        map_large_blocks()


def keep_freed_memory() -> None:
    """Keep what is freed in the heap for the next step: fast."""
    if (libc := _glibc()) is not None:
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        libc.mallopt(_M_TOP_PAD, 1 << 28)


def map_large_blocks() -> None:
    """Map each large block by itself and give it back when it is freed: exact."""
    if (libc := _glibc()) is not None:
        libc.mallopt(_M_MMAP_MAX, 1 << 16)
        libc.mallopt(_M_MMAP_THRESHOLD, LARGE)  # said once, it no longer adapts to what is freed
        libc.mallopt(_M_TRIM_THRESHOLD, LARGE)
        libc.mallopt(_M_TOP_PAD, LARGE)
        libc.malloc_trim(0)


def return_freed_memory() -> None:
    """Give what is freed back to the system now, so that the next measurement does not count it."""
    if (libc := _glibc()) is not None:
        libc.malloc_trim(0)


# Of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -2, -3, -4


def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None
