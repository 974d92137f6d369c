"""How much of the learning rate each parameter takes.

Knows modules and options; knows nothing of optimizers or schedules.
"""

from __future__ import annotations

from typing import Any

from fitune.config import Finetuned
from fitune.errors import ConfigError
from fitune.training.methods import layers_of, trainable_parameters
from fitune.training.methods.parts import embeds


def rate_factors(model: Any, options: Finetuned) -> dict[str, float]:
    """Name → factor, of the parameters whose factor is not 1.

    Args:
        model: after the method was applied; also a classifier around such a model.

    Raises:
        ConfigError: `layer_decay` is below 1, and no layer or embedding trains.
    """
    names = trainable_parameters(model)
    factors = dict.fromkeys(names, 1.0)
    if options.lora_plus is not None:
        # Of A's rate. B is the matrix that starts at zero (Hayou et al., arXiv:2402.12354).
        factors |= {name: options.lora_plus for name in names if "lora_B" in name}
    if options.layer_decay < 1.0:
        depths = _depths(model)
        below = {name: depths[name] for name in names if depths.get(name, 0) > 0}
        if not below and not any(name in depths for name in names):
            raise ConfigError(
                f"layer_decay is {options.layer_decay:g}, and method '{options.method}' trains no "
                "layer",
                fix="remove layer_decay, or use a method that trains layers, such as full or lora",
            )
        for name, depth in below.items():
            factors[name] *= options.layer_decay**depth
    return {name: factor for name, factor in factors.items() if factor != 1.0}


def _depths(model: Any) -> dict[str, int]:
    """Name → how many layers below the top layer, of the parameters in layers and embeddings.

    The embeddings lie below the lowest layer. What is on top (norm, pooler, head) is not in here.
    """
    layers = layers_of(model)
    depth_of = {
        id(parameter): len(layers) - 1 - index
        for index, layer in enumerate(layers)
        for parameter in layer.parameters()
    }
    output = _output_weight(model)
    found: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        if id(parameter) in depth_of:
            found[name] = depth_of[id(parameter)]
        elif parameter is not output and embeds(model, name):
            found[name] = len(layers)
    return found


def _output_weight(model: Any) -> Any:
    """The output head's own weight: a tied one is an embedding."""
    inner = getattr(model, "trunk", model)
    if not hasattr(inner, "get_output_embeddings"):
        return None
    head = inner.get_output_embeddings()
    weight = getattr(head, "weight", None)
    return None if weight is getattr(inner.get_input_embeddings(), "weight", None) else weight
