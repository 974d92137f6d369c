"""Methods that train low-rank adapters beside frozen weights, through PEFT.

Knows PEFT and stand-ins for four-bit layers; knows nothing of losses.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import nn

from fitune.config import Finetuned
from fitune.errors import ConfigError
from fitune.models.quiet import import_bitsandbytes, quiet
from fitune.training.methods.trainable import trainable_parameters


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
