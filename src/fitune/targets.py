"""Where a model is to run, a device of the catalogue or this machine, and how much memory it has.

Knows the catalogue of devices and this machine; knows nothing of models.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from fitune.devices import Device, find_device
from fitune.errors import ConfigError
from fitune.hardware import this_machine
from fitune.memory.options import Device as Kernels
from fitune.sizes import parse_bytes


@dataclass(frozen=True)
class Target:
    """Where it is to run.

    Attributes:
        kernels: whose kernels are assumed.
        device: of the catalogue; None where it is not in there.
        budget: bytes of memory there.
        of: whose memory that is, for people.
        given: whether the user said so.
        capability: of CUDA; None for others.
        bf16: whether it multiplies bf16 in hardware.
        here: whether it is this machine's.
    """

    kernels: Kernels
    device: Device | None
    budget: int
    of: str
    given: bool
    capability: tuple[int, int] | None
    bf16: bool
    here: bool


def find_target(name: str | None, budget: str | int | None) -> Target:
    """The device called `name`, else what this machine has; the budget, else the device's memory.

    Args:
        name: of the catalogue, ``"cpu"`` or ``"cuda"``.

    Raises:
        ConfigError: no such device, no GPU here, or no amount of memory.
    """
    given = None if budget is None else parse_bytes(budget)
    if name is None or name in ("cpu", "cuda"):
        target = _this_machine(name)
    else:
        device = find_device(name)
        target = Target(
            kernels="cuda" if device.kind == "gpu" else "cpu",
            device=device,
            budget=device.usable_bytes,
            of=device.name,
            given=True,
            capability=device.capability,
            bf16="bf16" in device.flops,
            here=False,
        )
    if given is not None:
        target = dataclasses.replace(target, budget=given, of="the budget", given=True)
    return target


def _this_machine(device: str | None) -> Target:
    machine = this_machine(load_torch=True)
    gpus = machine.gpus or ()
    if device == "cuda" and not gpus:
        raise ConfigError(
            "device is cuda, and torch sees no CUDA device here",
            fix="name the GPU that is meant, such as --device 'RTX 4090'",
        )
    if gpus and device != "cpu":
        try:
            known: Device | None = find_device(gpus[0].name)
        except ConfigError:  # times are then not estimated
            known = None
        return Target(
            kernels="cuda",
            device=known,
            budget=gpus[0].memory_free,
            of="this machine's GPU",
            given=device is not None,
            capability=gpus[0].capability,
            bf16=gpus[0].native_bf16,
            here=True,
        )
    return Target(
        kernels="cpu",
        device=None,
        budget=machine.memory_available,
        of="this machine",
        given=device is not None,
        capability=None,
        bf16=machine.native_bf16,
        here=True,
    )
