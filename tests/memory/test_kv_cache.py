"""The cache's closed formula: against published figures, and against a real model's cache."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fitune.errors import ModelError
from fitune.memory.answering import build_model, fill, read
from fitune.memory.inference import cached
from fitune.memory.kv_cache import (
    GROUP,
    RESIDUAL,
    kv_bytes_per_token,
    kv_cache_bytes,
    layer_caches,
    quantized_bytes,
)
from fitune.memory.options import Inference
from memory_kit import bundled, family


@pytest.mark.parametrize(
    ("name", "layout", "bytes_"),
    [
        ("llama-2-7b", "transformers", 2 * 32 * 32 * 128 * 2),  # 0.5 MiB
        ("llama-2-70b", "transformers", 2 * 80 * 8 * 128 * 2),  # 320 KiB, by 8 shared heads
        ("llama-3-8b", "transformers", 128 * 1024),
        ("deepseek-v3", "compact", 70_272),  # DeepSeek-AI 2025, arXiv:2505.09343, table 1
        ("deepseek-v3", "expanded", 61 * 128 * (192 + 128) * 2),
        ("falcon-7b", "transformers", 2 * 32 * 64 * 2),  # one head for all
    ],
)
def test_published_bytes_per_token(name: str, layout: Any, bytes_: int) -> None:
    assert kv_bytes_per_token(bundled(name), layout=layout) == bytes_


def test_a_window_ends_growth() -> None:
    config = bundled("mistral-7b-v0.1")
    window = config.sliding_window
    assert window == 4096
    at_window = kv_cache_bytes(config, requests=1, context=window)
    assert kv_cache_bytes(config, requests=1, context=10 * window) == at_window
    assert kv_cache_bytes(config, requests=1, context=window // 2) * 2 == at_window


def test_an_encoder_keeps_nothing() -> None:
    assert layer_caches(family("bert")) == ()
    assert kv_cache_bytes(family("bert"), requests=8, context=512) == 0


def test_recurrent_layers_are_refused() -> None:
    config = family("qwen3")
    config.layer_types = ["linear_attention"] * config.num_hidden_layers
    with pytest.raises(ModelError, match="linear_attention"):
        layer_caches(config)


def test_sixteen_bit_scales_make_half_a_bit_a_number() -> None:
    assert quantized_bytes(64 * GROUP, 8, 2) * 8 / (64 * GROUP) == 8.5
    assert quantized_bytes(64 * GROUP, 4, 2) * 8 / (64 * GROUP) == 4.5
    assert quantized_bytes(1, 4, 2) == 32 + 4  # a started group is whole


@pytest.mark.parametrize("kv_dtype", [None, "int8", "int4"])
@pytest.mark.parametrize("context", [40, 200, 420])
@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma3", "mixtral"])
def test_a_real_cache_is_as_large(name: str, context: int, kv_dtype: str | None) -> None:
    config = family(name, layers=2)
    inference = Inference(3, context + 1, prompt=context, dtype="fp32", kv_dtype=kv_dtype)
    with torch.no_grad():
        answers = read(build_model(config, inference), inference)
        fill(answers, context)
    held = {
        storage.data_ptr(): storage.nbytes()
        for storage in (
            tensor.untyped_storage()
            for tensor in cached(answers.cache)
            if tensor.dtype is not torch.int64  # a layer with a window keeps its size, too
        )
    }
    expected = kv_cache_bytes(
        config, requests=3, context=context, number_bytes=4, kv_dtype=kv_dtype
    )
    assert sum(held.values()) == expected


def test_t5_keeps_what_its_encoder_read_too() -> None:
    config = family("t5", layers=2)
    inference = Inference(2, 30, prompt=50, dtype="fp32")
    with torch.no_grad():
        answers = read(build_model(config, inference), inference)
        fill(answers, 30)
    held = sum(tensor.untyped_storage().nbytes() for tensor in cached(answers.cache))
    assert held == kv_cache_bytes(config, requests=2, context=30, prompt=50, number_bytes=4)


def test_the_latest_tokens_stay_as_they_are() -> None:
    config = family("llama")
    plain = kv_cache_bytes(config, requests=1, context=RESIDUAL - 1)
    first = kv_cache_bytes(config, requests=1, context=1)  # the prompt, which is quantized
    kept = kv_cache_bytes(config, requests=1, context=RESIDUAL, kv_dtype="int4")
    assert plain < kept < plain + first
    long = 2**16
    whole = kv_cache_bytes(config, requests=1, context=long)
    assert kv_cache_bytes(config, requests=1, context=long, kv_dtype="int8") < 0.54 * whole
    assert kv_cache_bytes(config, requests=1, context=long, kv_dtype="int4") < 0.29 * whole
