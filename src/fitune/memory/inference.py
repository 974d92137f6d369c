"""What answering needs: reading the prompts, then writing a token at a time.

Knows how to trace the calls of `answering` on fake tensors and to extrapolate them in depth; knows
nothing of a running machine, of budgets or of how results are shown.

Peaks are of three phases. ``"prefill"`` reads all prompts in one pass. ``"decode"`` is the step
that fills the context, in the middle of a long answer; a first step after a long prompt finds
windows as the prompt left them, but never takes more than the prompt did. ``"forward"`` is an
encoder's pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fitune.collector import uncollected
from fitune.errors import ConfigError
from fitune.memory.estimate import Estimate
from fitune.memory.kv_cache import BITS
from fitune.memory.options import Inference

PREFILL, DECODE, FORWARD = "prefill", "decode", "forward"

KV_CACHE, ENCODED, LOGITS = "kv cache", "encoder output", "logits"

NUMBER_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}


@uncollected()
def estimate_inference(config: Any, inference: Inference, *, exact: bool = False) -> Estimate:
    """What a model needs to answer.

    Args:
        config: of transformers.
        exact: trace every layer instead of a few of each kind.

    Returns:
        terms are ``"weights"``, ``"kv cache"``, ``"logits"``, ``"batch"``, ``"encoder output"`` and
        ``"activations: <class>"`` for each class of module that holds something.

    Raises:
        ConfigError: options that the model cannot be run with.
    """
    import torch

    from fitune.memory.answering import build_model
    from fitune.memory.estimate import _estimate
    from fitune.memory.extrapolate import extrapolate
    from fitune.memory.stacks import everything, layers_of_kinds, selections, with_layers

    _check(config, inference)
    with torch.device("meta"):
        model = build_model(config, inference)
    _check_positions(model, config, inference)
    layers = layers_of_kinds(model, config)
    full = everything(layers)
    chosen = [full] if exact else selections(layers)
    traces = [
        trace_inference(with_layers(model, selection), inference, selection) for selection in chosen
    ]
    return _estimate(extrapolate(traces, chosen, full))


def trace_inference(model: Any, inference: Inference, selection: Any) -> Any:
    """Answer on fake tensors; note every storage.

    Args:
        model: on the meta device; it is changed.
        selection: the layers that it has (`fitune.memory.stacks.Selection`).

    Returns:
        a `fitune.memory.trace.Trace`.
    """
    import torch

    from fitune.memory.fake import fake_tensors, make_fake
    from fitune.memory.kernels import ThoroughStorages
    from fitune.memory.trace import WEIGHTS, Places, Trace, find_peaks

    places = Places(model, selection)
    # Not in inference mode, which shows a tracker whole compounds of operations instead of the
    # operations; the bytes are the same.
    with fake_tensors(), torch.no_grad():
        storages = ThoroughStorages(make_fake(model), bool_answer=not inference.padded)
        storages.name(WEIGHTS, [*model.parameters(), *model.buffers()])
        kept = run(model, inference, storages)
        allocations = storages.allocations
        peaks = find_peaks(allocations, places, name_term)
        del kept
    return Trace(
        peaks=peaks,
        allocations=tuple(allocations),
        parameters=sum(p.numel() for p in model.parameters()),
        trainable=0,
    )


def run(model: Any, inference: Inference, storages: Any) -> Any:
    """Every phase under the tracker; returns what is to be kept alive until peaks are found."""
    from fitune.memory.answering import encode, fill, read, write
    from fitune.memory.trace import BATCH
    from fitune.models.architecture import kind_of

    if kind_of(model.config) == "encoder":
        with storages, storages.phase(FORWARD):
            return encode(model, inference)
    with storages, storages.phase(PREFILL):
        answers = read(model, inference)
    storages.name(KV_CACHE, cached(answers.cache))
    if answers.encoded is not None:
        storages.name(ENCODED, answers.encoded.values())
    storages.next_round()
    fill(answers, inference.context - 1)
    storages.name(KV_CACHE, cached(answers.cache))
    storages.name(BATCH, [answers.tokens, answers.mask])
    with storages, storages.phase(DECODE):
        write(answers)
    storages.name(KV_CACHE, cached(answers.cache))
    return answers


def cached(cache: Any) -> list[Any]:
    """The tensors of a cache."""
    import torch
    from torch.utils._pytree import tree_leaves

    parts: list[Any] = [
        getattr(cache, name, None) for name in ("self_attention_cache", "cross_attention_cache")
    ]
    layers = [layer for part in (parts if all(parts) else [cache]) for layer in part.layers]
    held = tree_leaves([vars(layer) for layer in layers])
    return [tensor for tensor in held if isinstance(tensor, torch.Tensor)]


def name_term(allocation: Any, phases: Sequence[str], places: Any) -> str:
    """What a storage is: as it was named, or by the module that it was made in.

    Outside the model, scores of the next token are chosen from, and tokens put together.
    """
    from fitune.memory.trace import BATCH

    if allocation.term is not None:
        return allocation.term
    if allocation.module:
        return places.term(allocation.module) or LOGITS
    return LOGITS if allocation.operation in _OF_SCORES else BATCH


_OF_SCORES = {"aten._to_copy.default", "aten.argmax.default"}


def _check(config: Any, inference: Inference) -> None:
    """Refuse what no model can be asked, or not this one."""
    from fitune.models.architecture import kind_of

    kind, context, prompt = kind_of(config), inference.context, inference.prompt
    least = 2 if kind == "decoder" else 1
    if inference.requests < 1:
        raise ConfigError(f"requests is {inference.requests}, below 1", fix="ask for 1 or more")
    if context < least:
        raise ConfigError(f"context is {context}, below {least}", fix=f"ask for {least} or more")
    if inference.dtype not in NUMBER_BYTES:
        known = ", ".join(NUMBER_BYTES)
        raise ConfigError(f"dtype '{inference.dtype}' is unknown", fix=f"use one of {known}")
    if prompt is not None:
        if kind == "encoder":
            raise ConfigError(
                f"prompt is {prompt}, but an encoder writes no answer to one",
                fix="leave it out, and say the number of tokens as context",
            )
        if prompt < 1 or (kind == "decoder" and prompt >= context):
            raise ConfigError(
                f"prompt is {prompt}, not between 1 and context ({context}) - 1",
                fix="the answer's tokens are part of the context: ask for a longer context",
            )
    _check_kv_dtype(inference, kind)


def _check_kv_dtype(inference: Inference, kind: str) -> None:
    kv_dtype = inference.kv_dtype
    if kv_dtype is None:
        return
    if kind == "encoder":
        raise ConfigError(
            f"kv_dtype is '{kv_dtype}', but an encoder keeps no keys and values",
            fix="leave it out",
        )
    if kv_dtype in BITS:
        if kind == "encoder-decoder":
            raise ConfigError(
                f"kv_dtype is '{kv_dtype}', but only models without an encoder have quantized keys "
                "and values in transformers",
                fix="leave it out",
            )
        return
    if NUMBER_BYTES.get(kv_dtype) != NUMBER_BYTES[inference.dtype]:
        raise ConfigError(
            f"kv_dtype '{kv_dtype}' is neither the size of dtype ('{inference.dtype}') nor one of "
            f"{', '.join(BITS)}",
            fix="leave it out to keep keys and values as they were computed",
        )


def _check_positions(model: Any, config: Any, inference: Inference) -> None:
    """Refuse more tokens than there are learned positions: rotary ones go on, these do not."""
    from torch import nn

    from fitune.models.architecture import max_length_of

    most = max_length_of(config)
    learned = any(
        isinstance(module, nn.Embedding) and (name.endswith("wpe") or "position" in name)
        for name, module in model.named_modules()
    )
    asked = max(inference.context, inference.prompt or 0)
    if learned and asked > most:
        raise ConfigError(
            f"context is {asked} tokens, but '{config.model_type}' has learned {most} positions",
            fix=f"ask for {most} or fewer",
        )
