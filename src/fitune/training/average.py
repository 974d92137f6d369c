"""An average of the weights over the steps, which is validated and kept in their place.

Knows parameters by name; knows nothing of optimizers, steps or files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn


class Average:
    """An exponential moving average of what trains (Polyak and Juditsky, 1992, with the past
    forgotten).

    ``a := d·a + (1 - d)·w`` after each step, with ``d = min(decay, (1 + t) / (10 + t))`` at step t:
    as in TensorFlow's ExponentialMovingAverage, whose short memory in the first steps forgets where
    training started, which few steps with a fixed decay would not.

    Attributes:
        values: name → float32 of the parameter's shape, on its device.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float) -> None:
        self.decay = decay
        self.values = {
            name: parameter.detach().to(torch.float32, copy=True)
            for name, parameter in parameters.items()
        }

    @torch.no_grad()
    def update(self, parameters: Mapping[str, nn.Parameter], step: int) -> None:
        """Take in the weights after step number `step` (from 1)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, value in self.values.items():
            value.lerp_(parameters[name].detach().to(torch.float32), 1.0 - decay)

    @contextmanager
    def applied(self, parameters: Mapping[str, nn.Parameter]) -> Iterator[None]:
        """Inside the block, the parameters hold the average."""
        weights = {name: parameter.data for name, parameter in parameters.items()}
        for name, parameter in parameters.items():
            parameter.data = self.values[name].to(parameter.dtype)
        try:
            yield
        finally:
            for name, parameter in parameters.items():
                parameter.data = weights[name]

    @torch.no_grad()
    def restore(self, values: Mapping[str, torch.Tensor]) -> None:
        """Go on from the `values` of another of the same parameters."""
        for name, value in self.values.items():
            value.copy_(values[name])
