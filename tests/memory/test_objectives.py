"""What is planned is what is trained, for each objective."""

from __future__ import annotations

from typing import Any

import pytest

from fitune.memory.estimate import estimate_training
from fitune.memory.micro_batch import micro_batch_tokens
from fitune.memory.trial import try_training
from fitune.models.architecture import describe_config
from memory_kit import family, training


@pytest.mark.parametrize(
    "options",
    [
        {"objective": "dpo", "method": "full", "padded": True},
        {"objective": "dpo", "method": "lora", "dtype": "bf16", "batch": 3},
        {"objective": "masked", "method": "full", "padded": True, "batch": 4},
    ],
    ids=lambda options: f"{options['objective']}-{options['method']}",
)
def test_a_step_takes_what_was_estimated(options: dict[str, Any]) -> None:
    config = family("bert" if options["objective"] == "masked" else "llama")
    asked = training(**options)
    estimate, trial = estimate_training(config, asked), try_training(config, asked)
    assert estimate.peak_bytes == pytest.approx(trial.peak_bytes, rel=0.01)


def test_a_pair_is_two_sequences() -> None:
    config = family("llama")
    pairs = estimate_training(config, training(batch=2, objective="dpo"))
    rows = estimate_training(config, training(batch=4, fused=False))
    # The rows are the same; answers are judged one by one, with a few bytes for where they stand.
    assert pairs.peak_bytes == pytest.approx(rows.peak_bytes, rel=0.1)


def test_a_micro_batch_of_pairs_fits() -> None:
    """The tokens are those of both answers of each pair."""
    config = family("llama", layers=2)
    asked = training(batch=16, objective="dpo", seq=40)
    peak = estimate_training(config, training(batch=5, seq=40, objective="dpo")).peak_bytes
    tokens = micro_batch_tokens(
        config, asked, [80] * 16, peak + 1000, architecture=describe_config(config)
    )
    assert tokens == 5 * 80
