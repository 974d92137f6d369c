"""Seconds of what is asked, against the rules of thumb that everybody uses."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fitune.devices import find_device
from fitune.memory.estimate import estimate_training
from fitune.memory.inference import estimate_inference
from fitune.memory.options import Inference, Training
from fitune.memory.parameters import meta_model
from fitune.memory.roofline import Roofline
from fitune.memory.scenario import apply_method
from fitune.memory.timing import times
from fitune.models.bundled import bundled_config, find_bundled
from fitune.training.precision import FROZEN_BASE
from memory_kit import training

DEVICE = find_device("A100 SXM 80GB")
PARAMETERS = 8_030_261_248 - 128256 * 4096  # without the input embeddings


def of_8b(asked: Training | Inference, price: float | None = None) -> tuple[Roofline, ...]:
    found = find_bundled("llama-3.1-8b")
    assert found is not None
    config: Any = bundled_config(found)
    model: Any = meta_model(config, asked)
    if isinstance(asked, Inference):
        model, estimate = model.requires_grad_(False), estimate_inference(config, asked)
    else:
        estimate = estimate_training(config, asked)
        if asked.options.method in FROZEN_BASE:
            model.requires_grad_(False)
        else:
            with torch.device("meta"):
                model = apply_method(model, asked)
    return times(config, model, estimate=estimate, asked=asked, device=DEVICE, price_per_hour=price)


def test_six_flops_a_parameter_and_token_in_training() -> None:
    (step,) = of_8b(training(batch=2, seq=256, dtype="bf16"), price=2.0)
    assert step.flops == pytest.approx(6 * PARAMETERS * 512, rel=0.02)
    # AdamW reads weight, gradient and two states in fp32, and writes all but the gradient.
    update = 28 * 8.03e9 / (2.039e12 * 0.7)
    assert step.seconds == pytest.approx(step.flops / (312e12 * 0.4) + update, rel=0.01)
    assert step.cost == pytest.approx(step.seconds / 3600 * 2)
    assert "not measured" in step.label


def test_four_with_adapters_and_twice_the_micro_batches_twice_the_work() -> None:
    (step,) = of_8b(training(method="lora", dtype="bf16", batch=2, seq=256))
    (double,) = of_8b(training(method="lora", dtype="bf16", batch=2, seq=256, micro_batches=2))
    assert step.flops == pytest.approx(4 * PARAMETERS * 512, rel=0.03)
    assert double.flops == 2 * step.flops


def test_two_in_reading_and_the_weights_once_a_token_in_writing() -> None:
    read, write = of_8b(Inference(1, 1024))
    assert (read.work, write.work) == ("prefill", "decode step")
    layers = PARAMETERS - 128256 * 4096  # of a prompt only the last token goes through the head
    assert read.flops == pytest.approx(2 * layers * 1024, rel=0.05)
    assert write.bound == "memory"
    assert write.seconds == pytest.approx(2 * PARAMETERS / (2.039e12 * 0.7), rel=0.05)


def test_a_quantized_cache_moves_less() -> None:
    plain, small = (
        of_8b(Inference(8, 4096, kv_dtype=kv_dtype))[1].bytes for kv_dtype in (None, "int8")
    )
    cache = 2 * 1024 * 32 * 4096 * 8  # numbers cached
    assert plain - small == pytest.approx(cache * (2 - 8.5 / 8), rel=1e-3)
