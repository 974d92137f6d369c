"""Activations that are computed again instead of being kept.

Knows transformers' switches for it; knows nothing of methods.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

from fitune.errors import ModelError


def checkpoint_activations(model: Any, every: int = 1) -> None:
    """Keep only what enters each layer, and compute the rest of the layer again in the backward
    pass (Chen et al., arXiv:1604.06174, section 3).

    Dropout draws the same numbers again, so gradients are those without checkpointing. A model that
    is checkpointed already keeps its choice of layers.

    Args:
        model: a transformers model, also one that PEFT wrapped; it is changed.
        every: of each stack, the first layer and every so many on; the others keep all.

    Raises:
        ModelError: the family does not support it.
    """
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    if not any(getattr(module, "gradient_checkpointing", False) for module in inner.modules()):
        _enable(inner)
        _leave_out(inner, every)
    # It also makes embeddings ask for gradients, which only reentrant checkpointing needs: frozen
    # layers below the first that trains would be computed again and gone through for nothing.
    inner.disable_input_require_grads()
    if inner.get_output_embeddings() is None:
        # Encoders have no use for cached keys; asked for them, transformers would say on the
        # terminal that they are not to be had.
        inner.config.use_cache = False


def _enable(inner: Any) -> None:
    # The older name leaves transformers with version 6; 5.0 does not have the newer one yet.
    enable = getattr(inner, "activation_checkpointing_enable", None)
    try:
        if enable is not None:
            enable({"use_reentrant": False})
        else:
            inner.gradient_checkpointing_enable({"use_reentrant": False})
    except ValueError as error:
        raise _unsupported(inner, "") from error


def _leave_out(inner: Any, every: int) -> None:
    """Not by transformers' own argument, which counts through all stacks and is new in 5.24."""
    if every == 1:
        return
    stacks = list(_checkpointed_stacks(inner))
    if not stacks:
        raise _unsupported(inner, f" of every {every}th layer only")
    for stack in stacks:
        for index, layer in enumerate(stack):
            layer.gradient_checkpointing = index % every == 0  # type: ignore[assignment]


def _checkpointed_stacks(inner: nn.Module) -> Iterator[nn.ModuleList]:
    """Those whose layers have a switch of their own."""
    for module in inner.modules():
        if not isinstance(module, nn.ModuleList) or not len(module):
            continue
        if all(hasattr(layer, "gradient_checkpointing") for layer in module):
            yield module


def _unsupported(inner: Any, which: str) -> ModelError:
    return ModelError(
        f"models of the family '{inner.config.model_type}' do not support checkpointing{which}",
        fix="set checkpointing: true, or use another model"
        if which
        else "set checkpointing: false, or use another model",
    )
