"""Formulas beside traces: known figures, and reasons only where the two part."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fitune.memory.estimate import Estimate, estimate_training
from fitune.memory.explain import (
    Sizes,
    explain_inference,
    explain_training,
    in_textbook_terms,
    sizes_of,
    weights_counted,
)
from fitune.memory.inference import estimate_inference
from fitune.memory.options import Inference, Training
from fitune.memory.textbook import TERMS
from fitune.models.bundled import bundled_config, find_bundled
from memory_kit import family, training


def sizes(config: Any, estimate: Estimate, head: int = 0) -> Sizes:
    return sizes_of(config, parameters=estimate.parameters, head=head)


def told(asked: Training, vocabulary: int = 3000) -> Any:
    config = family("llama")
    config.vocab_size = vocabulary
    estimate = estimate_training(config, asked)
    return explain_training(estimate, asked, sizes(config, estimate, head=vocabulary * 64))


def test_the_figures_of_13b() -> None:
    """Published: 26.03 GB, 23.94 GiB without the head, 31.2 GB with a fifth more, 78 GB."""
    found = find_bundled("llama-2-13b")
    assert found is not None
    config = bundled_config(found)
    counted = list(
        weights_counted(sizes_of(config, parameters=13_015_864_320, head=163_840_000)).values()
    )
    assert counted[0] / 1e9 == pytest.approx(26.03, abs=0.005)
    assert counted[1] / 2**30 == pytest.approx(23.94, abs=0.005)
    assert counted[2] / 1e9 == pytest.approx(31.2, abs=0.05)
    assert counted[3] / 1e9 == pytest.approx(78.1, abs=0.05)


def test_a_shared_head_is_not_taken_off() -> None:
    plain = sizes_of(family("gpt2"), parameters=1000, head=0)
    assert len(weights_counted(plain)) == 3


@pytest.mark.parametrize("name", ["llama", "bert", "t5"])
def test_no_byte_is_lost_on_the_way_to_the_textbooks_terms(name: str) -> None:
    estimate = estimate_training(family(name), training())
    found = in_textbook_terms(estimate)
    assert sum(found.values()) == estimate.peak_bytes
    assert tuple(found) == TERMS


def test_each_reason_is_about_a_term_that_parts() -> None:
    explanation = told(training(dtype="bf16", seq=96, batch=4))
    text = " ".join(explanation.reasons)
    assert "Weights take" in text and "held in fp32" in text
    assert "Optimizer states take" in text
    formula = explanation.formulas[0]
    for name, label in (("weights", "Weights"), ("optimizer states", "Optimizer states")):
        said, found = formula.terms[name], explanation.traced[name]
        assert (f"{label} take" in text) == (abs(said - found) > 0.02 * max(said, found))


def test_where_formula_and_trace_agree_there_is_no_reason() -> None:
    """All in one dtype, as the formula has it: weights, gradients and states are as it says."""
    explanation = told(training(dtype="fp32", seq=4, batch=1))
    text = " ".join(explanation.reasons)
    for words in ("Weights take", "gradients together", "Optimizer states take"):
        assert words not in text


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "qlora", "dtype": "bf16", "rank": 1}, "4.13 bits"),
        ({"optimizer": "adafactor"}, "a sum for each row"),
        ({"optimizer": "adamw-8bit"}, "two values of 8 bits"),
        ({"checkpointing": True}, "computed again"),
        ({"ema": 0.9}, "of averaged weights"),
        ({"method": "freeze", "freeze_layers": 5}, "keeps nothing"),
        ({"method": "lora", "dtype": "bf16", "fused": False}, "adapters keep"),
        ({"method": "lora", "dtype": "bf16", "seq": 96}, "adapters keep"),
    ],
)
def test_reasons_name_their_cause(options: dict[str, Any], words: str) -> None:
    explanation = told(training(batch=4, **options), vocabulary=320)
    assert words in " ".join(explanation.reasons)


def test_only_learned_tokens_have_logits() -> None:
    explanation = told(replace(training(batch=4), answer_tokens=2))
    assert "only learned tokens" in " ".join(explanation.reasons)


def test_answering() -> None:
    config = family("llama")
    asked = Inference(8, 512)
    estimate = estimate_inference(config, asked)
    explanation = explain_inference(estimate, asked, sizes(config, estimate, head=3000 * 64))
    (formula,) = explanation.formulas
    assert formula.total == pytest.approx(2 * estimate.parameters * 1.2, rel=1e-6)
    assert "cached keys and values" in explanation.reasons[0]
    assert sum(explanation.traced.values()) == estimate.peak_bytes
