"""Methods that train tokens which stand for no word, before each row, through PEFT.

Knows PEFT and decoders; knows nothing of losses.
"""

from __future__ import annotations

from typing import Any

import torch

from fitune.config import Finetuned
from fitune.errors import ConfigError
from fitune.models.quiet import import_bitsandbytes, quiet
from fitune.models.virtual_tokens import cache_name, hide_virtual_tokens
from fitune.training.methods.adapters import in_dtype
from fitune.training.methods.parts import layers_of


def prompt_tuning(model: Any, options: Finetuned) -> Any:
    """Embeddings of `virtual_tokens` tokens train (Lester et al., arXiv:2104.08691, section 2),
    which start as those of words drawn from the vocabulary (section 3.2).

    Raises:
        ConfigError: the model does not write.
    """
    import_bitsandbytes()
    from peft import PromptTuningConfig, TaskType

    _require_writer(model, "prompt-tuning")
    config = PromptTuningConfig(
        task_type=TaskType.CAUSAL_LM,
        num_virtual_tokens=options.virtual_tokens,
        prompt_tuning_init="SAMPLE_VOCAB",
    )
    return _put_before(model, config, options)


def prefix_tuning(model: Any, options: Finetuned) -> Any:
    """Keys and values of `virtual_tokens` tokens train in each layer (Li and Liang,
    arXiv:2101.00190, section 4); they start as those of words drawn from the vocabulary
    (section 7.4), without the reparametrisation.

    Raises:
        ConfigError: the model does not write, does not cache keys and values in each layer, or is
            to be checkpointed, which transformers cannot with a cache.
    """
    import_bitsandbytes()
    from peft import PrefixTuningConfig, TaskType

    _require_writer(model, "prefix-tuning")
    if options.checkpointing:
        raise ConfigError(
            "checkpointing leaves out cached keys and values, which is what prefix-tuning trains",
            fix="set checkpointing: false, or use prompt-tuning or lora",
        )
    config = PrefixTuningConfig(
        task_type=TaskType.CAUSAL_LM,
        num_virtual_tokens=options.virtual_tokens,
        num_layers=len(layers_of(model)),
    )
    words = None if next(model.parameters()).is_meta else _cached_words(model, options)
    wrapped = _put_before(model, config, options)
    if words is not None:
        weight = wrapped.prompt_encoder["default"].embedding.weight
        if words.shape != weight.shape:
            raise ConfigError(
                f"models of the family '{model.config.model_type}' do not cache keys and values in "
                "each layer alike, which prefix-tuning needs",
                fix="use prompt-tuning or lora",
            )
        with torch.no_grad():
            weight.copy_(words)
    return wrapped


def _require_writer(model: Any, method: str) -> None:
    if not model.can_generate() or model.config.is_encoder_decoder:
        raise ConfigError(
            f"method '{method}' is for decoders, and this model is a '{model.config.model_type}'",
            fix="use lora, ia3 or bitfit, or a decoder such as smollm2-135m",
        )


def _cached_words(model: Any, options: Finetuned) -> torch.Tensor:
    """Keys and values of words drawn from the vocabulary, ``[virtual tokens, layers · 2 · heads ·
    width]``, as PEFT lays them out."""
    from transformers import DynamicCache

    vocabulary = model.get_input_embeddings().weight.shape[0]
    ids = torch.randint(vocabulary, (1, options.virtual_tokens)).to(model.device)
    cache = DynamicCache(config=model.config)
    with torch.no_grad():
        model.eval()(input_ids=ids, use_cache=True, **{cache_name(model): cache})
    pairs = [(layer.keys, layer.values) for layer in cache.layers if hasattr(layer, "keys")]
    halves = [half[0].transpose(0, 1).flatten(1) for pair in pairs for half in pair]
    return torch.cat(halves, dim=1) if halves else torch.empty(0)


def _put_before(model: Any, config: Any, options: Finetuned) -> Any:
    from peft import get_peft_model

    with quiet():
        model = get_peft_model(model, config)
    encoder = model.prompt_encoder["default"]
    if encoder.embedding.weight.is_meta:  # numbers that PEFT counts the tokens with
        numbers = model.prompt_tokens["default"]
        model.prompt_tokens["default"] = torch.arange(len(numbers), device="cpu")
    hide_virtual_tokens(model)
    return in_dtype(model, options)
