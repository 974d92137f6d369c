"""Where a model is to run, and how much memory is there."""

from __future__ import annotations

import pytest

from fitune import targets
from fitune.devices import find_device
from fitune.errors import ConfigError
from fitune.hardware import Gpu, Machine
from fitune.targets import find_target

GPU = Gpu("NVIDIA GeForce RTX 4090", 24 * 2**30, 20 * 2**30, (8, 9), True)
ODD = Gpu("A card that nobody knows", 8 * 2**30, 7 * 2**30, (7, 5), False)


def machine(*gpus: Gpu) -> Machine:
    return Machine("Linux", "a", 2, 64 * 2**30, 50 * 2**30, True, gpus, 10)


@pytest.fixture(params=[()], ids=["cpu"])
def here(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "this_machine", lambda **_: machine(*request.param))


def test_this_machines_free_memory(here: None) -> None:
    target = find_target(None, None)
    assert (target.kernels, target.budget, target.given) == ("cpu", 50 * 2**30, False)
    assert target.here and target.bf16 and target.device is None


@pytest.mark.parametrize("here", [(GPU,)], indirect=True)
def test_a_gpu_comes_before_the_cpu(here: None) -> None:
    target = find_target(None, None)
    assert (target.kernels, target.budget) == ("cuda", 20 * 2**30)
    assert target.device == find_device("RTX 4090")
    assert find_target("cpu", None).kernels == "cpu"
    assert find_target("cuda", None).given


@pytest.mark.parametrize("here", [(ODD,)], indirect=True)
def test_a_gpu_outside_the_catalogue(here: None) -> None:
    target = find_target(None, None)
    assert (target.device, target.capability, target.bf16) == (None, (7, 5), False)


def test_no_gpu_here(here: None) -> None:
    with pytest.raises(ConfigError, match="no CUDA device here"):
        find_target("cuda", None)


@pytest.mark.parametrize(
    ("name", "kernels", "capability", "bf16"),
    [
        ("A100 SXM 80GB", "cuda", (8, 0), True),
        ("T4", "cuda", (7, 5), False),
        ("MI300X", "cuda", None, True),
        ("M4 Max 64GB", "cpu", None, True),
    ],
)
def test_a_device_of_the_catalogue(
    name: str, kernels: str, capability: tuple[int, int] | None, bf16: bool
) -> None:
    target = find_target(name, None)
    device = find_device(name)
    assert (target.kernels, target.capability, target.bf16) == (kernels, capability, bf16)
    assert (target.budget, target.of, target.given) == (device.usable_bytes, device.name, True)
    assert not target.here


def test_a_budget_comes_before_the_devices_memory(here: None) -> None:
    assert find_target("A100 SXM 80GB", "1.5GiB").budget == 3 * 2**29
    assert find_target(None, 1000).budget == 1000
    assert find_target(None, "24GB").given
    with pytest.raises(ConfigError, match="not an amount of memory"):
        find_target(None, "much")
