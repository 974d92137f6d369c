"""How much a model keeps of each token it has read: keys and values, by closed formula.

Knows configs; knows nothing of tensors, traces or a running machine. The trace of `inference` finds
the same bytes by running the model; this says why, and what a server that keeps only what is needed
would take instead.

    bytes = requests × Σ over layers of tokens kept × (numbers of keys + numbers of values) × bytes

Grouped-query attention keeps `num_key_value_heads` heads instead of `num_attention_heads` (Ainslie
et al. 2023, arXiv:2305.13245), multi-query attention one (Shazeer 2019, arXiv:1911.02150),
multi-head latent attention one vector for all heads and a rotated key beside it (DeepSeek-AI 2024,
arXiv:2405.04434, section 2.1 and table 1), a sliding window its last tokens only (Jiang et al.
2023, arXiv:2310.06825, section 2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from fitune.errors import ModelError

BITS = {"int8": 8, "int4": 4}

GROUP = 64
"""Numbers that share a scale and a zero point, both in the dtype that is computed in: the default
of transformers' `QuantizedCache` (``q_group_size``). With 16-bit scales that makes 8.5 and 4.5 bits
a number, as do llama.cpp's ``q8_0`` and ``q4_0`` (one 16-bit scale for 32 numbers)."""

RESIDUAL = 128
"""The latest tokens stay as they are until there are so many, then all are quantized (KIVI, Liu et
al. 2024, arXiv:2402.02750; ``residual_length`` of transformers' `QuantizedCache`)."""

Layout = Literal["transformers", "compact", "expanded"]
"""What of keys and values is kept.

``"transformers"``: what the installed version keeps: MLA's latent, but Falcon's shared heads (of
``new_decoder_architecture``) copied for each query head. ``"compact"``: no more than needed, as
servers do. ``"expanded"``: keys and values of each query head, as transformers did for MLA until
it kept the latent.
"""


@dataclass(frozen=True)
class LayerCache:
    """What one layer keeps.

    Attributes:
        kind: ``"full"``; ``"window"``: the last tokens only; ``"cross"``: of the prompt, read by an
            encoder.
        keys, values: numbers a token.
        window: most tokens kept; None: all.
    """

    kind: Literal["full", "window", "cross"]
    keys: int
    values: int
    window: int | None = None

    def tokens(self, context: int, prompt: int) -> int:
        """Tokens kept of one request."""
        seen = prompt if self.kind == "cross" else context
        return seen if self.window is None else min(seen, self.window)


def layer_caches(config: Any, layout: Layout = "transformers") -> tuple[LayerCache, ...]:
    """What each layer keeps, in order; nothing for a model that does not write.

    Args:
        config: of transformers.

    Raises:
        ModelError: layers that keep something else than keys and values (a recurrent state, say).
    """
    from fitune.models.architecture import kind_of

    if kind_of(config) == "encoder":
        return ()
    text = config.get_text_config(decoder=True)
    keys, values = _numbers(text, layout)
    layers = _first(text, "num_decoder_layers", "num_hidden_layers")
    own = [
        LayerCache("full" if window is None else "window", keys, values, window)
        for window in _windows(text, layers)
    ]
    cross = [LayerCache("cross", keys, values)] * layers
    return (*own, *cross) if config.is_encoder_decoder else tuple(own)


def kv_cache_bytes(
    config: Any,
    *,
    requests: int,
    context: int,
    prompt: int | None = None,
    number_bytes: int = 2,
    kv_dtype: str | None = None,
    layout: Layout = "transformers",
) -> int:
    """Bytes of all keys and values, in the middle of a long answer.

    After the prompt, before the first new token, transformers still holds all of it in layers with
    a window, too: their `window` is a view of it.

    Args:
        config: of transformers.
        context: tokens of each request so far; of the answer, behind an encoder.
        prompt: tokens that an encoder read; None: as many as `context`.
        number_bytes: of each number, and of the scales of quantized ones.
        kv_dtype: ``"int8"`` or ``"int4"``: quantized in groups of `GROUP`, all but the latest
            `RESIDUAL` - 1 tokens (the most that stay as they are; the prompt does not); None: not
            quantized.

    Raises:
        ModelError: see `layer_caches`.
    """
    total = 0
    for layer in layer_caches(config, layout):
        tokens = layer.tokens(context, context if prompt is None else prompt)
        for width in (layer.keys, layer.values):
            if kv_dtype is None:
                total += requests * tokens * width * number_bytes
                continue
            latest = min(RESIDUAL - 1, context - 1)
            # A window holds one token less while none is being computed.
            older = (
                context - latest
                if layer.window is None
                else min(context - latest, layer.window - 1)
            )
            total += requests * latest * width * number_bytes
            total += quantized_bytes(requests * older * width, BITS[kv_dtype], number_bytes)
    return total


def kv_bytes_per_token(
    config: Any, *, number_bytes: int = 2, layout: Layout = "transformers"
) -> int:
    """Bytes by which one more token of one request makes the cache grow, below any window.

    Published: 0.5 MiB for Llama 2 7B and 128 KiB for Llama 3 8B in 16 bits, 70,272 bytes for
    DeepSeek-V3 (layout ``"compact"``).
    """
    return sum(
        (layer.keys + layer.values) * number_bytes
        for layer in layer_caches(config, layout)
        if layer.kind != "cross"
    )


def quantized_bytes(numbers: int, bits: int, scale_bytes: int) -> int:
    """Bytes of so many quantized numbers, in whole groups with a scale and a zero point each."""
    return math.ceil(numbers / GROUP) * (GROUP * bits // 8 + 2 * scale_bytes)


def _numbers(text: Any, layout: Layout) -> tuple[int, int]:
    """Numbers of keys and of values that a layer keeps of one token."""
    heads = _first(text, "num_attention_heads")
    if getattr(text, "kv_lora_rank", None):
        if layout == "expanded":
            rotated = text.qk_nope_head_dim + text.qk_rope_head_dim
            return heads * rotated, heads * text.v_head_dim
        return text.kv_lora_rank, text.qk_rope_head_dim
    size = getattr(text, "d_kv", None) or getattr(text, "head_dim", None)
    size = size or _first(text, "hidden_size") // heads
    shared = getattr(text, "num_key_value_heads", None) or heads
    if text.model_type == "falcon":
        if text.new_decoder_architecture:
            shared = text.num_kv_heads if layout == "compact" else heads
        else:
            shared = 1 if text.multi_query else heads
    elif layout == "expanded":
        shared = heads
    return shared * size, shared * size


def _windows(text: Any, layers: int) -> list[int | None]:
    """Of each layer, the most tokens it looks back on; None for all."""
    window = getattr(text, "sliding_window", None)
    chunk = getattr(text, "attention_chunk_size", None)
    types = getattr(text, "layer_types", None)
    if types is None:
        return [window or chunk] * layers
    known = {"full_attention": None, "sliding_attention": window, "chunked_attention": chunk}
    unknown = sorted(set(types) - known.keys())
    if unknown:
        raise ModelError(
            f"layers of type '{unknown[0]}' ('{text.model_type}') keep something else than keys "
            "and values",
            fix="let `estimate_inference` run the model instead of asking for the formula",
        )
    return [known[kind] for kind in types]


def _first(text: Any, *names: str) -> int:
    """The first of the named fields that the config has."""
    for name in names:
        value = getattr(text, name, None)
        if value:
            return int(value)
    raise ModelError(
        f"the config of '{text.model_type}' has no '{names[-1]}', which the size of its cache "
        "depends on",
        fix=f"add '{names[-1]}' to its config.json",
    )
