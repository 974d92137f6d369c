"""Recipes of common operations, taken from torch's own kernels for tensors without values.

Knows which operations' shapes and strides are the same on the CPU as on the meta device; knows
nothing of models or bytes. A fake tensor finds the same out, and asks much else before: the
thousand operations that a model asks of it for the first time took a quarter of an estimate.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor, unset_fake_temporarily

from fitune.memory.recipes import Made, Recipe

_aten = torch.ops.aten

_VIEWS = {
    _aten.view.default,
    _aten._unsafe_view.default,
    _aten.t.default,
    _aten.transpose.int,
    _aten.permute.default,
    _aten.unsqueeze.default,
    _aten.squeeze.dim,
    _aten.expand.default,
    _aten.select.int,
    _aten.split.Tensor,
    _aten.split_with_sizes.default,
    _aten.detach.default,
}
_NEW = {
    _aten._to_copy.default,
    _aten.clone.default,
    _aten.add.Tensor,
    _aten.sub.Tensor,
    _aten.mul.Tensor,
    _aten.div.Tensor,
    _aten.neg.default,
    _aten.pow.Tensor_Scalar,
    _aten.rsqrt.default,
    _aten.sigmoid.default,
    _aten.silu.default,
    _aten.sum.dim_IntList,
    _aten.mean.dim,
    _aten.linalg_vector_norm.default,
    _aten.mm.default,
    _aten.bmm.default,
    _aten.addmm.default,
    _aten.cat.default,
}
_IN_PLACE = {
    _aten.add_.Tensor,
    _aten.mul_.Tensor,
    _aten.div_.Tensor,
    _aten.copy_.default,
    _aten.zero_.default,
    _aten.fill_.Scalar,
}

DIRECT = _VIEWS | _NEW | _IN_PLACE
"""The operations."""


def direct_recipe(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Recipe | None:
    """The recipe of an operation of `DIRECT` on plain tensors (`recipes.is_plain`); None where
    torch has to be asked in its own way."""
    if "device" in kwargs or "out" in kwargs:
        return None
    with unset_fake_temporarily():
        result = func(*(_bare(each) for each in args), **kwargs)
    if func in _IN_PLACE:
        return Recipe("itself")
    several = next((kind for kind in (tuple, list) if isinstance(result, kind)), None)
    tensors = result if several else (result,)
    made = tuple(
        Made(tuple(t.shape), t.stride(), t.dtype, int(t.storage_offset())) for t in tensors
    )
    return Recipe("view" if func in _VIEWS else "new", made, several)


def _bare(value: Any) -> Any:
    if isinstance(value, FakeTensor):
        return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")
    if isinstance(value, list | tuple):
        return type(value)(map(_bare, value))
    return value
