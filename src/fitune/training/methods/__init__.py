"""Which parameters train, and how they are stored.

Knows modules; knows nothing of losses. A method is a function ``(model, options) -> model`` that
sets `requires_grad` and may wrap the model; `model` is a transformers model: a trunk, a sequence
classifier or a causal language model. To add one, write a function and a line in `METHODS`. On the
meta device, where a model has sizes and no values, a method leaves one that takes the same memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fitune.config import Finetuned
from fitune.training.methods.adapters import dora, lora, qlora
from fitune.training.methods.checkpointing import checkpoint_activations
from fitune.training.methods.parts import freeze, full, head, layers_of
from fitune.training.methods.trainable import trainable_parameters

__all__ = [
    "METHODS",
    "Method",
    "checkpoint_activations",
    "layers_of",
    "prepare",
    "trainable_parameters",
]

Method = Callable[[Any, Finetuned], Any]

METHODS: dict[str, Method] = {
    "full": full,
    "freeze": freeze,
    "head": head,
    "lora": lora,
    "dora": dora,
    "qlora": qlora,
}


def prepare(model: Any, method: Method, options: Finetuned) -> Any:
    """Apply a method, and checkpoint activations where the options say so.

    Raises:
        ConfigError: see the methods.
        ModelError: the family does not support checkpointing.
    """
    model = method(model, options)
    if options.checkpointing:
        checkpoint_activations(model)
    return model
