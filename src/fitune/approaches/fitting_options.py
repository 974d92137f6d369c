"""Whether the options of fine-tuning fit the model, the task and the device; asked before training.

Knows options and architectures; knows nothing of weights or rows.
"""

from __future__ import annotations

from fitune import config
from fitune.approaches.base import Work
from fitune.errors import ConfigError
from fitune.models.architecture import Architecture
from fitune.names import lookup
from fitune.training.defaults import default_method, room_for_rows
from fitune.training.methods import METHODS, check_options
from fitune.training.optim import OPTIMIZERS, require_device


def refuse_unfit(
    options: config.Finetuned, architecture: Architecture, model: str, work: Work
) -> None:
    """Refuse what could not be trained, or would have no effect.

    Args:
        model: its name.

    Raises:
        ConfigError: an unknown name, a limit that is passed, an option for another model or method.
        ResourceError: the optimizer does not run on the device.
    """
    lookup(options.method or "full", METHODS, "method")
    lookup(options.optimizer, OPTIMIZERS, "optimizer")
    require_device(options.optimizer, work.device)
    limit = room_for_rows(options, architecture)
    if limit < 1:
        raise ConfigError(
            f"virtual_tokens is {options.virtual_tokens:,}, and '{model}' was made for "
            f"{architecture.max_length:,} tokens",
            fix="set virtual_tokens to far less",
        )
    if options.max_length and options.max_length > limit:
        less = "" if limit == architecture.max_length else ", less the virtual ones"
        raise ConfigError(
            f"max_length {options.max_length:,} is more than the {limit:,} tokens that '{model}' "
            f"was made for{less}",
            fix=f"set max_length to at most {limit}",
        )
    decodes = architecture.kind == "decoder"
    if options.class_weights and (decodes or work.task.kind != "classify"):
        raise ConfigError(
            f"class_weights is for a classification head, and '{model}' writes its answers",
            fix="remove class_weights, or use an encoder, e.g. minilm-l6",
        )
    check_options(options, default_method(architecture.kind))
