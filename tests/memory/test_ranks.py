"""Several devices: against the estimate of one, and against what ZeRO's paper says."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch

from fitune.memory.estimate import Estimate, estimate_training
from fitune.memory.parameters import meta_model, parameter_facts
from fitune.memory.ranks import Rank, per_rank
from fitune.memory.scenario import apply_method
from fitune.memory.sharding import ParameterFacts, Sharding
from memory_kit import family, training

CONFIG = family("llama", layers=8)  # every size is a multiple of 8
CONFIG.vocab_size = 320  # so that layers and not the embeddings are the most that is gathered


@cache
def traced(**options: Any) -> tuple[Estimate, tuple[ParameterFacts, ...]]:
    asked = training(**options)
    with torch.device("meta"):
        model = apply_method(meta_model(CONFIG, asked), asked)
    return estimate_training(CONFIG, asked), tuple(parameter_facts(model))


def divided(sharding: Sharding, **options: Any) -> tuple[Estimate, Rank]:
    alone, facts = traced(**options)
    return alone, per_rank(alone, facts, sharding)


def at_update(estimate: Estimate) -> dict[str, int]:
    return max((m for m in estimate.timeline if m.phase == "update"), key=lambda m: m.bytes).terms


def test_one_device_is_as_before() -> None:
    alone, rank = divided(Sharding(1))
    assert rank.estimate == alone
    assert rank.host == {}


@pytest.mark.parametrize("strategy", ["ddp", "fsdp", "zero1", "zero2", "zero3"])
@pytest.mark.parametrize("options", [{}, {"method": "lora", "dtype": "bf16"}])
def test_terms_sum_at_every_moment(strategy: Any, options: dict[str, Any]) -> None:
    _, rank = divided(Sharding(4, strategy), **options)
    estimate = rank.estimate
    assert all(sum(moment.terms.values()) == moment.bytes for moment in estimate.timeline)
    assert sum(estimate.terms.values()) == estimate.peak_bytes
    assert estimate.peak_bytes == max(moment.bytes for moment in estimate.timeline)
    assert max(estimate.phases.values()) == estimate.peak_bytes
    assert min(min(moment.terms.values()) for moment in estimate.timeline) > 0


def test_fsdp_divides_weights_gradients_and_states_by_the_devices() -> None:
    alone, rank = divided(Sharding(4, "fsdp"))
    whole, part = at_update(alone), at_update(rank.estimate)
    for name in ("gradients", "optimizer states"):
        # A count of steps a tensor is not divided in truth; here it is.
        assert part[name] == pytest.approx(whole[name] / 4, rel=1e-3)
    assert part["weights"] == pytest.approx(whole["weights"] / 4, rel=1e-3)
    assert "gathered layers" not in part
    backward = {name for m in rank.estimate.timeline if m.phase == "backward" for name in m.terms}
    assert {"gathered layers", "unreduced gradients", "communication buffers"} <= backward


def test_activations_are_those_of_a_device_alone() -> None:
    alone, rank = divided(Sharding(4, "fsdp"), batch=8, seq=64)
    before, after = (
        {n: s for n, s in max(e.timeline, key=lambda m: m.bytes).terms.items() if ":" in n}
        for e in (alone, rank.estimate)
    )
    assert before == after and before


def test_ddp_keeps_everything_and_the_gradients_twice() -> None:
    alone, rank = divided(Sharding(4, "ddp"))
    whole, part = at_update(alone), at_update(rank.estimate)
    assert part["communication buffers"] == whole["gradients"]
    assert {name: part[name] for name in whole} == whole


def test_mixed_precision_adam_as_in_the_paper_of_zero() -> None:
    """Rajbhandari et al., arXiv:1910.02054, figure 1: of 16 bytes a parameter, stage 3 leaves
    16 / N; here 4 + 4 + 8 bytes in fp32, the same 16."""
    _, rank = divided(Sharding(8, "zero3"))
    held = at_update(rank.estimate)
    parameters = rank.estimate.parameters
    states = held["weights"] + held["gradients"] + held["optimizer states"]
    assert states == pytest.approx(16 * parameters / 8, rel=0.01)


def test_what_is_offloaded_is_on_the_host() -> None:
    alone, rank = divided(Sharding(2, "fsdp", offload=True))
    assert set(rank.host) == {"weights", "gradients", "optimizer states"}
    assert rank.host["optimizer states"] == pytest.approx(
        at_update(alone)["optimizer states"] / 2, rel=1e-3
    )
    assert "optimizer states" not in rank.estimate.terms
    assert rank.estimate.peak_bytes < alone.peak_bytes


def test_buffers_stay_whole() -> None:
    """Four-bit scales are buffers, which nobody divides."""
    asked = training(method="qlora", dtype="bf16", fused=False)
    with torch.device("meta"):
        model: Any = apply_method(meta_model(CONFIG, asked), asked)
    alone = estimate_training(CONFIG, asked)
    rank = per_rank(alone, parameter_facts(model), Sharding(1000, "fsdp"))
    buffers = sum(b.numel() * b.element_size() for b in model.buffers())
    rows = sum(-(-p.shape[0] // 1000) * p[0].numel() * p.element_size() for p in model.parameters())
    assert at_update(rank.estimate)["weights"] == pytest.approx(buffers + rows, rel=1e-3)
