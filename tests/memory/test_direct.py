"""What meta kernels say of shapes and strides is what torch's own fake tensors say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

from fitune.memory.direct import DIRECT, direct_recipe

aten = torch.ops.aten
DTYPES = (torch.float32, torch.bfloat16)

Drawn = tuple[torch.Tensor, list[Any], dict[str, Any]]


def like(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_strided(x.shape, x.stride(), dtype=x.dtype)


def last(x: torch.Tensor) -> torch.Tensor:
    """Broadcast along all dimensions but the last."""
    return torch.empty(x.shape[-1], dtype=torch.float32)


def product(x: torch.Tensor) -> torch.Tensor:
    return x.reshape(-1, x.shape[-1])


# operation → its arguments for a tensor of three dimensions, dense or transposed
CALLS: dict[Any, Callable[[torch.Tensor], tuple[list[Any], dict[str, Any]]]] = {
    aten.view.default: lambda x: ([x.contiguous(), [-1, x.shape[-1]]], {}),
    aten._unsafe_view.default: lambda x: ([x.contiguous(), [x.numel()]], {}),
    aten.t.default: lambda x: ([x[0]], {}),
    aten.transpose.int: lambda x: ([x, 0, -1], {}),
    aten.permute.default: lambda x: ([x, [2, 0, 1]], {}),
    aten.unsqueeze.default: lambda x: ([x, 1], {}),
    aten.squeeze.dim: lambda x: ([x[:, :1], 1], {}),
    aten.expand.default: lambda x: ([x[:1], [4, -1, -1]], {}),
    aten.select.int: lambda x: ([x, 1, -1], {}),
    aten.split.Tensor: lambda x: ([x, 2, -1], {}),
    aten.split_with_sizes.default: lambda x: ([x, [1, x.shape[-1] - 1], -1], {}),
    aten.detach.default: lambda x: ([x], {}),
    aten._to_copy.default: lambda x: ([x], {"dtype": torch.float64}),
    aten.clone.default: lambda x: ([x], {"memory_format": torch.contiguous_format}),
    aten.add.Tensor: lambda x: ([x, last(x)], {"alpha": 2}),
    aten.sub.Tensor: lambda x: ([x, x[:, :1]], {}),
    aten.mul.Tensor: lambda x: ([x, last(x)], {}),
    aten.div.Tensor: lambda x: ([x, 3], {}),
    aten.neg.default: lambda x: ([x], {}),
    aten.pow.Tensor_Scalar: lambda x: ([x, 2], {}),
    aten.rsqrt.default: lambda x: ([x], {}),
    aten.sigmoid.default: lambda x: ([x], {}),
    aten.silu.default: lambda x: ([x], {}),
    aten.sum.dim_IntList: lambda x: ([x, [0, 2], True], {"dtype": torch.float32}),
    aten.mean.dim: lambda x: ([x, [-1]], {}),
    aten.linalg_vector_norm.default: lambda x: ([x], {}),
    aten.mm.default: lambda x: ([x[0], x[0].t()], {}),
    aten.bmm.default: lambda x: ([x, x.transpose(1, 2)], {}),
    aten.addmm.default: lambda x: ([x[0, :, 0].contiguous()[None], x[0], x[0].t()], {}),
    aten.cat.default: lambda x: ([[x, x[:, :1]], 1], {}),
    aten.add_.Tensor: lambda x: ([x, last(x)], {}),
    aten.mul_.Tensor: lambda x: ([x, 2.0], {}),
    aten.div_.Tensor: lambda x: ([x, 2.0], {}),
    aten.copy_.default: lambda x: ([x, last(x)], {}),
    aten.zero_.default: lambda x: ([x], {}),
    aten.fill_.Scalar: lambda x: ([x, 1.0], {}),
}


def test_each_operation_is_tried() -> None:
    assert set(CALLS) == DIRECT


@pytest.mark.parametrize("func", CALLS, ids=str)
@given(
    shape=st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(2, 6)),
    order=st.permutations((0, 1, 2)),
    dtype=st.sampled_from(DTYPES),
)
@settings(max_examples=25, deadline=None)
def test_it_says_what_fake_tensors_say(func, shape, order, dtype) -> None:
    with FakeTensorMode():
        # one that begins later than its storage does, of any order of strides
        base = torch.empty((shape[0] + 1, *shape[1:]), dtype=dtype)[1:].permute(order)
        if base.shape[-1] < 2:
            base = base.expand(-1, -1, 2).clone()
        args, kwargs = CALLS[func](base)
        recipe = direct_recipe(func, args, kwargs)
        assert recipe is not None
        first = args[0]
        begin = first.storage_offset() if isinstance(first, torch.Tensor) else 0
        result = func(*args, **kwargs)
    if recipe.kind == "itself":
        assert result is first
        return
    several = isinstance(result, list | tuple)
    assert recipe.several is (type(result) if several else None)
    tensors = result if several else [result]
    assert len(tensors) == len(recipe.made)
    for tensor, made in zip(tensors, recipe.made, strict=True):
        assert (tuple(tensor.shape), tensor.stride(), tensor.dtype) == (
            made.shape,
            made.stride,
            made.dtype,
        )
        shares = tensor.untyped_storage()._cdata == (
            first.untyped_storage()._cdata if isinstance(first, torch.Tensor) else None
        )
        assert shares == (recipe.kind == "view")
        assert tensor.storage_offset() - (begin if shares else 0) == made.offset


@pytest.mark.parametrize("kwargs", [{"device": "cpu"}, {"out": None}])
def test_what_may_be_elsewhere_is_left_to_torch(kwargs) -> None:
    assert direct_recipe(aten._to_copy.default, [torch.empty(2, device="meta")], kwargs) is None
