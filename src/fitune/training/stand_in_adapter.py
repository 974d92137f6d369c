"""The adapter of `qlora` on four-bit layers that are stand-ins.

Knows PEFT's adapter on bitsandbytes' `Linear4bit` (0.21), which is there only with bitsandbytes,
and takes the same tensors for the same time; knows nothing of the layer below. Importing PEFT
imports bitsandbytes: call `import_bitsandbytes` before.
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import nn


class StandInLora4bit(nn.Module, LoraLayer):
    """In the place of PEFT's adapter on a `Linear4bit`, which is there only with bitsandbytes.

    Attributes:
        casts_input: whether inputs are cast to the adapter's dtype; None: as PEFT decides.
    """

    active_adapters: list[str]
    base_layer: nn.Module
    lora_A: nn.ModuleDict
    lora_B: nn.ModuleDict
    lora_dropout: nn.ModuleDict
    scaling: dict[str, float]

    def __init__(
        self,
        base_layer: nn.Module,
        adapter_name: str,
        config: Any,
        r: int = 0,
        lora_alpha: int = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        LoraLayer.__init__(self, base_layer)
        self.fan_in_fan_out = False
        self.casts_input: bool | None = None
        self._active_adapter = adapter_name
        LoraLayer.update_layer(self, adapter_name, r, lora_alpha=lora_alpha, config=config)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[..., in_features]`` → ``[..., out_features]``, in the dtype of `x`."""
        result = self.base_layer(x)
        result = result.clone()
        (name,) = self.active_adapters
        reads: Any = self.lora_A[name]
        writes: Any = self.lora_B[name]
        # PEFT asks whether autocast is on without saying where: that means on CUDA.
        casts = not torch.is_autocast_enabled() if self.casts_input is None else self.casts_input
        if casts:
            x = LoraLayer._cast_input_dtype(self, x, reads.weight.dtype)
        added = writes(reads(self.lora_dropout[name](x))) * self.scaling[name]
        if casts:
            added = added.to(result.dtype)
        return result + added
