"""How fast this machine multiplies matrices: measured, and so what a training step is held against.

Knows torch; knows nothing of models.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

Shape = tuple[int, int, int]
"""Rows, inputs and outputs of a product."""

SHAPES: tuple[Shape, ...] = ((2048, 2048, 2048), (1024, 1024, 1024))
"""The smaller one stays in more caches, and is less often interrupted by other work."""


@dataclass(frozen=True)
class MatrixLimit:
    """The fastest product found.

    Attributes:
        flops_per_second: a multiplication and an addition count as two.
        dtype: of the matrices, ``"bfloat16"``.
        shape: of the product.
    """

    flops_per_second: float
    dtype: str
    shape: Shape


def matrix_limit(
    dtype: torch.dtype,
    device: str = "cpu",
    *,
    shapes: Sequence[Shape] = SHAPES,
    seconds: float = 1.0,
) -> MatrixLimit:
    """The fastest of many products of these shapes: the machine's limit is meant, and not what
    else it does in the meantime.

    Args:
        shapes: each is tried; on some processors smaller products are the faster ones.
        seconds: to spend, about; each shape is tried three times at least.
    """
    found = [_fastest(shape, dtype, device, seconds / len(shapes)) for shape in shapes]
    best = max(range(len(shapes)), key=found.__getitem__)
    return MatrixLimit(found[best], str(dtype).removeprefix("torch."), shapes[best])


def _fastest(shape: Shape, dtype: torch.dtype, device: str, seconds: float) -> float:
    rows, inputs, outputs = shape
    left = torch.randn(rows, inputs, device=device).to(dtype)
    right = torch.randn(outputs, inputs, device=device).to(dtype)
    best, tries = 0.0, 0
    end = time.perf_counter() + seconds
    while tries < 4 or time.perf_counter() < end:
        started = time.perf_counter()
        torch.mm(left, right.T)
        if device != "cpu":
            torch.cuda.synchronize()
        taken = time.perf_counter() - started
        if tries:  # the first one makes ready
            best = max(best, 2 * rows * inputs * outputs / taken)
        tries += 1
    return best
