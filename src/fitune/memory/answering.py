"""The calls by which a model answers: it reads the prompt, then writes a token at a time.

Knows how transformers' `generate` calls a model and what it keeps between two calls; knows nothing
of storages or peaks. The same calls are traced on fake tensors and measured on real ones. (Not
`generate` itself: its loop asks for the values of tokens, which fake tensors do not have.)
"""

from __future__ import annotations

import copy
import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from fitune.memory.kv_cache import BITS, RESIDUAL
from fitune.memory.options import Inference
from fitune.memory.quantized_cache import QuantizedLayer, quantized_cache
from fitune.models.architecture import kind_of
from fitune.models.quiet import quiet

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class Answers:
    """Requests under way.

    Attributes:
        model: in evaluation mode.
        tokens: ``[requests, so far]`` int64, of prompt and answer; of the answer alone behind an
            encoder.
        mask: ``[requests, so far]`` int64, 0 at padding; of the prompt alone behind an encoder.
        cache: of transformers.
        encoded: what an encoder made of the prompt.
        scores: ``[requests, vocabulary]`` float32, of the latest token; held until the next one is
            chosen.
    """

    model: Any
    inference: Inference
    tokens: torch.Tensor
    mask: torch.Tensor
    cache: Any
    encoded: Any = None
    scores: torch.Tensor | None = None


def build_model(config: Any, inference: Inference) -> nn.Module:
    """A decoder or encoder-decoder with its output head, an encoder without one.

    Made on the device of the surrounding `torch.device` block, with random weights.
    """
    from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    factory = {
        "decoder": AutoModelForCausalLM,
        "encoder-decoder": AutoModelForSeq2SeqLM,
        "encoder": AutoModel,
    }[kind_of(config)]
    chosen = {} if inference.attention == "auto" else {"attn_implementation": inference.attention}
    with quiet():
        model = factory.from_config(copy.deepcopy(config), dtype=DTYPES[inference.dtype], **chosen)
    return model.eval()


def encode(model: Any, inference: Inference) -> Any:
    """An encoder's pass over `requests` rows of `context` tokens; returns its output."""
    tokens, mask = _prompts(inference, inference.context)
    return model(input_ids=tokens, attention_mask=mask)


def read(model: Any, inference: Inference) -> Answers:
    """All prompts in one pass, and the first token of each answer."""
    cache = new_cache(model, inference)
    if model.config.is_encoder_decoder:
        tokens, mask = _prompts(inference, inference.prompt or inference.context)
        encoded = model.get_encoder()(input_ids=tokens, attention_mask=mask)
        start = torch.zeros((inference.requests, 1), dtype=torch.int64)
        answers = Answers(model, inference, start, mask, cache, encoded)
    else:
        tokens, mask = _prompts(inference, inference.prompt or inference.context - 1)
        answers = Answers(model, inference, tokens, mask, cache)
    _next_token(answers, answers.tokens.shape[1])
    return answers


def write(answers: Answers) -> None:
    """One token more of each answer."""
    _next_token(answers, 1)


def fill(answers: Answers, tokens: int) -> None:
    """Let the cache be as in the middle of a long answer, after so many tokens.

    Layers with a window have nothing of the prompt beside the window (after the prompt was read,
    their window is a view of all of it), and of quantized keys and values as many are not yet
    quantized as there can be. Takes no more memory than the cache before and after.
    """
    old, new = _growing(answers.cache), _growing(new_cache(answers.model, answers.inference))
    latest = min(RESIDUAL - 1, tokens - 1)
    zero = torch.zeros((), dtype=answers.model.dtype)
    for index, layer in enumerate(old.layers):
        if not hasattr(layer, "keys"):  # a recurrent state is as large at any length
            new.layers[index] = layer
            continue
        shapes = _shapes(layer)
        old.layers[index] = layer = None  # frees it
        # One by one at last: a window is cut to its size by a single token.
        for count in (tokens - latest, latest - 1, 1):
            if shapes and count > 0:
                kept = (zero.expand(rows, heads, count, size) for rows, heads, _, size in shapes)
                new.update(*kept, index)
    if answers.encoded is None:
        answers.cache = new
        answers.tokens, answers.mask = _prompts(answers.inference, tokens + 1)
    else:
        answers.cache.self_attention_cache = new
        answers.tokens = torch.zeros((answers.inference.requests, tokens + 1), dtype=torch.int64)


def _growing(cache: Any) -> Any:
    """The part of a cache that grows with the answer."""
    return getattr(cache, "self_attention_cache", cache)


def _shapes(layer: Any) -> list[torch.Size]:
    """``[rows, heads, tokens, size]`` of the keys and of the values in a layer of a cache; none if
    it is empty."""
    if isinstance(layer, QuantizedLayer):
        return [kept.shape for kept in layer.older or ()]
    return [] if layer.keys is None else [layer.keys.shape, layer.values.shape]


def new_cache(model: Any, inference: Inference) -> Any:
    """An empty cache, of the kind that `generate` makes for the model."""
    from transformers import DynamicCache, EncoderDecoderCache

    config = model.config.get_text_config(decoder=True)
    if inference.kv_dtype in BITS:
        return quantized_cache(config, BITS[inference.kv_dtype])
    if model.config.is_encoder_decoder:
        return EncoderDecoderCache(DynamicCache(config=config), DynamicCache(config=config))
    return DynamicCache(config=config)


def _prompts(inference: Inference, tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of so many tokens, and the mask of what is none."""
    ids = torch.zeros((inference.requests, tokens), dtype=torch.int64)
    mask = torch.ones((inference.requests, tokens), dtype=torch.int64)
    if inference.padded:
        mask[0, 0] = 0
    return ids, mask


def _next_token(answers: Answers, new: int) -> None:
    """Let the model see the last `new` tokens; keep the most likely one that follows."""
    accepted = inspect.signature(answers.model.forward).parameters
    inputs: dict[str, Any] = {"use_cache": True}
    inputs["cache" if "cache" in accepted else "past_key_values"] = answers.cache
    if answers.encoded is not None:
        inputs["encoder_outputs"] = answers.encoded
        inputs["attention_mask"] = answers.mask
        inputs["decoder_input_ids"] = answers.tokens[:, -new:].clone()
    else:
        inputs["input_ids"] = answers.tokens[:, -new:].clone()
        if answers.inference.padded:  # a mask of ones is not handed on
            inputs["attention_mask"] = answers.mask
        if "position_ids" in accepted:
            positions = (answers.mask.cumsum(-1) - 1).masked_fill(answers.mask == 0, 0)
            inputs["position_ids"] = positions[:, -new:]
    if "logits_to_keep" in accepted:
        inputs["logits_to_keep"] = 1
    output = answers.model(**inputs)
    answers.scores = output.logits[:, -1].to(torch.float32, copy=True)
    following = answers.scores.argmax(dim=-1, keepdim=True)
    answers.tokens = torch.cat([answers.tokens, following], dim=-1)
    if answers.encoded is None:
        answers.mask = torch.cat([answers.mask, answers.mask.new_ones(following.shape)], dim=-1)
