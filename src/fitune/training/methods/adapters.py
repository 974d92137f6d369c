"""Methods that train adapters beside frozen weights, through PEFT.

Knows PEFT and stand-ins for four-bit layers; knows nothing of losses.
"""

from __future__ import annotations

import re
import warnings
from typing import Any

import torch
from torch import nn

from fitune.config import Finetuned
from fitune.errors import ConfigError
from fitune.models.adapter import remember_start
from fitune.models.quiet import import_bitsandbytes, quiet
from fitune.training.methods.continued import count_tensors
from fitune.training.methods.trainable import trainable_parameters


def lora(model: Any, options: Finetuned) -> Any:
    """Low-rank adapters beside frozen weights (Hu et al., arXiv:2106.09685, section 4.1).

    Raises:
        ConfigError: no module is called as `target_modules` says, or with ``lora_init: pissa`` a
            module has fewer singular values than `rank`.
    """
    if options.lora_init == "pissa":
        return _take_over(model, options)
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


def ia3(model: Any, options: Finetuned) -> Any:
    """Factors for keys, values and the inner values of feed-forward layers (Liu et al.,
    arXiv:2205.05638, section 3.3), in the modules that PEFT names for the family.

    Raises:
        ConfigError: PEFT names none.
    """
    import_bitsandbytes()
    from peft import IA3Config, TaskType, get_peft_model

    task = _task(model)
    config = IA3Config(task_type=task, **_left_out(model, whole_head=task is TaskType.SEQ_CLS))
    try:
        with quiet():
            model = get_peft_model(model, config)
    except ValueError as error:
        raise ConfigError(
            f"method 'ia3' does not know which modules of the family '{model.config.model_type}' "
            "hold keys, values and feed-forward layers",
            fix="use lora",
        ) from error
    return in_dtype(model, options)


def _task(model: Any) -> Any:
    """PEFT's name for what a model does."""
    from peft import TaskType

    if "SequenceClassification" in type(model).__name__:
        return TaskType.SEQ_CLS
    return TaskType.CAUSAL_LM if model.can_generate() else TaskType.FEATURE_EXTRACTION


def in_dtype(model: Any, options: Finetuned) -> Any:
    """PEFT makes adapters in fp32, or leaves them in the base's dtype."""
    dtype = torch.bfloat16 if options.dtype == "pure-bf16" else torch.float32
    for parameter in trainable_parameters(model).values():
        parameter.data = parameter.data.to(dtype)
    return model


def _adapt(model: Any, options: Finetuned, **variant: Any) -> Any:
    import_bitsandbytes()
    if options.adapter is not None:
        return _go_on(model, options)
    from peft import LoraConfig, TaskType, get_peft_model

    task = _task(model)
    targets = options.target_modules
    config = LoraConfig(
        r=options.rank,
        lora_alpha=options.alpha,
        lora_dropout=options.lora_dropout,
        use_rslora=options.rslora,
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
    return in_dtype(model, options)


def _go_on(model: Any, options: Finetuned) -> Any:
    """An adapter that was trained before, as PEFT saved it.

    Raises:
        ConfigError: its weights are broken, or belong to another model.
    """
    from peft import LoraConfig, PeftModel, get_peft_model

    try:
        with quiet():
            config = LoraConfig.from_pretrained(options.adapter)
            config.inference_mode, config.lora_dropout = False, options.lora_dropout
            if stand_ins := _adapters_of_stand_ins(model):
                config._register_custom_module(stand_ins)
            if next(model.parameters()).is_meta:
                return in_dtype(get_peft_model(model, config), options)
            # PEFT would leave what the file lacks as it was drawn, and only warn.
            warnings.filterwarnings("error", message="Found missing adapter keys")
            model = PeftModel.from_pretrained(
                model, options.adapter, is_trainable=True, config=config
            )
        held, said = len(trainable_parameters(model)), count_tensors(options.adapter or "")
        if held != said:  # PEFT says nothing of tensors that find no place
            raise ValueError(f"it has {said:,} tensors, and the model has place for {held:,}")
    except Exception as error:  # safetensors' own is a plain Exception
        raise ConfigError(
            f"the adapter '{options.adapter}' does not fit this model, or is broken "
            f"({' '.join(str(error).split())[:120]})",
            fix="name an adapter that was trained on this model",
        ) from error
    return in_dtype(model, options)


def _take_over(model: Any, options: Finetuned) -> Any:
    """A start from the largest singular values and vectors of each weight, which loses them (Meng
    et al., arXiv:2404.02948, equations 2 to 4): together they are what the weight was.

    Nothing is drawn at random, so that a resumed training starts from the same.
    """
    has_values = not next(model.parameters()).is_meta
    model = _adapt(model, options, **({"init_lora_weights": "pissa"} if has_values else {}))
    for name, module in model.named_modules():
        if name.endswith(".lora_A.default") and len(module.weight) < options.rank:
            layer = name.removesuffix(".lora_A.default").removeprefix("base_model.model.")
            raise ConfigError(
                f"rank is {options.rank}, and {layer} has {len(module.weight)} singular values "
                "to start from",
                fix=f"set rank to at most {len(module.weight)}, or lora_init: zero",
            )
    remember_start(model)
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
