"""Vendors' figures: memory, bandwidth, and how fast devices multiply matrices.

Knows documents; knows no programs. A row here and nothing else adds a device.

Conventions. Memory is in bytes; a "24 GB" card has 24 GiB, because memory is made in powers of
two. Bandwidth is in bytes per second and peaks in FLOP per second, both in powers of ten. Peaks are
of dense matrix products (without the doubling for structured sparsity), accumulated in fp32, as
training does: GeForce cards run 16-bit products at half the rate that way. They hold at the
vendor's boost clock, which no long run sustains: `memory.roofline` has efficiencies for that.
"""

from __future__ import annotations

from collections.abc import Mapping

from fitune.devices.device import Device
from fitune.sizes import GIB


def usable_gpu_bytes(memory_bytes: int, *, corrected: bool = False) -> int:
    """What a CUDA driver reports as a card's total, where nobody reported it: a lower estimate.

    The driver keeps up to 0.55 GiB of small cards and up to 2 % of large ones: out-of-memory
    reports quote 7.60 of 8 GiB, 11.49 of 12, 15.48 of 16, 23.51 of 24, 31.36 of 32, 47.27 of 48.

    Args:
        corrected: GDDR6 whose error correction is on and takes a sixteenth of the memory.
    """
    left = memory_bytes * 15 // 16 if corrected else memory_bytes
    return left - max(int(0.55 * GIB), left // 50)


# --- NVIDIA cards whose peaks follow from cores and clock -----------------------------------------
# FLOP per second = 2 · CUDA cores · boost clock in fp32, and a fixed multiple of it per dtype.

_TURING = {"fp32": 1, "fp16": 4, "int8": 16}
_TURING_PRO = {"fp32": 1, "fp16": 8, "int8": 16}
_AMPERE = {"fp32": 1, "tf32": 1, "fp16": 2, "bf16": 2, "int8": 8}
_AMPERE_PRO = {"fp32": 1, "tf32": 2, "fp16": 4, "bf16": 4, "int8": 8}
_ADA = {"fp32": 1, "tf32": 1, "fp16": 2, "bf16": 2, "fp8": 4, "int8": 8}
_ADA_PRO = {"fp32": 1, "tf32": 2, "fp16": 4, "bf16": 4, "fp8": 8, "int8": 8}

_Card = tuple[str, int, float, int, int]
"""Name, GiB, GB/s, CUDA cores, boost clock in MHz."""


def _cards(
    architecture: str,
    capability: tuple[int, int],
    multiples: Mapping[str, int],
    source: str,
    cards: tuple[_Card, ...],
) -> list[Device]:
    return [
        Device(
            name=name,
            kind="gpu",
            memory_bytes=gib * GIB,
            usable_bytes=usable_gpu_bytes(gib * GIB),
            bandwidth=gbps * 1e9,
            flops={dtype: times * 2e6 * cores * mhz for dtype, times in multiples.items()},
            architecture=architecture,
            capability=capability,
            source=f"NVIDIA product page (cores, clock, memory); {source} (rate per core)",
        )
        for name, gib, gbps, cores, mhz in cards
    ]


_GEFORCE = (
    *_cards(
        "pascal",
        (6, 1),
        {"fp32": 1},  # fp16 at a 64th: libraries compute in fp32 instead
        "Tesla P100 whitepaper",
        (("GTX 1080 Ti", 11, 484, 3584, 1582),),
    ),
    *_cards(
        "turing",
        (7, 5),
        _TURING,
        "Turing GPU Architecture whitepaper, appendix A (reference cards)",
        (
            ("RTX 2060", 6, 336, 1920, 1680),
            ("RTX 2060 Super", 8, 448, 2176, 1650),
            ("RTX 2070", 8, 448, 2304, 1620),
            ("RTX 2070 Super", 8, 448, 2560, 1770),
            ("RTX 2080", 8, 448, 2944, 1710),
            ("RTX 2080 Super", 8, 496, 3072, 1815),
            ("RTX 2080 Ti", 11, 616, 4352, 1545),
        ),
    ),
    *_cards(
        "turing",
        (7, 5),
        _TURING_PRO,
        "Ampere GA102 GPU Architecture whitepaper, table 3",
        (("Titan RTX", 24, 672, 4608, 1770),),
    ),
    *_cards(
        "ampere",
        (8, 6),
        _AMPERE,
        "Ampere GA102 GPU Architecture whitepaper, appendix A",
        (
            ("RTX 3060 12GB", 12, 360, 3584, 1777),
            ("RTX 3060 Ti", 8, 448, 4864, 1665),
            ("RTX 3070", 8, 448, 5888, 1725),
            ("RTX 3070 Ti", 8, 608, 6144, 1770),
            ("RTX 3080 10GB", 10, 760, 8704, 1710),
            ("RTX 3080 12GB", 12, 912, 8960, 1710),
            ("RTX 3080 Ti", 12, 912, 10240, 1665),
            ("RTX 3090", 24, 936, 10496, 1695),
            ("RTX 3090 Ti", 24, 1008, 10752, 1860),
        ),
    ),
    *_cards(
        "ada",
        (8, 9),
        _ADA,
        "Ada GPU Architecture whitepaper v2.1, appendix A",
        (
            ("RTX 4060", 8, 272, 3072, 2460),
            ("RTX 4060 Ti 8GB", 8, 288, 4352, 2535),
            ("RTX 4060 Ti 16GB", 16, 288, 4352, 2535),
            ("RTX 4070", 12, 504, 5888, 2475),
            ("RTX 4070 Super", 12, 504, 7168, 2475),
            ("RTX 4070 Ti", 12, 504, 7680, 2610),
            ("RTX 4070 Ti Super", 16, 672, 8448, 2610),
            ("RTX 4080", 16, 717, 9728, 2505),
            ("RTX 4080 Super", 16, 736, 10240, 2550),
            ("RTX 4090", 24, 1008, 16384, 2520),
        ),
    ),
    *_cards(
        "blackwell",
        (12, 0),
        _ADA,  # the same multiples, fp4 apart
        "RTX Blackwell GPU Architecture whitepaper v1.1, appendix A",
        (
            ("RTX 5060", 8, 448, 3840, 2497),
            ("RTX 5060 Ti 8GB", 8, 448, 4608, 2572),
            ("RTX 5060 Ti 16GB", 16, 448, 4608, 2572),
            ("RTX 5070", 12, 672, 6144, 2512),
            ("RTX 5070 Ti", 16, 896, 8960, 2452),
            ("RTX 5080", 16, 960, 10752, 2617),
            ("RTX 5090", 32, 1792, 21760, 2407),
        ),
    ),
)

_WORKSTATION = (
    *_cards(
        "ampere",
        (8, 6),
        _AMPERE_PRO,
        "Ampere GA102 GPU Architecture whitepaper, table 3",
        (
            ("RTX A2000 6GB", 6, 288, 3328, 1200),
            ("RTX A2000 12GB", 12, 288, 3328, 1200),
            ("RTX A4000", 16, 448, 6144, 1560),
            ("RTX A4500", 20, 640, 7168, 1650),
            ("RTX A5000", 24, 768, 8192, 1695),
            ("RTX A5500", 24, 768, 10240, 1665),
            ("RTX A6000", 48, 768, 10752, 1800),
        ),
    ),
    *_cards(
        "ada",
        (8, 9),
        _ADA_PRO,
        "RTX 6000 Ada Generation datasheet",
        (
            ("RTX 4000 Ada", 20, 360, 6144, 2175),
            ("RTX 4500 Ada", 24, 432, 7680, 2580),
            ("RTX 5000 Ada", 32, 576, 12800, 2550),
            ("RTX 6000 Ada", 48, 960, 18176, 2505),
        ),
    ),
    *_cards(
        "blackwell",
        (12, 0),
        _ADA_PRO,
        "RTX Blackwell PRO GPU Architecture whitepaper v1.0, table 4",
        (("RTX PRO 6000 Blackwell", 96, 1792, 24064, 2617),),
    ),
)

# --- Data-centre cards, as their datasheets print them --------------------------------------------


def _flops(**tera: float) -> dict[str, float]:
    """FLOP per second from TFLOP per second."""
    return {dtype: rate * 1e12 for dtype, rate in tera.items()}


def _board(
    name: str,
    gib: int,
    reported: float | None,
    gbps: float,
    flops: dict[str, float],
    architecture: str,
    capability: tuple[int, int] | None,
    source: str,
    *aliases: str,
    corrected: bool = False,
) -> Device:
    """`reported`: GiB, the least total that out-of-memory reports of users quote."""
    memory = gib * GIB
    usable = int(reported * GIB) if reported else usable_gpu_bytes(memory, corrected=corrected)
    return Device(
        name,
        "gpu",
        memory,
        usable,
        gbps * 1e9,
        flops,
        architecture,
        capability,
        source,
        aliases,
    )


_P100 = _flops(fp32=9.3, fp16=18.7)
_V100_PCIE, _V100_SXM = _flops(fp32=14, fp16=112), _flops(fp32=15.7, fp16=125)
_A100 = _flops(fp32=19.5, tf32=156, fp16=312, bf16=312, int8=624)
_H100_SXM = _flops(fp32=66.9, tf32=494.7, fp16=989.4, bf16=989.4, fp8=1978.9, int8=1978.9)
_H100_PCIE = _flops(fp32=51.2, tf32=378, fp16=756, bf16=756, fp8=1513, int8=1513)
_HOPPER_NVL = _flops(fp32=60, tf32=417.5, fp16=835.5, bf16=835.5, fp8=1670.5, int8=1670.5)
_B200 = _flops(fp32=75, tf32=1100, fp16=2250, bf16=2250, fp8=4500, int8=4500)
_GB200 = _flops(fp32=80, tf32=1250, fp16=2500, bf16=2500, fp8=5000, int8=5000)
_MI210 = _flops(fp32=45.3, fp16=181, bf16=181, int8=181)
_MI250X_DIE = _flops(fp32=47.9, fp16=191.5, bf16=191.5, int8=191.5)
_MI300X = _flops(fp32=163.4, tf32=653.7, fp16=1307.4, bf16=1307.4, fp8=2614.9, int8=2614.9)
_T4 = _flops(fp32=8.1, fp16=65, int8=130)
_A10 = _flops(fp32=31.2, tf32=62.5, fp16=125, bf16=125, int8=250)
_A10G = _flops(fp32=35, tf32=35, fp16=70, bf16=70, int8=140)
_A30 = _flops(fp32=10.3, tf32=82, fp16=165, bf16=165, int8=330)
_A40 = _flops(fp32=37.4, tf32=74.8, fp16=149.7, bf16=149.7, int8=299.3)
_L4 = _flops(fp32=30.3, tf32=60, fp16=121, bf16=121, fp8=242.5, int8=242.5)
_L40 = _flops(fp32=90.5, tf32=90.5, fp16=181, bf16=181, fp8=362, int8=362)
_L40S = _flops(fp32=91.6, tf32=183, fp16=362, bf16=362, fp8=733, int8=733)
_7900 = _flops(fp32=61.4, fp16=122.8, bf16=122.8, int8=122.8)

_VOLTA_SHEET = "NVIDIA V100 datasheet"
_A100_SHEET = "NVIDIA A100 datasheet"
_H100_SHEET = "NVIDIA H100 GPU Architecture whitepaper v1.04, table 1; H100 datasheet"
_BLACKWELL_SHEET = "NVIDIA Blackwell datasheet, individual GPU specifications (sparse ÷ 2)"
_GA100, _HOPPER, _BLACKWELL = ("ampere", (8, 0)), ("hopper", (9, 0)), ("blackwell", (10, 0))

_DATACENTRE = (
    _board("P100", 16, 15.9, 732, _P100, "pascal", (6, 0), "NVIDIA P100 datasheet (PCIe)",
           "Tesla P100-PCIE-16GB"),
    _board("V100 PCIe 16GB", 16, 15.77, 900, _V100_PCIE, "volta", (7, 0), _VOLTA_SHEET,
           "Tesla V100-PCIE-16GB"),
    _board("V100 PCIe 32GB", 32, 31.73, 900, _V100_PCIE, "volta", (7, 0), _VOLTA_SHEET,
           "Tesla V100-PCIE-32GB"),
    _board("V100 SXM2 16GB", 16, 15.77, 900, _V100_SXM, "volta", (7, 0), _VOLTA_SHEET,
           "Tesla V100-SXM2-16GB"),
    _board("V100 SXM2 32GB", 32, 31.73, 900, _V100_SXM, "volta", (7, 0), _VOLTA_SHEET,
           "Tesla V100-SXM2-32GB", "Tesla V100-SXM3-32GB"),
    _board("T4", 16, 14.74, 320, _T4, "turing", (7, 5), "NVIDIA T4 datasheet"),
    _board("A10", 24, 22.03, 600, _A10, "ampere", (8, 6), "NVIDIA A10 datasheet"),
    _board("A10G", 24, 22.03, 600, _A10G, "ampere", (8, 6), "NVIDIA A10G datasheet"),
    _board("A30", 24, None, 933, _A30, *_GA100, "NVIDIA A30 datasheet"),
    _board("A40", 48, 44.34, 696, _A40, "ampere", (8, 6), "NVIDIA A40 datasheet"),
    _board("A100 PCIe 40GB", 40, 39.38, 1555, _A100, *_GA100, _A100_SHEET,
           "NVIDIA A100-PCIE-40GB"),
    _board("A100 SXM 40GB", 40, 39.38, 1555, _A100, *_GA100, _A100_SHEET,
           "NVIDIA A100-SXM4-40GB"),
    _board("A100 PCIe 80GB", 80, 79.14, 1935, _A100, *_GA100, _A100_SHEET,
           "NVIDIA A100 80GB PCIe"),
    _board("A100 SXM 80GB", 80, 79.14, 2039, _A100, *_GA100, _A100_SHEET,
           "NVIDIA A100-SXM4-80GB"),
    _board("L4", 24, 22.03, 300, _L4, "ada", (8, 9), "NVIDIA L4 datasheet"),
    _board("L40", 48, None, 864, _L40, "ada", (8, 9), "NVIDIA L40 datasheet", corrected=True),
    _board("L40S", 48, 44.39, 864, _L40S, "ada", (8, 9), "NVIDIA L40S datasheet"),
    _board("H100 PCIe", 80, 79.1, 2000, _H100_PCIE, *_HOPPER, _H100_SHEET),
    _board("H100 SXM", 80, 79.1, 3350, _H100_SXM, *_HOPPER, _H100_SHEET,
           "NVIDIA H100 80GB HBM3"),
    _board("H100 NVL", 94, 93.0, 3938, _HOPPER_NVL, *_HOPPER, "NVIDIA H100 NVL datasheet"),
    _board("H200 SXM", 141, 139.72, 4800, _H100_SXM, *_HOPPER, "NVIDIA H200 datasheet",
           "NVIDIA H200"),
    _board("H200 NVL", 141, 139.72, 4800, _HOPPER_NVL, *_HOPPER, "NVIDIA H200 datasheet"),
    _board("B200", 180, 178.35, 7700, _B200, *_BLACKWELL, _BLACKWELL_SHEET),
    _board("GB200 (one GPU)", 186, 184.31, 8000, _GB200, *_BLACKWELL, _BLACKWELL_SHEET,
           "NVIDIA GB200"),
    _board("MI210", 64, 63.98, 1638, _MI210, "cdna2", None, "AMD Instinct MI210 datasheet"),
    # A package is two dies, and a program sees each as a device of its own.
    _board("MI250X (one die)", 64, 63.98, 1638, _MI250X_DIE, "cdna2", None,
           "AMD Instinct MI250X datasheet, halved", "AMD Instinct MI250X"),
    _board("MI300X", 192, 191.69, 5300, _MI300X, "cdna3", None, "AMD Instinct MI300X datasheet"),
    _board("MI325X", 256, None, 6000, _MI300X, "cdna3", None, "AMD Instinct MI325X datasheet"),
    _board("RX 7900 XTX", 24, 23.9, 960, _7900, "rdna3", None, "AMD RX 7900 XTX product page",
           "AMD Radeon RX 7900 XTX"),
)  # fmt: skip

# --- Apple: unified memory ------------------------------------------------------------------------
# Chip, GB/s, fp32 TFLOP/s, memory options in GB. Where a chip comes with fewer GPU cores, the full
# one is meant. From the M3 on Apple prints no FLOP/s: 128 ALUs a core · 2 · its observed clock.
# An ALU does one fp16 or bf16 operation in the time of an fp32 one.

_APPLE_SILICON: tuple[tuple[str, float, float, tuple[int, ...]], ...] = (
    ("M1", 68.25, 2.6, (8, 16)),
    ("M1 Pro", 200, 5.2, (16, 32)),
    ("M1 Max", 400, 10.4, (32, 64)),
    ("M1 Ultra", 800, 20.8, (64, 128)),
    ("M2", 100, 3.6, (8, 16, 24)),
    ("M2 Pro", 200, 6.8, (16, 32)),
    ("M2 Max", 400, 13.6, (32, 64, 96)),
    ("M2 Ultra", 800, 27.2, (64, 128, 192)),
    ("M3", 100, 3.6, (8, 16, 24)),
    ("M3 Pro", 150, 6.4, (18, 36)),
    ("M3 Max", 300, 10.7, (36, 96)),  # 30 GPU cores
    ("M3 Max", 400, 14.3, (48, 64, 128)),  # 40 GPU cores
    ("M3 Ultra", 819, 28.6, (96, 256, 512)),
    ("M4", 120, 3.8, (16, 24, 32)),
    ("M4 Pro", 273, 8.1, (24, 48, 64)),
    ("M4 Max", 410, 12.9, (36,)),  # 32 GPU cores
    ("M4 Max", 546, 16.2, (48, 64, 128)),  # 40 GPU cores
)


def usable_apple_bytes(memory_bytes: int) -> int:
    """What Metal recommends a GPU to use of unified memory (`recommendedMaxWorkingSetSize`).

    Two thirds of Macs below 36 GB and three quarters of larger ones, as Metal's own log lines say:
    11,453 MB of 16 GiB, 22,907 MB of 32, 28,991 MB of 36, 51,540 MB of 64. Newer systems allow up
    to 78 %; users can raise it (``sysctl iogpu.wired_limit_mb``).
    """
    return memory_bytes * 3 // 4 if memory_bytes >= 36 * GIB else memory_bytes * 2 // 3


def _apple(chip: str, gbps: float, tera: float, gib: int) -> Device:
    return Device(
        name=f"Apple {chip} {gib}GB",
        kind="apple",
        memory_bytes=gib * GIB,
        usable_bytes=usable_apple_bytes(gib * GIB),
        bandwidth=gbps * 1e9,
        flops=_flops(fp32=tera, fp16=tera, bf16=tera),
        architecture=f"apple {chip.split()[0].lower()}",
        capability=None,
        source="Apple newsroom (memory, bandwidth; TFLOP/s up to the M2)",
    )


_APPLE = tuple(
    _apple(chip, gbps, tera, gib) for chip, gbps, tera, options in _APPLE_SILICON for gib in options
)

# --- CPUs -----------------------------------------------------------------------------------------
# One socket with every memory channel filled; the memory is the buyer's choice and in the name.
# Peaks: cores · all-core clock · FLOP per cycle and core in fp32 and bf16 (two 256-bit FMA units
# in Zen 4, two 512-bit ones in Zen 5 and Sapphire Rapids; AMX multiplies 512 bf16 pairs).


def _cpu(
    name: str,
    gib: int,
    gbps: float,
    cores: int,
    ghz: float,
    per_cycle: tuple[int, int],
    architecture: str,
    source: str,
) -> Device:
    fp32, bf16 = (cores * ghz * 1e9 * each for each in per_cycle)
    return Device(
        name=f"{name} {gib}GB",
        kind="cpu",
        memory_bytes=gib * GIB,
        usable_bytes=gib * GIB,
        bandwidth=gbps * 1e9,
        flops={"fp32": fp32, "bf16": bf16},
        architecture=architecture,
        capability=None,
        source=f"{source} (cores, clock, channels); optimization manual (FLOP per cycle)",
    )


_CPUS = (
    _cpu("EPYC 9654", 384, 460.8, 96, 3.55, (32, 64), "zen4", "AMD EPYC 9654 product page"),
    _cpu("EPYC 9654", 768, 460.8, 96, 3.55, (32, 64), "zen4", "AMD EPYC 9654 product page"),
    _cpu("Xeon Platinum 8480+", 512, 307.2, 56, 2.0, (64, 1024), "sapphire rapids",
         "Intel ARK, base clock"),
    _cpu("Ryzen 9 7950X", 64, 83.2, 16, 4.5, (32, 64), "zen4", "AMD product page, base clock"),
    _cpu("Ryzen 9 9950X", 64, 89.6, 16, 4.3, (64, 128), "zen5", "AMD product page, base clock"),
)  # fmt: skip

DEVICES: tuple[Device, ...] = (*_GEFORCE, *_WORKSTATION, *_DATACENTRE, *_APPLE, *_CPUS)
