"""Which parameters train, and how they are stored.

Knows modules; knows nothing of losses. A method is a function ``(model, options) -> model`` that
sets `requires_grad` and may wrap the model; `model` is a transformers model: a trunk, a sequence
classifier or a causal language model. To add one, write a function and a line in `METHODS`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from fitune.config import Finetuned
from fitune.errors import ConfigError
from fitune.models.quiet import quiet

Method = Callable[[Any, Finetuned], Any]


def full(model: Any, options: Finetuned) -> Any:
    """Every parameter trains."""
    model.requires_grad_(True)
    return model


def freeze(model: Any, options: Finetuned) -> Any:
    """The embeddings and the lowest `freeze_layers` layers stay as they are.

    Raises:
        ConfigError: `freeze_layers` is not given, or is more than there are.
    """
    layers = layers_of(model)
    k = options.freeze_layers
    if k is None or k > len(layers):
        raise ConfigError(
            f"method 'freeze' needs freeze_layers between 1 and {len(layers)} (the model's "
            f"layers), and it is {k}",
            fix=f"set freeze_layers, e.g. {max(1, len(layers) // 2)}",
        )
    model.requires_grad_(True)
    base = model.base_model
    embeddings = getattr(base, "embeddings", None) or model.get_input_embeddings()
    embeddings.requires_grad_(False)
    for layer in layers[:k]:
        layer.requires_grad_(False)
    return model


def head(model: Any, options: Finetuned) -> Any:
    """Only what lies on top of the trunk trains.

    The caller's own head, outside `model`, is not touched and trains too.
    """
    model.requires_grad_(True)
    model.base_model.requires_grad_(False)
    return model


def lora(model: Any, options: Finetuned) -> Any:
    """Low-rank adapters beside frozen weights (Hu et al., arXiv:2106.09685, section 4.1).

    Raises:
        ConfigError: no module is called as `target_modules` says.
    """
    from peft import LoraConfig, TaskType, get_peft_model

    name = type(model).__name__
    task = (
        TaskType.SEQ_CLS
        if "SequenceClassification" in name
        else TaskType.CAUSAL_LM
        if model.get_output_embeddings() is not None
        else TaskType.FEATURE_EXTRACTION
    )
    targets = options.target_modules
    config = LoraConfig(
        r=options.rank,
        lora_alpha=options.alpha,
        lora_dropout=options.lora_dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        task_type=task,
    )
    try:
        with quiet():
            return get_peft_model(model, config)
    except ValueError as error:
        linear = sorted(
            {n.rpartition(".")[2] for n, m in model.named_modules() if isinstance(m, nn.Linear)}
        )
        raise ConfigError(
            f"target_modules {targets!r} names no module of the model",
            fix=f"use all-linear, or some of {', '.join(linear)}",
        ) from error


METHODS: dict[str, Method] = {"full": full, "freeze": freeze, "head": head, "lora": lora}


def layers_of(model: nn.Module) -> nn.ModuleList:
    """The model's stack of layers: its longest module list.

    Raises:
        ConfigError: the model has none.
    """
    stacks = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    if not stacks:
        raise ConfigError(
            "the model has no stack of layers that could be frozen in part",
            fix="use method full, head or lora",
        )
    return max(stacks, key=len)


def trainable_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Name → parameter, of those that train."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}
