"""Estimates: against every layer traced, against the allocator, and in their own terms."""

from __future__ import annotations

import pytest

from fitune.memory.estimate import estimate_training
from fitune.memory.options import Training
from memory_kit import family, measured, training

CASES = [
    ("llama", training()),
    ("llama", training(method="lora", dtype="bf16", padded=True)),
    ("llama", training(checkpointing=True, micro_batches=2)),
    ("qwen3", training(method="freeze", freeze_layers=5, optimizer="momentum")),
    ("gemma3", training(seq=96, dtype="bf16")),
    ("mixtral", training(method="head", optimizer="sgd")),
    # With kernels so small a peak is that of one product, whose library takes scratch space.
    ("gpt2", training(batch=4, seq=16, dtype="pure-bf16", fused=False)),
    ("gpt2", training(batch=4, seq=64, dtype="pure-bf16")),
    ("bert", training(method="lora")),
    ("distilbert", training(batch=8, seq=12, optimizer="adafactor")),
    ("t5", training()),
]


def name_of(case: object) -> str:
    if isinstance(case, Training):
        options = case.options
        return f"{options.method}-{options.dtype}-{options.optimizer}-{case.batch}x{case.seq}"
    return str(case)


@pytest.mark.parametrize(("name", "asked"), CASES, ids=name_of)
def test_a_few_layers_tell_what_all_would(name: str, asked: Training) -> None:
    config = family(name, layers=9 if name != "gemma3" else 32)
    quick = estimate_training(config, asked)
    exact = estimate_training(config, asked, exact=True)
    assert quick.parameters == exact.parameters
    assert quick.trainable == exact.trainable
    assert quick.peak_bytes == pytest.approx(exact.peak_bytes, rel=1e-3)


@pytest.mark.parametrize("layers", [14, 16, 17, 18])
@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_few_layers_tell_it_wherever_alternation_ends(layers: int, method: str) -> None:
    """Five sliding layers to each full one; the last run of them may be of any length."""
    config, asked = family("gemma3", layers=layers), training(method=method, seq=128)
    quick, exact = (estimate_training(config, asked, exact=exact) for exact in (False, True))
    assert quick.peak_bytes == pytest.approx(exact.peak_bytes, rel=1e-4)
    assert quick.phases == pytest.approx(exact.phases, rel=1e-3)
    assert quick.peak_at == exact.peak_at  # by its name in the whole model


@pytest.mark.parametrize(("name", "asked"), CASES, ids=name_of)
def test_the_allocator_agrees(name: str, asked: Training) -> None:
    config = family(name)
    assert estimate_training(config, asked).peak_bytes == pytest.approx(
        measured(config, asked), rel=0.005
    )


def test_terms_sum_to_the_peak_and_are_what_they_say() -> None:
    config = family("llama", layers=10)
    estimate = estimate_training(config, training(batch=8, seq=64))
    assert sum(estimate.terms.values()) == estimate.peak_bytes
    assert estimate.terms["weights"] >= 4 * estimate.parameters
    # Two fp32 values a parameter, and one count of steps a tensor.
    states = estimate.terms["optimizer states"]
    assert 8 * estimate.parameters <= states <= 8 * estimate.parameters * 1.01
    assert max(estimate.phases.values()) == estimate.peak_bytes
    assert estimate.peak_at.phase in estimate.phases


def test_gradients_are_counted_where_they_matter_most() -> None:
    """One short row: the peak is where all gradients are alive."""
    asked = training(batch=1, seq=4, fused=False)
    estimate = estimate_training(family("llama", layers=10), asked)
    assert estimate.terms["gradients"] == pytest.approx(4 * estimate.parameters, rel=0.01)


def test_sgd_keeps_nothing_momentum_one_value_adamw_two() -> None:
    config = family("llama")
    held = {
        name: estimate_training(config, training(optimizer=name)).terms.get("optimizer states", 0)
        for name in ("sgd", "momentum", "adamw")
    }
    parameters = estimate_training(config, training()).parameters
    assert held["sgd"] == 0
    assert held["momentum"] == pytest.approx(4 * parameters, rel=0.01)
    assert held["adamw"] == pytest.approx(8 * parameters, rel=0.01)


def test_padding_costs_decoders_a_mask() -> None:
    config = family("llama")
    even = estimate_training(config, training(seq=300, packed=False)).peak_bytes
    ragged = training(seq=300, packed=False, padded=True)
    assert estimate_training(config, ragged).peak_bytes > even


def test_cuda_keeps_dropout_masks_in_one_byte() -> None:
    from dataclasses import replace

    config = family("bert")
    asked = training(batch=8, seq=64, dropout=0.1)
    on_cpu = estimate_training(config, asked).peak_bytes
    assert estimate_training(config, replace(asked, device="cuda")).peak_bytes < on_cpu
