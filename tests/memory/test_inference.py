"""Answering: against the allocator, against every layer traced, and what is refused."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
import torch
import transformers

from fitune.errors import ConfigError
from fitune.memory.answering import Answers, build_model, encode, fill, read, write
from fitune.memory.inference import KV_CACHE, cached, estimate_inference
from fitune.memory.kv_cache import kv_cache_bytes
from fitune.memory.measure import allocator_peak
from fitune.memory.options import Inference
from fitune.models.architecture import kind_of
from memory_kit import family

CASES = [
    ("llama", Inference(1, 200, dtype="fp32")),
    ("llama", Inference(4, 65, dtype="bf16", padded=True, attention="eager")),
    ("llama", Inference(2, 400, prompt=20, dtype="fp32", kv_dtype="int8")),
    ("qwen3", Inference(3, 150, dtype="fp32", kv_dtype="int4")),
    ("gemma3", Inference(2, 300, dtype="fp32", attention="eager")),
    ("gemma3", Inference(2, 300, prompt=30, dtype="fp32", kv_dtype="int4", attention="eager")),
    ("mixtral", Inference(2, 90, dtype="fp32")),
    ("gpt2", Inference(2, 128, prompt=100, dtype="fp32")),
    ("t5", Inference(2, 40, prompt=120, dtype="fp32")),
    ("bert", Inference(4, 100, dtype="fp32")),
    ("distilbert", Inference(4, 100, padded=True, dtype="fp32", attention="eager")),
    ("deepseek", Inference(2, 160, dtype="fp32")),
]
"""The last has multi-head latent attention, which no fused kernel of the CPU takes. Where attention
is at the peak it is eager: what a fused kernel takes for each thread shows in models as small as
these."""


def config_of(name: str, layers: int = 6) -> Any:
    if name != "deepseek":
        return family(name, layers)
    config = transformers.DeepseekV3Config(
        vocab_size=3000,
        hidden_size=64,
        intermediate_size=96,
        moe_intermediate_size=32,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        n_routed_experts=8,
        num_experts_per_tok=2,
        n_group=2,
        topk_group=1,
        first_k_dense_replace=1,
        q_lora_rank=24,
        kv_lora_rank=16,
        qk_rope_head_dim=8,
        qk_nope_head_dim=16,
        v_head_dim=16,
    )
    config.architectures = ["DeepseekV3ForCausalLM"]
    return config


def measured(config: Any, inference: Inference) -> int:
    """The most bytes while reading, and while writing the token that fills the context."""
    model: Any = build_model(config, inference)
    weights = held([*model.parameters(), *model.buffers()])
    if kind_of(config) == "encoder":
        return weights + allocator_peak(lambda: encode(model, inference))
    made: list[Answers] = []
    reading = weights + allocator_peak(lambda: made.append(read(model, inference)))
    (answers,) = made
    # Not an answer's work: it stands for many tokens written. Under the account all the same, which
    # otherwise does not know how much is released when these tensors go.
    allocator_peak(lambda: fill(answers, inference.context - 1))
    encoded = answers.encoded.values() if answers.encoded is not None else []
    between = held([answers.tokens, answers.mask, answers.scores, *cached(answers.cache), *encoded])
    return max(reading, weights + between + allocator_peak(lambda: write(answers)))


def held(tensors: Iterable[Any]) -> int:
    storages = (tensor.untyped_storage() for tensor in tensors)
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def name_of(case: object) -> str:
    if isinstance(case, Inference):
        return f"{case.requests}x{case.context}-{case.dtype}-{case.kv_dtype}-{case.padded}"
    return str(case)


@torch.no_grad()
@pytest.mark.parametrize(("name", "inference"), CASES, ids=name_of)
def test_as_measured(name: str, inference: Inference) -> None:
    config = config_of(name)
    predicted = estimate_inference(config, inference)
    assert predicted.peak_bytes == pytest.approx(measured(config, inference), rel=0.01)
    assert sum(predicted.terms.values()) == predicted.peak_bytes


@pytest.mark.parametrize(("name", "inference"), CASES[:9:2], ids=name_of)
def test_a_few_layers_tell_what_all_would(name: str, inference: Inference) -> None:
    config = config_of(name, layers=9)
    quick, exact = (estimate_inference(config, inference, exact=e) for e in (False, True))
    assert (quick.peak_bytes, quick.terms) == (exact.peak_bytes, exact.terms)


@pytest.mark.parametrize("name", ["llama", "gemma3", "gpt2", "mixtral"])
@pytest.mark.parametrize("kv_dtype", [None, "int4"])
def test_the_cache_is_what_the_formula_says(name: str, kv_dtype: str | None) -> None:
    config = config_of(name)
    estimate = estimate_inference(config, Inference(2, 300, kv_dtype=kv_dtype))
    kept = max(m.terms[KV_CACHE] for m in estimate.timeline if m.phase == "decode")
    # Of the last step: with the token that it adds, which is not quantized at once.
    if kv_dtype is None:
        expected = kv_cache_bytes(config, requests=2, context=300)
        # While one layer's keys, or values, are copied to where one more fits.
        growing = 2 * 300 * 4 * 16 * 2
        windows = 6 * 8  # each layer with one keeps its size
        assert expected <= kept <= expected + growing + windows
    else:  # the new token is one too many of the latest: layer by layer, all are quantized anew
        before, after = (
            kv_cache_bytes(config, requests=2, context=n, kv_dtype=kv_dtype) for n in (299, 300)
        )
        assert before <= kept <= before + after


def test_more_requests_take_more_cache_and_the_same_weights() -> None:
    config = config_of("llama")
    one, four = (estimate_inference(config, Inference(n, 256)) for n in (1, 4))
    assert one.terms["weights"] == four.terms["weights"]
    assert four.terms[KV_CACHE] == 4 * one.terms[KV_CACHE]


@pytest.mark.parametrize(
    ("name", "inference", "message"),
    [
        ("llama", Inference(0, 10), "requests is 0"),
        ("llama", Inference(1, 1), "context is 1, below 2"),
        ("llama", Inference(1, 10, dtype="fp8"), "dtype 'fp8' is unknown"),
        ("llama", Inference(1, 10, prompt=10), "prompt is 10"),
        ("llama", Inference(1, 10, kv_dtype="fp32"), "kv_dtype 'fp32'"),
        ("bert", Inference(1, 10, prompt=5), "an encoder writes no answer"),
        ("bert", Inference(1, 10, kv_dtype="int8"), "keeps no keys and values"),
        ("t5", Inference(1, 10, kv_dtype="int8"), "without an encoder"),
        ("gpt2", Inference(1, 5000), "learned 1024 positions"),
    ],
    ids=name_of,
)
def test_what_cannot_be_asked(name: str, inference: Inference, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        estimate_inference(config_of(name), inference)
