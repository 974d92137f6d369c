"""The catalogue agrees with vendors' documents, and every way to name a device finds it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fitune.devices import DEVICES, DTYPES, Device, find_device
from fitune.devices.figures import usable_apple_bytes, usable_gpu_bytes
from fitune.errors import ConfigError
from fitune.sizes import GIB


def test_the_catalogue_is_broad_and_every_entry_is_complete() -> None:
    assert len({device.name for device in DEVICES}) == len(DEVICES) >= 45
    for device in DEVICES:
        assert GIB <= device.usable_bytes <= device.memory_bytes < 1024 * GIB
        assert 10e9 < device.bandwidth < 10e12
        assert set(device.flops) <= set(DTYPES) and "fp32" in device.flops
        assert all(1e12 < rate < 20e15 for rate in device.flops.values())
        assert device.source and device.architecture == device.architecture.lower()
        assert hash(device) is not None
        nvidia = device.kind == "gpu" and "NVIDIA" in device.source
        assert (device.capability is not None) == nvidia


# Peaks printed in NVIDIA's architecture whitepapers (dense, fp32 accumulation), TFLOP per second:
# Turing, appendix A (reference cards); GA102, appendix A and table 3; Ada v2.1, appendix A;
# RTX Blackwell, table 3; RTX Blackwell PRO, table 4.
WHITEPAPER = [
    ("RTX 2080 Ti", "fp32", 13.4),
    ("RTX 2080 Ti", "fp16", 53.8),
    ("RTX 2080 Ti", "int8", 215.2),
    ("Titan RTX", "fp16", 130.5),
    ("Titan RTX", "int8", 261.0),
    ("RTX 3090", "fp32", 35.6),
    ("RTX 3090", "tf32", 35.6),
    ("RTX 3090", "bf16", 71.0),
    ("RTX 3090", "int8", 284.0),
    ("RTX A6000", "fp32", 38.7),
    ("RTX A6000", "bf16", 154.8),
    ("RTX A6000", "int8", 309.7),
    ("RTX 4090", "fp32", 82.6),
    ("RTX 4090", "tf32", 82.6),
    ("RTX 4090", "bf16", 165.2),
    ("RTX 4090", "fp8", 330.3),
    ("RTX 4090", "int8", 660.6),
    ("RTX 6000 Ada", "bf16", 364.2),
    ("RTX 5090", "fp32", 104.8),
    ("RTX 5090", "bf16", 209.5),
    ("RTX 5090", "fp8", 419.0),
    ("RTX 5090", "int8", 838.0),
    ("RTX PRO 6000 Blackwell", "bf16", 503.8),
    ("GTX 1080 Ti", "fp32", 11.3),
]


@pytest.mark.parametrize(("name", "dtype", "tera"), WHITEPAPER)
def test_peaks_computed_from_cores_and_clock_are_those_the_whitepapers_print(
    name: str, dtype: str, tera: float
) -> None:
    assert find_device(name).flops[dtype] / 1e12 == pytest.approx(tera, rel=5e-3)


# What NVIDIA's product pages advertise as "AI TOPS": fp16 sparse with fp16 accumulation on Ampere,
# fp8 sparse on Ada, fp4 sparse on Blackwell: 8, 16 and 32 times the fp32 rate.
AI_TOPS = [
    ("ampere", 8, {"3060 12GB": 102, "3060 Ti": 130, "3070": 163, "3070 Ti": 174, "3080 10GB": 238})
    ,
    ("ampere", 8, {"3080 Ti": 273, "3090": 285, "3090 Ti": 320}),
    ("ada", 16, {"4060": 242, "4060 Ti 8GB": 353, "4070": 466, "4070 Super": 568, "4070 Ti": 641}),
    ("ada", 16, {"4070 Ti Super": 706, "4080": 780, "4080 Super": 836, "4090": 1321}),
    ("blackwell", 32, {"5060": 614, "5060 Ti 16GB": 759, "5070": 988, "5070 Ti": 1406}),
    ("blackwell", 32, {"5080": 1801, "5090": 3352}),
]  # fmt: skip


@pytest.mark.parametrize(("architecture", "times", "cards"), AI_TOPS)
def test_fp32_peaks_match_the_advertised_ai_tops(
    architecture: str, times: int, cards: dict[str, int]
) -> None:
    for name, tops in cards.items():
        device = find_device(f"GeForce RTX {name}")
        assert device.architecture == architecture
        assert device.flops["fp32"] * times / 1e12 == pytest.approx(tops, rel=5e-3)


@pytest.mark.parametrize(
    ("name", "memory", "bandwidth", "dtype", "tera"),
    [
        ("A100 SXM 80GB", 80, 2039, "bf16", 312),
        ("A100 SXM 40GB", 40, 1555, "tf32", 156),
        ("H100 SXM", 80, 3350, "bf16", 1979 / 2),  # the datasheet prints sparse rates
        ("H100 PCIe", 80, 2000, "bf16", 1513 / 2),
        ("H100 NVL", 94, 3900, "bf16", 1671 / 2),
        ("H200 SXM", 141, 4800, "fp8", 3958 / 2),
        ("B200", 180, 7700, "bf16", 4500 / 2),
        ("GB200", 186, 8000, "fp8", 10000 / 2),
        ("V100 SXM2 32GB", 32, 900, "fp16", 125),
        ("T4", 16, 320, "fp16", 65),
        ("L4", 24, 300, "bf16", 242 / 2),
        ("L40S", 48, 864, "bf16", 362.05),
        ("A10", 24, 600, "bf16", 125),
        ("MI210", 64, 1638, "fp16", 181),
        ("MI300X", 192, 5300, "bf16", 1307.4),
        ("MI325X", 256, 6000, "fp8", 2614.9),
        ("RTX 4090", 24, 1008, "fp16", 165.2),
        ("RX 7900 XTX", 24, 960, "fp16", 122.8),
        ("Apple M2 Ultra 192GB", 192, 800, "fp32", 27.2),
    ],
)
def test_figures_of_datasheets(
    name: str, memory: int, bandwidth: float, dtype: str, tera: float
) -> None:
    device = find_device(name)
    assert device.memory_bytes == memory * 2**30
    assert device.bandwidth / 1e9 == pytest.approx(bandwidth, rel=0.011)
    assert device.flops[dtype] / 1e12 == pytest.approx(tera, rel=2e-3)


@pytest.mark.parametrize(
    ("gib", "corrected", "reported"),  # the least that out-of-memory messages quote
    [
        (8, False, 7.60),
        (16, False, 15.48),
        (24, False, 23.51),
        (32, False, 31.36),
        (48, False, 47.27),
        (96, False, 94.50),
        (24, True, 22.03),
        (48, True, 44.34),
    ],
)
def test_usable_memory_is_what_drivers_report_or_a_little_less(
    gib: int, corrected: bool, reported: float
) -> None:
    usable = usable_gpu_bytes(gib * GIB, corrected=corrected) / GIB
    assert 0.98 * reported <= usable <= reported + 0.005  # messages round to two digits


@pytest.mark.parametrize(  # "recommendedMaxWorkingSetSize" in logs of llama.cpp, in 10^6 bytes
    ("gib", "logged"), [(16, 11453.25), (32, 22906.50), (36, 28991.03), (64, 51539.61)]
)
def test_usable_memory_of_macs(gib: int, logged: float) -> None:
    assert usable_apple_bytes(gib * GIB) / 1e6 == pytest.approx(logged, rel=1e-4)


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("RTX 4090", "RTX 4090"),
        ("rtx4090", "RTX 4090"),
        ("4090", "RTX 4090"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("RTX 4090 24GB", "RTX 4090"),
        ("rtx-3090", "RTX 3090"),
        ("3090 ti", "RTX 3090 Ti"),
        ("4070 super", "RTX 4070 Super"),
        ("NVIDIA GeForce RTX 3060", "RTX 3060 12GB"),
        ("rtx4060ti16gb", "RTX 4060 Ti 16GB"),
        ("RTX 4060 Ti, 16 GiB", "RTX 4060 Ti 16GB"),
        ("a6000", "RTX A6000"),
        ("NVIDIA RTX 6000 Ada Generation", "RTX 6000 Ada"),
        ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", "RTX PRO 6000 Blackwell"),
        ("NVIDIA A100-SXM4-80GB", "A100 SXM 80GB"),
        ("NVIDIA A100 80GB PCIe", "A100 PCIe 80GB"),
        ("A100 SXM 80G", "A100 SXM 80GB"),
        ("NVIDIA H100 80GB HBM3", "H100 SXM"),
        ("h100 nvl", "H100 NVL"),
        ("NVIDIA H200", "H200 SXM"),
        ("NVIDIA GB200", "GB200 (one GPU)"),
        ("Tesla T4", "T4"),
        ("NVIDIA A10G", "A10G"),
        ("a10", "A10"),
        ("L40", "L40"),
        ("Tesla V100-SXM2-16GB", "V100 SXM2 16GB"),
        ("AMD Instinct MI300X", "MI300X"),
        ("mi250x", "MI250X (one die)"),
        ("m1 max 64gb", "Apple M1 Max 64GB"),
        ("M4 Pro 24 GB", "Apple M4 Pro 24GB"),
        ("epyc 9654 384GB", "EPYC 9654 384GB"),
    ],
)
def test_names_that_people_and_drivers_use(written: str, name: str) -> None:
    assert find_device(written).name == name


@pytest.mark.parametrize("device", DEVICES, ids=lambda device: device.name)
def test_every_device_answers_to_its_own_names(device: Device) -> None:
    for name in (device.name, *device.aliases):
        assert find_device(name) is device
        assert find_device(name.lower().replace(" ", "_")) is device


@pytest.mark.parametrize(
    ("written", "candidates"),
    [
        ("A100", ["A100 PCIe 40GB", "A100 SXM 40GB", "A100 PCIe 80GB", "A100 SXM 80GB"]),
        ("A100 80GB", ["A100 PCIe 80GB", "A100 SXM 80GB"]),
        ("H100", ["H100 PCIe", "H100 SXM", "H100 NVL"]),
        ("RTX 4060 Ti", ["RTX 4060 Ti 8GB", "RTX 4060 Ti 16GB"]),
        ("M1 Max", ["Apple M1 Max 32GB", "Apple M1 Max 64GB"]),
    ],
)
def test_a_name_of_several_devices_lists_them(written: str, candidates: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        find_device(written)
    listed = ", ".join(f"'{name}'" for name in candidates)
    assert str(caught.value) == (
        f"{len(candidates)} devices are called '{written}'; name one of {listed}."
    )


@pytest.mark.parametrize(
    ("written", "near"),
    [
        ("RTX 4099", "'RTX 4090'"),
        ("RTX 4090 Laptop GPU", "'RTX 4090'"),
        ("RTX 4090 48GB", "'RTX 4090'"),  # no such card, whatever is sold under the name
        ("GTX 1080", "'GTX 1080 Ti'"),
        ("A16", "'A10'"),  # a card of its own; not the RTX A4000, which has 16 GB
        ("MI300", "'MI300X'"),
        ("V100S", "'V100 "),
    ],
)
def test_an_unknown_name_gets_near_ones(written: str, near: str) -> None:
    with pytest.raises(ConfigError, match="there is no device") as caught:
        find_device(written)
    assert near in str(caught.value) and "such as 24GiB" in str(caught.value)


@pytest.mark.parametrize("nothing", ["", "  ", "GPU", "NVIDIA GeForce", "-"])
def test_a_name_that_says_nothing_is_refused(nothing: str) -> None:
    with pytest.raises(ConfigError, match="there is no device"):
        find_device(nothing)


@given(st.text(max_size=40))
def test_any_text_is_a_device_or_one_clear_sentence(text: str) -> None:
    try:
        assert find_device(text) in DEVICES
    except ConfigError as error:
        assert "device" in str(error) and str(error).endswith(".")


def test_a_dtype_the_hardware_lacks_is_computed_in_a_wider_one() -> None:
    turing, ampere, ada = find_device("T4"), find_device("A10"), find_device("L4")
    assert turing.peak("bf16") == turing.peak("tf32") == turing.flops["fp32"]
    assert ampere.peak("fp8") == ampere.flops["bf16"]
    assert ada.peak("fp8") == ada.flops["fp8"]
    apple = find_device("M1 8GB")
    assert apple.peak("int8") == apple.flops["fp16"]
    with pytest.raises(ConfigError, match="no peak for dtype 'int3'; use one of fp32, tf32"):
        apple.peak("int3")
