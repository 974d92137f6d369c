"""Which parameters train, and how they are stored.

Knows modules; knows nothing of losses. A method is a function ``(model, options) -> model`` that
sets `requires_grad` and may wrap the model; `model` is a transformers model: a trunk, a sequence
classifier or a causal language model. To add one, write a function and a line in `METHODS`. On the
meta device, where a model has sizes and no values, a method leaves one that takes the same memory.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from fitune.config import Finetuned
from fitune.errors import ConfigError, ModelError
from fitune.models.quiet import import_bitsandbytes, quiet

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
    return _adapt(model, options)


def dora(model: Any, options: Finetuned) -> Any:
    """As `lora`, with the length of each row of the adapted weight learned apart from its direction
    (Liu et al., arXiv:2402.09353, equation 5).

    Raises:
        ConfigError: no module is called as `target_modules` says.
    """
    return _adapt(model, options, use_dora=True)


def qlora(model: Any, options: Finetuned) -> Any:
    """As `lora`, beside weights in four bits (Dettmers et al., arXiv:2305.14314, section 3).

    A model that is quantized already is not quantized again.

    Raises:
        ConfigError: no module is called as `target_modules` says.
        MissingExtraError: bitsandbytes is not installed.
        ModelError: no layer can be quantized.
    """
    from fitune.quantization.weights import is_quantized, quantize_linear_layers

    if not is_quantized(model):
        compute = torch.float32 if options.dtype == "fp32" else torch.bfloat16
        if next(model.parameters()).is_meta:
            from fitune.quantization.stand_in import stand_in_linear_layers

            model = stand_in_linear_layers(model, compute_dtype=compute)
        else:
            model = quantize_linear_layers(model, compute_dtype=compute)
    return _adapt(model, options)


def _adapt(model: Any, options: Finetuned, **variant: Any) -> Any:
    import_bitsandbytes()
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
        **_left_out(model, whole_head=task is TaskType.SEQ_CLS),
        **variant,
    )
    if stand_ins := _adapters_of_stand_ins(model):
        config._register_custom_module(stand_ins)
    try:
        with quiet():
            model = get_peft_model(model, config)
    except ValueError as error:
        linear = sorted(
            {n.rpartition(".")[2] for n, m in model.named_modules() if isinstance(m, nn.Linear)}
        )
        raise ConfigError(
            f"target_modules {targets!r} names no module of the model",
            fix=f"use all-linear, or some of {', '.join(linear)}",
        ) from error
    if options.dtype == "pure-bf16":  # PEFT makes adapters in fp32
        for parameter in trainable_parameters(model).values():
            parameter.data = parameter.data.to(torch.bfloat16)
    return model


def _left_out(model: Any, *, whole_head: bool) -> dict[str, Any]:
    """What gets no adapter: routers, and a new head, which has nothing to adapt: all of it trains.

    PEFT by itself knows heads of two names, and fails where a head is two layers of one of them
    (DistilBERT's).
    """
    from fitune.quantization.weights import is_router

    patterns = [rf".*{re.escape(n)}" for n, m in model.named_modules() if is_router(m)]
    chosen: dict[str, Any] = {}
    if whole_head:
        trunk = model.base_model_prefix
        patterns.append(rf"(?!{trunk}\.).*")
        heads = [n for n, m in model.named_children() if n != trunk and list(m.parameters())]
        chosen["modules_to_save"] = heads
    return chosen | ({"exclude_modules": "|".join(patterns)} if patterns else {})


def _adapters_of_stand_ins(model: nn.Module) -> dict[type[nn.Module], type[nn.Module]]:
    """Which adapter PEFT is to put on which layer, where four-bit layers are stand-ins."""
    if not getattr(model, "is_loaded_in_4bit", False):
        return {}
    from fitune.quantization.stand_in import StandInLinear4bit
    from fitune.training.stand_in_adapter import StandInLora4bit

    there = any(isinstance(module, StandInLinear4bit) for module in model.modules())
    return {StandInLinear4bit: StandInLora4bit} if there else {}


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
