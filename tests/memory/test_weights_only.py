"""What shapes alone tell, against the trace of a whole model of these shapes."""

from __future__ import annotations

import pytest

from fitune.config import Finetuned
from fitune.memory.estimate import estimate_training
from fitune.memory.weights_only import estimate_update, weigh
from memory_kit import family, training

RESIDENT = ("weights", "gradients", "optimizer states")


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adamw", "adafactor", "adamw-8bit"])
@pytest.mark.parametrize("dtype", ["fp32", "pure-bf16"])
def test_as_in_a_whole_model_of_these_shapes(optimizer: str, dtype: str) -> None:
    config = family("llama")
    whole = estimate_training(config, training(optimizer=optimizer, dtype=dtype))
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    found = estimate_update(shapes, Finetuned(optimizer=optimizer, dtype=dtype))
    assert (found.parameters, found.trainable) == (whole.parameters, whole.trainable)
    expected = {
        name: max(moment.terms.get(name, 0) for moment in whole.timeline) for name in RESIDENT
    }
    # The whole model also has buffers, of rotary frequencies.
    for name in RESIDENT:
        assert found.terms.get(name, 0) == pytest.approx(expected[name], rel=2e-3)
    assert sum(found.terms.values()) == found.peak_bytes == max(found.phases.values())


def test_thirteen_billion_parameters() -> None:
    """The textbook's figures: gradients and Adam's states of 13B in 16 bit are 78 GB."""
    found = estimate_update({"parameters": (13 * 10**9,)}, Finetuned(dtype="pure-bf16"))
    assert found.terms["gradients"] + found.terms["optimizer states"] == pytest.approx(78e9)
    assert found.terms["weights"] == 26e9


def test_weighing() -> None:
    shapes = {"a": (10, 3), "b": (5,), "c": ()}
    for dtype, size in {"fp32": 4, "bf16": 2, "fp16": 2}.items():
        found = weigh(shapes, dtype)
        assert (found.parameters, found.peak_bytes) == (36, 36 * size)
        assert found.terms == {"weights": 36 * size}
