"""The real step: what was estimated is what is measured, term by term."""

from __future__ import annotations

from typing import Any

import pytest

from fitune.memory.estimate import estimate_training
from fitune.memory.inference import estimate_inference
from fitune.memory.options import Inference
from fitune.memory.trial import try_inference, try_training
from fitune.models.pooling import Pooling
from memory_kit import family, training


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("llama", {}),
        ("llama", {"method": "lora", "dtype": "bf16", "batch": 4}),
        ("bert", {"optimizer": "momentum", "batch": 8, "seq": 64}),
    ],
)
def test_training(name: str, options: dict[str, Any]) -> None:
    config, asked = family(name), training(**options)
    estimate, trial = estimate_training(config, asked), try_training(config, asked)
    assert estimate.peak_bytes == pytest.approx(trial.peak_bytes, rel=0.005)
    assert set(estimate.terms) == set(trial.terms)
    for term, amount in estimate.terms.items():
        assert amount == pytest.approx(trial.terms[term], rel=0.01, abs=256), term
    assert trial.seconds > 0


def test_four_bit_layers() -> None:
    pytest.importorskip("bitsandbytes")
    config, asked = family("llama"), training(method="qlora", dtype="bf16")
    estimate, trial = estimate_training(config, asked), try_training(config, asked)
    assert estimate.peak_bytes == pytest.approx(trial.peak_bytes, rel=0.01)


def test_pooled_encoders() -> None:
    pooling = Pooling("mean", normalize=True)
    config, asked = family("bert"), training(batch=4)
    estimate = estimate_training(config, asked, pooling=pooling)
    trial = try_training(config, asked, pooling)
    assert estimate.peak_bytes == pytest.approx(trial.peak_bytes, rel=0.005)


@pytest.mark.parametrize("name", ["llama", "bert"])
def test_answering(name: str) -> None:
    config, asked = family(name), Inference(2, 64, dtype="fp32")
    estimate, trial = estimate_inference(config, asked), try_inference(config, asked)
    assert estimate.peak_bytes == pytest.approx(trial.peak_bytes, rel=0.02)
    for term, amount in estimate.terms.items():
        assert amount == pytest.approx(trial.terms.get(term, 0), rel=0.02, abs=1024), term


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("tied", [True, False])
def test_a_heads_gradient_is_a_gradient(dtype: str, tied: bool) -> None:
    """Also where it is made together with the loss, and where the embeddings share the weight."""
    config = family("llama", layers=2)
    config.tie_word_embeddings, config.vocab_size = tied, 20_000
    asked = training(dtype=dtype, optimizer="sgd", batch=1, seq=4)
    estimate, trial = estimate_training(config, asked), try_training(config, asked)
    head = 20_000 * 64 * (4 if dtype == "fp32" else 2)
    going_back = [m for m in estimate.timeline if m.phase == "backward" and m.step == 1]
    assert len(going_back) > 3
    for moment in going_back:
        assert moment.terms["gradients"] >= head, moment.place
        assert moment.terms.get("logits and loss", 0) < head / 2, moment.place
    assert estimate.terms.keys() == trial.terms.keys()
    for term, amount in estimate.terms.items():
        assert amount == pytest.approx(trial.terms[term], rel=0.01, abs=2048), term
