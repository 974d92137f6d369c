"""Options that change what a step holds: estimated as measured, with fewer layers as with all."""

from __future__ import annotations

from typing import Any

import pytest

from fitune.memory.estimate import estimate_training
from memory_kit import family, measured, training

CASES: list[tuple[str, dict[str, Any]]] = [
    ("bert", {"ema": 0.999, "seq": 16}),
    ("bert", {"ema": 0.999, "dtype": "pure-bf16", "optimizer": "sgd"}),
    ("llama", {"neftune": 5.0, "batch": 8, "padded": True}),
    ("bert", {"neftune": 5.0, "dtype": "bf16", "batch": 8, "method": "lora"}),
    ("llama", {"method": "lora", "lora_init": "pissa", "rslora": True, "lora_plus": 16.0}),
    ("llama", {"optimizer": "lion", "seq": 8}),
    ("bert", {"optimizer": "lion", "dtype": "pure-bf16", "seq": 8}),
    ("llama", {"method": "prompt-tuning"}),
    ("gpt2", {"method": "prompt-tuning", "checkpointing": True}),
    ("llama", {"method": "prefix-tuning", "batch": 4, "padded": True}),
    ("gpt2", {"method": "prefix-tuning", "seq": 16, "optimizer": "lion"}),
    ("llama", {"method": "ia3"}),
    ("bert", {"method": "ia3", "batch": 4}),
    ("bert", {"method": "bitfit"}),
    ("llama", {"checkpointing": 2}),
    ("bert", {"checkpointing": 3, "method": "lora", "batch": 8}),
    ("bert", {"class_weights": "balanced", "label_smoothing": 0.1, "layer_decay": 0.9}),
    ("llama", {"segments": 5, "seq": 100}),
    ("llama", {"shared_prefix": 30, "batch": 4}),
    ("gpt2", {"shared_prefix": 20, "segments": 3, "seq": 90, "answer_tokens": 4, "dtype": "bf16"}),
    ("gemma3", {"shared_prefix": 70, "seq": 100, "batch": 3, "method": "lora"}),
    ("qwen3", {"shared_prefix": 20, "batch": 2, "objective": "dpo", "method": "lora"}),
]


def name_of(case: object) -> str:
    return "-".join(f"{k}={v}" for k, v in case.items()) if isinstance(case, dict) else str(case)


@pytest.mark.parametrize(("name", "options"), CASES, ids=name_of)
def test_the_allocator_agrees(name: str, options: dict[str, Any]) -> None:
    config, asked = family(name), training(**options)
    assert estimate_training(config, asked).peak_bytes == pytest.approx(
        measured(config, asked), rel=0.01
    )


@pytest.mark.parametrize(("name", "options"), CASES, ids=name_of)
def test_a_few_layers_tell_what_all_would(name: str, options: dict[str, Any]) -> None:
    config, asked = family(name, layers=10), training(**options)
    quick, exact = (estimate_training(config, asked, exact=exact) for exact in (False, True))
    assert (quick.parameters, quick.trainable) == (exact.parameters, exact.trainable)
    assert quick.peak_bytes == pytest.approx(exact.peak_bytes, rel=1e-3)


def test_what_rows_share_takes_its_memory_once() -> None:
    config = family("llama")
    apart, shared = (
        estimate_training(config, training(batch=16, seq=100, shared_prefix=tokens)).peak_bytes
        for tokens in (0, 60)
    )
    own = estimate_training(config, training(batch=16, seq=40)).peak_bytes
    assert own < shared < (apart + own) / 2
    alone = training(batch=1, seq=100, shared_prefix=60)  # nothing to share with
    assert (
        estimate_training(config, alone).peak_bytes
        == estimate_training(config, training(batch=1, seq=100)).peak_bytes
    )


def test_an_average_is_four_bytes_of_each_that_trains() -> None:
    config = family("llama")
    estimate = estimate_training(config, training(ema=0.99, method="lora"))
    assert estimate.terms["averaged weights"] == 4 * estimate.trainable
