"""Noise on the embeddings while training.

Knows transformers models and the masks they are given; knows nothing of methods or losses.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def add_noise(model: Any, alpha: float) -> None:
    """While training, add uniform noise in ``±alpha / sqrt(L·d)`` to each embedding, of d values in
    a row of L tokens (Jain et al., arXiv:2310.05914, algorithm 1).

    L counts a row's own tokens, not its padding: transformers' hook counts both, so that the noise
    of a row would depend on its neighbours in the batch. Numbers come from torch's generator, which
    a step seeds by (seed, step, part): a resumed step draws the same.

    Args:
        model: a transformers model, also one that PEFT wrapped; it is changed.
    """
    noise = _Noise(alpha)
    model.register_forward_pre_hook(noise.see, with_kwargs=True)
    model.get_input_embeddings().register_forward_hook(noise.add)


class _Noise:
    """Bound methods of one object, so that a copy of the model has noise of its own."""

    def __init__(self, alpha: float) -> None:
        self.alpha = alpha
        self.lengths: torch.Tensor | None = None

    def see(self, model: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        """Before a forward pass: remember each token's L, ``[rows, 1]`` or ``[rows, tokens]``."""
        mask, positions = kwargs.get("attention_mask"), kwargs.get("position_ids")
        self.lengths = None
        if not model.training:
            return
        if isinstance(positions, torch.Tensor):
            self.lengths = _lengths(positions)
        elif isinstance(mask, torch.Tensor) and mask.ndim == 2:
            self.lengths = mask.sum(1, keepdim=True)

    def add(self, embeddings: nn.Module, args: Any, output: torch.Tensor) -> torch.Tensor:
        if not embeddings.training:
            return output
        tokens, width = output.shape[-2:]
        lengths = tokens if self.lengths is None else self.lengths[..., None]
        noise = torch.empty_like(output).uniform_(-1.0, 1.0)
        if isinstance(lengths, int):
            return output + noise.mul_(self.alpha / (lengths * width) ** 0.5)
        scale = self.alpha * (lengths.to(torch.float32) * width).rsqrt()
        return output + noise.mul_(scale.to(noise.dtype))


def _lengths(positions: torch.Tensor) -> torch.Tensor:
    """Of the row that each token belongs to, where rows lie one after another and positions begin
    again at 0 with each: ``[rows, tokens]`` → the same shape."""
    row = (positions == 0).cumsum(-1)
    counts = torch.zeros(
        (len(row), row.shape[-1] + 1), dtype=row.dtype, device=row.device
    ).scatter_add_(-1, row, torch.ones_like(row))
    return counts.gather(-1, row)
