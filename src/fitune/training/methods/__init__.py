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
from fitune.training.methods.adapters import dora, ia3, lora, qlora
from fitune.training.methods.checkpointing import checkpoint_activations
from fitune.training.methods.continued import fingerprint, with_adapter
from fitune.training.methods.neftune import add_noise
from fitune.training.methods.own_options import check_options
from fitune.training.methods.parts import bitfit, freeze, full, head, layers_of
from fitune.training.methods.prompts import prefix_tuning, prompt_tuning
from fitune.training.methods.trainable import trainable_parameters

__all__ = [
    "METHODS",
    "Method",
    "check_options",
    "checkpoint_activations",
    "fingerprint",
    "layers_of",
    "prepare",
    "trainable_parameters",
    "with_adapter",
]

Method = Callable[[Any, Finetuned], Any]

METHODS: dict[str, Method] = {
    "full": full,
    "freeze": freeze,
    "head": head,
    "lora": lora,
    "dora": dora,
    "qlora": qlora,
    "ia3": ia3,
    "bitfit": bitfit,
    "prompt-tuning": prompt_tuning,
    "prefix-tuning": prefix_tuning,
}


def prepare(model: Any, method: Method, options: Finetuned) -> Any:
    """Apply a method; checkpoint activations and add noise where the options say so.

    Raises:
        ConfigError: see the methods.
        ModelError: the family does not support checkpointing.
    """
    model = method(model, options)
    if options.checkpointing:
        checkpoint_activations(model, int(options.checkpointing))
    if options.neftune is not None:
        add_noise(model, options.neftune)
    return model
