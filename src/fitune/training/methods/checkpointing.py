"""Activations that are computed again instead of being kept.

Knows transformers' switches for it; knows nothing of methods.
"""

from __future__ import annotations

from typing import Any

from fitune.errors import ModelError


def checkpoint_activations(model: Any) -> None:
    """Keep only what enters each layer, and compute the rest of the layer again in the backward
    pass (Chen et al., arXiv:1604.06174, section 3).

    Dropout draws the same numbers again, so gradients are those without checkpointing.

    Args:
        model: a transformers model, also one that PEFT wrapped; it is changed.

    Raises:
        ModelError: the family does not support it.
    """
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    # The older name leaves transformers with version 6; 5.0 does not have the newer one yet.
    enable = getattr(inner, "activation_checkpointing_enable", None)
    try:
        if enable is not None:
            enable({"use_reentrant": False})
        else:
            inner.gradient_checkpointing_enable({"use_reentrant": False})
    except ValueError as error:
        raise ModelError(
            f"models of the family '{inner.config.model_type}' do not support checkpointing",
            fix="set checkpointing: false, or use another model",
        ) from error
    # It also makes embeddings ask for gradients, which only reentrant checkpointing needs: frozen
    # layers below the first that trains would be computed again and gone through for nothing.
    inner.disable_input_require_grads()
    if inner.get_output_embeddings() is None:
        # Encoders have no use for cached keys; asked for them, transformers would say on the
        # terminal that they are not to be had.
        inner.config.use_cache = False
