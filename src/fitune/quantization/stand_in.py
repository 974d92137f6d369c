"""Layers with the bytes of four-bit ones and none of their values, where only memory counts.

bitsandbytes hands raw addresses to compiled code, so its layers run neither on fake tensors nor
without the package. These hold tensors of the same sizes and take, forward and backward, the same
tensors for the same time. Knows bitsandbytes' layer (0.50: `Linear4bit`, `MatMul4Bit` and the
default kernel of `gemm_4bit`); knows nothing of adapters or traces. A test holds them against the
real layers, byte by byte.

On a CUDA device the same tensors come and go, with one difference: where few tokens are multiplied,
a fused kernel does so without restoring the weight in the forward pass (the backward pass restores
it all the same).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from fitune.quantization.weights import BLOCK, NESTED_BLOCK, features_of, replace_linear_layers

NF4_VALUES, DYNAMIC_VALUES = 16, 256
"""Sizes of the two code books that each layer has a copy of."""


class StandInLinear4bit(nn.Linear):
    """In the place of bitsandbytes' `Linear4bit` with NF4 and double quantization.

    Args:
        source_dtype: of the weight before it was quantized, in which the backward pass restores it.
        compute_dtype: of matrix products.
    """

    absmax: torch.Tensor
    offset: torch.Tensor

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: bool,
        source_dtype: torch.dtype,
        compute_dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        nn.Module.__init__(self)  # and not that of nn.Linear, which makes a weight
        self.in_features, self.out_features = in_features, out_features
        self.source_dtype, self.compute_dtype = source_dtype, compute_dtype
        weights = in_features * out_features
        blocks = -(-weights // BLOCK)

        def hold(name: str, *shape: int, dtype: torch.dtype = torch.float32) -> None:
            self.register_buffer(name, torch.zeros(shape, dtype=dtype, device=device), False)

        packed = torch.zeros((-(-weights // 2), 1), dtype=torch.uint8, device=device)
        self.weight = nn.Parameter(packed, requires_grad=False)
        hold("absmax", blocks, dtype=torch.uint8)
        hold("code", NF4_VALUES)
        hold("offset")
        hold("nested_absmax", -(-blocks // NESTED_BLOCK))
        hold("nested_code", DYNAMIC_VALUES)
        held = torch.zeros(out_features, dtype=compute_dtype, device=device)
        self.register_parameter("bias", nn.Parameter(held, False) if bias else None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[..., in_features]`` → ``[..., out_features]``, in the dtype of `x`."""
        given = x.dtype
        x = x.to(self.compute_dtype)  # held to the end
        return _Product.apply(x, self).to(given)

    def scales(self) -> torch.Tensor:
        """What the dequantized scales take: ``[blocks]`` float32."""
        return torch.empty_like(self.absmax, dtype=torch.float32)

    def restored(self, dtype: torch.dtype) -> torch.Tensor:
        """What the dequantized weight takes: ``[out_features, in_features]``."""
        shape = (self.out_features, self.in_features)
        return torch.empty(shape, dtype=dtype, device=self.weight.device)


class _Product(torch.autograd.Function):
    """Nothing is saved for the backward pass but what the layer holds anyway."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, layer: StandInLinear4bit) -> torch.Tensor:
        ctx.layer = layer
        scales = layer.scales() + layer.offset  # noqa: F841  (held until the product is done)
        weight = layer.restored(x.dtype)
        return functional.linear(x, weight, layer.bias)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        scales = ctx.layer.scales()
        weight = ctx.layer.restored(ctx.layer.source_dtype)
        del scales  # not held any longer than it takes to restore the weight
        weight = weight.to(gradient.dtype)
        return torch.matmul(gradient, weight), None


def stand_in_linear_layers(model: Any, *, compute_dtype: torch.dtype) -> Any:
    """As `quantize_linear_layers`, with stand-ins, on the device where the weights are.

    Args:
        model: a transformers model, on the meta device for instance; it is changed.

    Raises:
        ModelError: no layer can be quantized.
    """

    def make(layer: Any) -> nn.Module:
        inputs, outputs = features_of(layer)
        made = StandInLinear4bit(
            inputs,
            outputs,
            bias=layer.bias is not None,
            source_dtype=layer.weight.dtype,
            compute_dtype=compute_dtype,
            device=layer.weight.device,
        )
        return made.train(layer.training)

    return replace_linear_layers(model, make)
