"""Tensors that have a size and no values.

Knows torch's meta and fake tensors.
"""

from __future__ import annotations

import sys

import torch


def has_values(tensor: torch.Tensor) -> bool:
    """Whether anything can be computed with it; else only sizes matter."""
    # Not imported here: that takes a second and tens of megabytes, and where nobody has imported
    # it, no tensor is fake.
    fake = sys.modules.get("torch._subclasses.fake_tensor")
    return not (tensor.is_meta or (fake is not None and isinstance(tensor, fake.FakeTensor)))
