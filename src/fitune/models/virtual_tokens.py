"""Tokens that stand for no word, before each row: PEFT's prompt tuning and prefix tuning.

Whoever reads a model's logits must not see them: as many tokens come out as were put in. Knows
PEFT's wrappers and transformers' caches; knows nothing of training or of how answers are found.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn


def virtual_tokens(model: Any) -> int:
    """How many stand before each row; 0 where there are none."""
    if getattr(model, "peft_type", None) is None:
        return 0
    config = model.active_peft_config
    return int(config.num_virtual_tokens) if config.is_prompt_learning else 0


def hide_virtual_tokens(model: Any) -> None:
    """Let the output head leave them out, whoever calls the model. Nothing happens where there are
    none.

    Args:
        model: that PEFT wrapped; it is changed.
    """
    if virtual_tokens(model):
        hidden = _Hidden(virtual_tokens(model), cache_name(model.get_base_model()))
        model.get_base_model().register_forward_pre_hook(hidden.enter, with_kwargs=True)
        model.get_output_embeddings().register_forward_pre_hook(hidden.leave_out)


class _Hidden:
    """Bound methods of one object, so that a copy of the model has its own."""

    def __init__(self, count: int, cache_name: str) -> None:
        self.count, self.cache_name = count, cache_name
        self.width: int | None = None

    def enter(
        self, base: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """PEFT puts their embeddings before the row's, or hands over a cache, by its older name."""
        embedded = kwargs.get("inputs_embeds")
        self.width = None if embedded is None else embedded.shape[1]
        if "past_key_values" in kwargs and self.cache_name not in kwargs:
            kwargs[self.cache_name] = kwargs.pop("past_key_values")
        return args, kwargs

    def leave_out(self, head: nn.Module, args: tuple[torch.Tensor, ...]) -> Any:
        if args[0].shape[1] != self.width:  # only some tokens, chosen already
            return None
        return (args[0][:, self.count :], *args[1:])


def virtual_cache(model: Any) -> Any:
    """Keys and values of the virtual tokens, for one row; None where there are none.

    With it, the model inside the wrapper answers as the wrapper would. PEFT's own `generate` does
    not with transformers 5.24, which has a new name for the cache: prefix tuning is left out then,
    and prompts are put in at each step.
    """
    count = virtual_tokens(model)
    if not count:
        return None
    from transformers import DynamicCache

    inner = model.get_base_model()
    with torch.no_grad():
        prompt = model.get_prompt(batch_size=1)
        if not isinstance(prompt, torch.Tensor):
            return prompt
        cache = DynamicCache(config=inner.config)
        inner(inputs_embeds=prompt.to(inner.dtype), use_cache=True, **{cache_name(inner): cache})
    return cache


def cache_name(model: Any) -> str:
    """Of the argument: transformers 5.24 renames it; the old name warns there, the new fails
    before.

    Args:
        model: of transformers, without a wrapper.
    """
    parameters = inspect.signature(model.forward).parameters
    return "cache" if "cache" in parameters else "past_key_values"
