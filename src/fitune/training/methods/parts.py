"""Methods that train the model's own parameters: all of them, or some.

Knows modules; knows nothing of adapters.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from fitune.config import Finetuned
from fitune.errors import ConfigError


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
    stacks = [module for module in base.modules() if isinstance(module, nn.ModuleList)]
    in_layers = {id(parameter) for stack in stacks for parameter in stack.parameters()}
    for name, parameter in base.named_parameters():
        # Of positions, too: one that trains below frozen layers has gradients go through them all.
        if id(parameter) not in in_layers and embeds(base, name):
            parameter.requires_grad_(False)
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


def bitfit(model: Any, options: Finetuned) -> Any:
    """Only biases train, and a new classification head (Ben Zaken et al., arXiv:2106.10199, section
    3).

    Raises:
        ConfigError: the model has no biases.
    """
    model.requires_grad_(False)
    biases = [p for name, p in model.named_parameters() if name.rpartition(".")[2] == "bias"]
    if not biases:
        raise ConfigError(
            f"method 'bitfit' trains biases, and models of the family '{model.config.model_type}' "
            "have none",
            fix="use ia3, which trains about as few parameters, or lora",
        )
    for bias in biases:
        bias.requires_grad_(True)
    if "SequenceClassification" in type(model).__name__:
        inside = {id(parameter) for parameter in model.base_model.parameters()}
        for parameter in model.parameters():
            parameter.requires_grad_(parameter.requires_grad or id(parameter) not in inside)
    return model


def embeds(model: nn.Module, name: str) -> bool:
    """Whether a parameter belongs to the embeddings: to a table, or to what families put beside one
    (a norm, a projection)."""
    owner = name.rpartition(".")[0]
    return isinstance(model.get_submodule(owner), nn.Embedding) or "embed" in owner


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
