"""Kinds of operations: each of torch's names has one, and the shares are those of the time."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from fitune.training.operations import (
    ATTENTION,
    COPIES,
    ELEMENTWISE,
    KINDS,
    MATRIX,
    OPTIMIZER,
    OVERHEAD,
    shares,
)


def event(name: str, taken: float = 1.0, parent: Any = None, **more: Any) -> Any:
    """Of `taken` seconds on the processor."""
    return SimpleNamespace(
        name=name, self_cpu_time_total=taken * 1e6, cpu_parent=parent, **more
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "within", "kind"),
    [
        ("aten::mm", "aten::linear", MATRIX),
        ("aten::addmm", None, MATRIX),
        ("bitsandbytes::gemv_4bit", None, MATRIX),
        ("aten::mm", "_AttendBackward", ATTENTION),
        ("aten::bmm", "aten::matmul", ATTENTION),
        ("aten::_scaled_dot_product_flash_attention_for_cpu", None, ATTENTION),
        ("aten::_softmax", None, ATTENTION),
        ("aten::_log_softmax", None, ELEMENTWISE),
        ("aten::mul", "MulBackward0", ELEMENTWISE),
        ("aten::native_layer_norm", None, ELEMENTWISE),
        ("aten::copy_", "aten::_to_copy", COPIES),
        ("aten::index_select", "_HeadLoss", COPIES),
        ("aten::_fused_adamw_", "Optimizer.step#AdamW.step", OPTIMIZER),
        ("aten::copy_", "Optimizer.step#Lion.step", OPTIMIZER),
        ("aten::view", None, OVERHEAD),
        ("autograd::engine::evaluate_function: MmBackward0", None, OVERHEAD),
        ("_HeadLoss", None, OVERHEAD),
    ],
)
def test_every_name_has_its_kind(name: str, within: str | None, kind: str) -> None:
    above = None if within is None else event(within, parent=event("the step"))
    found = shares([event(name, parent=above)], 1.0)
    assert found == {**dict.fromkeys(KINDS, 0.0), kind: 1.0}


def test_what_no_operation_accounts_for_is_overhead() -> None:
    found = shares([event("aten::mm", 3.0), event("aten::mul", 1.0)], 10.0)
    assert (found[MATRIX], found[ELEMENTWISE], found[OVERHEAD]) == (0.3, 0.1, 0.6)


def test_on_a_gpu_the_devices_time_counts() -> None:
    launched = event("aten::mm", 0.1, self_device_time_total=4e6, device_type="DeviceType.CPU")
    kernel = event("sgemm", 0.0, self_device_time_total=4e6, device_type="DeviceType.CUDA")
    found = shares([launched, kernel], 5.0, cuda=True)
    assert (found[MATRIX], found[OVERHEAD]) == (0.8, pytest.approx(0.2))


def test_of_a_real_profile() -> None:
    """Large products take nearly all of the time of a chain of them."""
    x = torch.randn(1200, 1200)  # products grow faster than what else there is
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        for _ in range(5):
            x = (x @ x).relu() * 1e-3
    seconds = sum(e.self_cpu_time_total for e in seen.events()) / 1e6
    found = shares(seen.events(), seconds)
    assert sum(found.values()) == pytest.approx(1.0)
    assert found[MATRIX] > 0.5 and found[ATTENTION] == 0.0
