"""An optimizer with the bytes of an 8-bit one, where only memory counts.

bitsandbytes hands raw addresses to compiled code, so its optimizers do not run on fake tensors.
This one makes states of the same sizes and, as bitsandbytes does on a CPU (0.50), the same
temporary tensors for the same time; a test holds it against the real one, byte by byte. Knows
parameters; learns nothing.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

BLOCK = 256
"""State values that share one scale."""

SMALL = 4096
"""Parameters with fewer values keep their states in fp32."""

PAGED = 100_000
"""Parameters with at least as many values have paged states, where states are paged at all."""

CODE_BOOK = 256


class StandInAdamW8bit(torch.optim.Optimizer):
    """In the place of bitsandbytes' `AdamW8bit` and `PagedAdamW8bit`.

    Attributes:
        paged: whether the states of large parameters lie in memory that the host lends; they are
            then `page_bytes`, and no part of what a device's allocator hands out.
        fused: whether one kernel updates a parameter, without temporary tensors, as on CUDA (where
            paged states always are).
    """

    def __init__(self, groups: Any, *, paged: bool = False) -> None:
        super().__init__(groups, {"lr": 1.0, "weight_decay": 0.0})
        self.paged = paged
        self.fused = paged
        self.page_bytes = 0
        self._code_books: tuple[torch.Tensor, ...] = ()

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    self._fill(state, parameter)
                if not self.fused:
                    update = _update_fp32 if parameter.numel() < SMALL else _update_8bit
                    update(parameter, state)

    def _fill(self, state: dict[str, Any], parameter: torch.Tensor) -> None:
        count = parameter.numel()
        dtype = torch.float32 if count < SMALL else torch.uint8
        if self.paged and count >= PAGED:
            self.page_bytes += 2 * count
        else:
            state["state1"] = torch.zeros_like(parameter, dtype=dtype)
            state["state2"] = torch.zeros_like(parameter, dtype=dtype)
        if dtype == torch.uint8:
            if not self._code_books:  # one pair for all
                self._code_books = tuple(
                    torch.zeros(CODE_BOOK, device=parameter.device) for _ in range(2)
                )
            state["qmap1"], state["qmap2"] = self._code_books
            for name in ("absmax1", "absmax2"):
                state[name] = torch.zeros(-(-count // BLOCK), device=parameter.device)
        state["step"] = 0


def _update_8bit(parameter: torch.Tensor, state: dict[str, Any]) -> None:
    """Both states restored to fp32, updated there, and quantized again."""
    assert parameter.grad is not None
    first = torch.empty_like(parameter, dtype=torch.float32)
    second = torch.empty_like(parameter, dtype=torch.float32)
    gradient = parameter.grad.float() * 1.0
    values = parameter.data.float()  # the parameter itself where it is fp32
    first.add_(gradient)
    second.addcmul_(gradient, gradient)
    divisor = (second.sqrt() / 1.0).add_(1e-8)
    values.addcdiv_(first, divisor, value=0.0)
    parameter.data.copy_(values)
    _quantize(parameter, state["state1"], state["absmax1"])
    _quantize(parameter, state["state2"], state["absmax2"])


def _quantize(parameter: torch.Tensor, codes: torch.Tensor, scales: torch.Tensor) -> None:
    made = torch.empty_like(scales), torch.empty_like(codes)
    scales.copy_(made[0])
    codes.copy_(made[1])


def _update_fp32(parameter: torch.Tensor, state: dict[str, Any]) -> None:
    assert parameter.grad is not None
    gradient = parameter.grad.float() * 1.0
    values = parameter.data.float()
    state["state1"].add_(gradient)
    state["state2"].addcmul_(gradient, gradient)
    update = state["state1"] / (state["state2"].sqrt() + 1e-8)
    values.add_(update, alpha=0.0)
    parameter.data.copy_(values)


def assume_device(
    model: nn.Module, optimizer: torch.optim.Optimizer, *, device: str, autocast: bool
) -> None:
    """Let stand-ins do as on `device`, whatever tensors they are given.

    On CUDA an 8-bit optimizer is one kernel, and under autocast PEFT's adapter on a four-bit layer
    does without a copy of its input: it asks whether autocast is on without saying where, which
    means on CUDA.

    Args:
        device: `cpu` or `cuda`.
        autocast: whether the step runs under autocast.
    """
    cuda = device == "cuda"
    if isinstance(optimizer, StandInAdamW8bit):
        optimizer.fused = cuda or optimizer.paged
    for module in model.modules():
        if hasattr(module, "casts_input"):
            adapter: Any = module
            adapter.casts_input = not (cuda and autocast)
