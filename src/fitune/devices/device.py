"""What is known of a device.

Knows what each figure means; knows no figures (those are in `figures`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from fitune.errors import ConfigError

DTYPES = ("fp32", "tf32", "fp16", "bf16", "fp8", "int8")


@dataclass(frozen=True)
class Device:
    """One kind of device.

    Attributes:
        name: unique in `DEVICES`; with the memory where it comes in several sizes.
        memory_bytes: as the vendor names it (24 GB → 24 GiB).
        usable_bytes: what a program can have of it, its own CUDA context included (that is
            `memory.allocator`'s to subtract). CUDA: the total that the driver reports, which
            lacks the driver's own share and, on cards with GDDR6 and error correction, a
            sixteenth. Apple: what Metal recommends a GPU to use. CPU: all.
        bandwidth: bytes per second between memory and chip.
        flops: dtype → FLOP per second, for the dtypes the device multiplies in hardware.
        architecture: the vendor's name for the generation, in lower case.
        capability: CUDA compute capability, ``(8, 9)`` for Ada; None where it is not CUDA.
        source: the vendor's document.
        aliases: what drivers call it.
    """

    name: str
    kind: Literal["gpu", "apple", "cpu"]
    memory_bytes: int
    usable_bytes: int
    bandwidth: float
    flops: Mapping[str, float] = field(hash=False)
    architecture: str
    capability: tuple[int, int] | None
    source: str
    aliases: tuple[str, ...] = ()

    def peak(self, dtype: str) -> float:
        """FLOP per second of matrix products in `dtype`, one of `DTYPES`.

        A dtype the hardware lacks is computed in the next wider one it has: 8 bits in 16, and
        anything in fp32.

        Raises:
            ConfigError: no such dtype.
        """
        if dtype not in DTYPES:
            raise ConfigError(
                f"there is no peak for dtype '{dtype}'", fix=f"use one of {', '.join(DTYPES)}"
            )
        wider = {"fp8": ("fp8", "bf16", "fp16"), "int8": ("int8", "fp16", "bf16")}
        for name in wider.get(dtype, (dtype,)):
            if name in self.flops:
                return self.flops[name]
        return self.flops["fp32"]
