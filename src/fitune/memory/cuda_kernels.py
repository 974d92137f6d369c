"""What CUDA's kernels keep for the backward pass where a CPU's keep something else.

Knows torch's functions; knows nothing of models. A CUDA build of torch is not needed, and fake CUDA
tensors do not work without one: on CPU tensors, functions are exchanged for those with the shapes
and dtypes that CUDA's have. Attention needs no exchange: fused attention keeps queries, keys,
values, output and one float32 a row and head on both (Dao, arXiv:2307.08691, section 3.1).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode


class CudaKernels(TorchFunctionMode):
    """While active, as a context manager: dropout keeps one byte a value, and autocast computes
    in float32 what it does so on CUDA."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        exchanged = _EXCHANGED.get(func)
        return (exchanged or func)(*args, **(kwargs or {}))


def _dropout(
    input: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> torch.Tensor:
    """CUDA's fused dropout keeps its mask as booleans; a CPU keeps it in the input's dtype."""
    return torch.native_dropout(input, p, training)[0] if training and p > 0 else input


def _in_float32(function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """`function` as CUDA's autocast calls it (torch's documentation of automatic mixed precision,
    "CUDA Ops that can autocast to float32")."""

    def call(input: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        narrow = input.dtype in (torch.bfloat16, torch.float16)
        if torch.is_autocast_enabled("cpu") and narrow:
            input = input.float()
        return function(input, *args, **kwargs)

    return call


_EXCHANGED: dict[Any, Callable[..., torch.Tensor]] = {
    functional.dropout: _dropout,
    torch.dropout: _dropout,
    **{
        function: _in_float32(function)
        for function in (
            functional.layer_norm,
            functional.softmax,
            functional.log_softmax,
            functional.cross_entropy,
            torch.softmax,
            torch.log_softmax,
            torch.Tensor.softmax,
            torch.rsqrt,
            torch.pow,
            torch.Tensor.pow,
            torch.cumsum,
        )
    },
}
