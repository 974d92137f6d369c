"""A key-value cache in 8 or 4 bits, kept by the rules of transformers' `QuantizedCache`.

Knows transformers' cache layers; knows nothing of models or estimates. A quantizer of its own, in
plain torch, takes the place of the packages that transformers calls, so that it runs on fake
tensors, too; it rounds to the nearest and searches no better scales. Layers with a window, which
transformers refuses to quantize, are kept by the same rules.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch.nn import functional as F
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from fitune.memory.kv_cache import GROUP, RESIDUAL


class Quantized(NamedTuple):
    """A tensor in few bits.

    Attributes:
        packed: uint8; two numbers a byte where they have 4 bits.
        scale, zero: one a group, in the dtype of the tensor.
        shape: of the tensor.
    """

    packed: torch.Tensor
    scale: torch.Tensor
    zero: torch.Tensor
    shape: torch.Size


def quantize(tensor: torch.Tensor, bits: int) -> Quantized:
    """Each group of `GROUP` neighbours, from its least to its greatest, in ``2 ** bits`` steps."""
    groups = F.pad(tensor.reshape(-1), (0, -tensor.numel() % GROUP)).view(-1, GROUP).float()
    least = groups.amin(dim=1, keepdim=True)
    scale = ((groups.amax(dim=1, keepdim=True) - least) / (2**bits - 1)).clamp_(min=1e-8)
    steps = (groups - least).div_(scale).round_().to(torch.uint8)
    if bits == 4:
        steps = steps[:, 0::2] | (steps[:, 1::2] << 4)
    return Quantized(steps, scale.to(tensor.dtype), least.to(tensor.dtype), tensor.shape)


def dequantize(quantized: Quantized, bits: int) -> torch.Tensor:
    steps = quantized.packed
    if bits == 4:
        steps = torch.stack([steps & 15, steps >> 4], dim=-1).flatten(1)
    numbers = steps.to(quantized.scale.dtype).mul_(quantized.scale).add_(quantized.zero)
    return numbers.flatten()[: quantized.shape.numel()].view(quantized.shape)


class QuantizedLayer(DynamicLayer):
    """Older tokens quantized, the latest as they are: at most `RESIDUAL` - 1, then all are
    quantized anew.

    Args:
        bits: 8 or 4.
        window: most tokens a query may look back on, itself included; None: all.
    """

    is_croppable = False
    keys: Any
    values: Any

    def __init__(self, bits: int, window: int | None = None) -> None:
        super().__init__()
        self.bits = bits
        self.window = window
        self.is_sliding = window is not None
        self.seen = 0
        self.older: tuple[Quantized, Quantized] | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keep these, too; returns all that the new queries may look back on.

        Args:
            key_states, value_states: ``[rows, heads, new tokens, size]``.
        """
        self.seen += key_states.shape[-2]
        if self.older is None:
            self.lazy_initialization(key_states, value_states)
            keys, values = key_states, value_states
            self._quantize(keys, values)
            return keys, values
        keys = torch.cat([dequantize(self.older[0], self.bits), self.keys, key_states], dim=-2)
        values = torch.cat(
            [dequantize(self.older[1], self.bits), self.values, value_states], dim=-2
        )
        latest = self.keys.shape[-2] if self.keys.ndim == 4 else 0
        if latest + key_states.shape[-2] >= RESIDUAL:
            self._quantize(keys, values)
        else:
            self.keys = torch.cat([self.keys, key_states], dim=-2)
            self.values = torch.cat([self.values, value_states], dim=-2)
        if self.window is not None:
            visible = self.window - 1 + key_states.shape[-2]
            return keys[..., -visible:, :], values[..., -visible:, :]
        return keys, values

    def _quantize(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        if self.window is not None:
            keys, values = (kept[..., -self.window + 1 :, :] for kept in (keys, values))
        self.older = (quantize(keys, self.bits), quantize(values, self.bits))
        self.keys = self.values = keys.new_empty(0)

    def get_seq_length(self) -> int:
        return self.seen

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """How many tokens `update` will return, and the position of the first."""
        offset = 0 if self.window is None else max(self.seen - self.window + 1, 0)
        return self.seen - offset + query_length, offset

    def get_max_length(self) -> int:
        return -1 if self.window is None else self.window


def quantized_cache(config: Any, bits: int) -> DynamicCache:
    """An empty cache for a decoder, whose layers of keys and values are quantized."""
    cache = DynamicCache(config=config)
    for index, layer in enumerate(cache.layers):
        if type(layer) is DynamicLayer:
            cache.layers[index] = QuantizedLayer(bits)
        elif type(layer) is DynamicSlidingWindowLayer:
            cache.layers[index] = QuantizedLayer(bits, layer.sliding_window)
    return cache
