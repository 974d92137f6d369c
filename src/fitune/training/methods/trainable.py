"""The parameters that train.

Knows modules only.
"""

from __future__ import annotations

from torch import nn


def trainable_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Name → parameter, of those that train."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}
