"""A CUDA process, estimated: against a replay of every event."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fitune.memory.cuda import workspace_bytes
from fitune.memory.estimate import estimate_training
from fitune.memory.inference import estimate_inference
from fitune.memory.options import Inference, Training
from fitune.memory.process import CudaProcess, cuda_process, replay_step
from memory_kit import family, training

AMPERE = (8, 0)


def asked(*, batch: int = 8, **options: Any) -> Training:
    return replace(training(batch=batch, seq=128, **options), device="cuda")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"method": "lora", "dtype": "bf16", "fused": False},
        # Kernels keep so little that 8 rows fill four segments of 20 MiB: one is a quarter then.
        {"method": "lora", "dtype": "bf16", "batch": 16},
    ],
)
def test_a_few_layers_lose_as_much_as_all(options: dict[str, Any]) -> None:
    config, how = family("llama", layers=16), asked(**options)
    peak = estimate_training(config, how).peak_bytes
    few, all_of_them = (
        cuda_process(config, how, peak, AMPERE, exact=exact) for exact in (False, True)
    )
    assert few.live == all_of_them.live == peak + workspace_bytes(AMPERE)
    assert few.allocated == pytest.approx(all_of_them.allocated, rel=0.02)
    assert few.reserved == pytest.approx(all_of_them.reserved, rel=0.10)
    assert (few.exact, all_of_them.exact) == (False, True)


def check_order(process: CudaProcess) -> None:
    assert process.live <= process.allocated <= process.reserved < process.total
    assert process.total == process.reserved + sum(process.outside.values())
    assert set(process.uncertainty) >= {"live", "allocated", "reserved", *process.outside}


def test_live_below_allocated_below_reserved() -> None:
    config, how = family("llama"), asked()
    peak = estimate_training(config, how).peak_bytes
    check_order(cuda_process(config, how, peak, AMPERE))
    several = cuda_process(config, how, peak, AMPERE, devices=8)
    assert several.outside["communicators"] > 0


def test_answering_has_a_process_too() -> None:
    config, how = family("llama"), Inference(4, 64, device="cuda")
    peak = estimate_inference(config, how).peak_bytes
    process = cuda_process(config, how, peak, (9, 0))
    check_order(process)
    assert process.workspace == workspace_bytes((9, 0), training=False)


def test_an_exact_replay_sees_the_estimate_and_the_workspaces() -> None:
    config, how = family("llama"), asked()
    peak = estimate_training(config, how, exact=True).peak_bytes
    sizes = [8 << 20, 8 << 20]
    found = replay_step(config, how, sizes, exact=True)
    assert found.live_peak == pytest.approx(peak + sum(sizes), rel=1e-3)
