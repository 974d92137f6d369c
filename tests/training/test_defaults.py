"""Defaults: sensible at the sizes whose good values are published, and monotonic between."""

from __future__ import annotations

from itertools import pairwise

import pytest

from fitune.config import Finetuned
from fitune.models.architecture import Architecture
from fitune.models.pooling import Pooling
from fitune.training.defaults import resolve


def architecture(kind: str, parameters: float, length: int = 512) -> Architecture:
    return Architecture("x", kind, int(parameters), 12, 768, 30_000, length)  # type: ignore[arg-type]


def resolved(kind: str, parameters: float, rows: int = 10_000, **given: object) -> Finetuned:
    return resolve(
        Finetuned(**given),  # type: ignore[arg-type]
        architecture(kind, parameters),
        rows=rows,
        dtype="fp32",
        seed=5,
        pooling=Pooling("mean", True, 256),
    )


@pytest.mark.parametrize(
    ("kind", "parameters", "method", "low", "high"),
    [
        ("encoder", 22.7e6, "full", 1e-4, 3e-4),
        ("encoder", 110e6, "full", 2e-5, 8e-5),  # BERT's own grid: 2e-5 to 5e-5
        ("encoder", 340e6, "full", 1e-5, 5e-5),
        ("decoder", 7e9, "lora", 1e-4, 3e-4),  # QLoRA, table 9: 2e-4
        ("decoder", 135e6, "lora", 3e-4, 1e-3),
        ("decoder", 7e9, "full", 1e-5, 3e-5),
    ],
)
def test_learning_rates_near_published_ones(
    kind: str, parameters: float, method: str, low: float, high: float
) -> None:
    rate = resolved(kind, parameters, method=method).learning_rate
    assert rate is not None and low <= rate <= high


def test_nothing_given_is_replaced() -> None:
    given = {
        "learning_rate": 0.5,
        "head_learning_rate": 0.25,
        "epochs": 7.5,
        "batch_size": 3,
        "label_smoothing": 0.0,
        "max_length": 17,
        "seed": 9,
        "method": "head",
    }
    options = resolved("encoder", 1e8, **given)
    assert {name: getattr(options, name) for name in given} == given


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_more_rows_are_seen_fewer_times(kind: str) -> None:
    sizes = [100, 500, 1_000, 3_000, 10_000, 30_000, 100_000, 1_000_000]
    epochs = [resolved(kind, 1e8, rows).epochs or 0.0 for rows in sizes]
    assert all(a >= b >= 1 for a, b in pairwise(epochs))
    steps = [
        rows * e / (resolved(kind, 1e8, rows).batch_size or 1)
        for rows, e in zip(sizes, epochs, strict=True)
    ]
    assert steps[0] >= 20, "even a hundred rows need enough steps to learn"


def test_every_default_that_training_reads_is_filled() -> None:
    for kind in ("encoder", "decoder"):
        options = resolved(kind, 1e8)
        for name in ("method", "learning_rate", "head_learning_rate", "epochs", "batch_size"):
            assert getattr(options, name) is not None, name
        assert options.dtype == "fp32" and options.seed == 5


def test_an_encoder_keeps_the_length_it_was_trained_with() -> None:
    assert resolved("encoder", 1e8).max_length == 256
    assert resolved("decoder", 1e8).max_length == 256  # pooled decoders are embedding models


def test_methods_of_few_values_and_lion_take_rates_of_their_own() -> None:
    def rate(**given: object) -> float:
        found = resolved("decoder", 7e9, **given).learning_rate
        assert found is not None
        return found

    assert rate(method="ia3") == 3e-3  # Liu et al., arXiv:2205.05638
    assert rate(method="prompt-tuning") > rate(method="prefix-tuning") > rate(method="lora")
    # BitFit's grid for BERT-base: 1e-4 to 1e-3.
    assert 1e-4 <= (resolved("encoder", 110e6, method="bitfit").learning_rate or 0) <= 1e-3
    # Chen et al., arXiv:2302.06675, section 5: 3 to 10 times smaller than AdamW's.
    assert rate(optimizer="adamw") / 10 <= rate(optimizer="lion") <= rate(optimizer="adamw") / 3
    heads = [resolved("encoder", 22.7e6, optimizer=o).head_learning_rate for o in ("adamw", "lion")]
    assert heads[0] and heads[1] and heads[0] / 10 <= heads[1] <= heads[0] / 3
    assert resolved("decoder", 7e9, optimizer="lion", learning_rate=0.5).learning_rate == 0.5


def test_virtual_tokens_take_their_part_of_the_context() -> None:
    options = Finetuned(method="prefix-tuning", virtual_tokens=30)
    made = architecture("decoder", 1e8, length=512)
    found = resolve(options, made, rows=100, dtype="fp32", seed=0, pooling=None)
    assert found.max_length == 482
