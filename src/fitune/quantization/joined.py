"""Four-bit layers that read the same input, restored at once.

Knows bitsandbytes' layers and their stand-ins; knows nothing of adapters or of products.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from fitune.models.quiet import import_bitsandbytes
from fitune.quantization.stand_in import StandInLinear4bit
from fitune.quantization.weights import BLOCK


def can_be_joined(layer: Any, compute: torch.dtype) -> bool:
    """Whether it is as `quantize_linear_layers` makes it for products in `compute`, or a stand-in.

    Blocks must end where rows end: then the layers' bytes, one after the other, are those of one
    layer.
    """
    if getattr(layer, "compute_dtype", None) != compute or layer.in_features % BLOCK:
        return False
    if isinstance(layer, StandInLinear4bit):
        return True
    state = getattr(layer.weight, "quant_state", None)
    return (
        state is not None
        and (state.quant_type, state.blocksize, state.nested) == ("nf4", BLOCK, True)
        and layer.weight.dtype == torch.uint8
        # Such a layer's bytes may be reordered when it answers.
        and not layer.support_avx512bf16_for_cpu
    )


class JoinedLayers:
    """The weights of several layers, which are moved into one tensor: none is held twice.

    Args:
        layers: for which `can_be_joined` holds, with the same number of inputs.
    """

    def __init__(self, layers: Sequence[Any]) -> None:
        self._layers = tuple(layers)
        self._shape = (sum(layer.out_features for layer in layers), layers[0].in_features)
        self._dtype = layers[0].compute_dtype
        sizes = [len(layer.weight) for layer in layers]
        self._packed = layers[0].weight.data.new_empty((sum(sizes), 1))
        for layer, part in zip(layers, self._packed.split(sizes), strict=True):
            layer.weight.data = part.copy_(layer.weight.data)

    def restored(self) -> torch.Tensor:
        """All weights, one below the other: ``[outputs, inputs]`` in the dtype of products."""
        scales = torch.cat([_scales(layer) for layer in self._layers])
        if isinstance(self._layers[0], StandInLinear4bit):
            return scales.new_empty(self._shape, dtype=self._dtype)
        functional = import_bitsandbytes().functional
        state = functional.QuantState(
            absmax=scales,
            shape=torch.Size(self._shape),
            blocksize=BLOCK,
            quant_type="nf4",
            dtype=self._dtype,
        )
        return functional.dequantize_4bit(self._packed, state)

    def separate(self) -> None:
        """Give each layer its weight back."""
        for layer in self._layers:
            layer.weight.data = layer.weight.data.clone()


def _scales(layer: Any) -> torch.Tensor:
    """The largest value of each block: ``[blocks]`` float32. Restored each time: kept, they would
    be an eighth of the layer's bytes."""
    if isinstance(layer, StandInLinear4bit):
        return layer.scales()
    state = layer.weight.quant_state
    scales = import_bitsandbytes().functional.dequantize_blockwise(state.absmax, state.state2)
    return scales.add_(state.offset)
