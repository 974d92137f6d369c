"""Finding a device by the name a person or a driver uses.

Knows how names are written; knows no figures.
"""

from __future__ import annotations

import difflib
import re

from fitune.devices.device import Device
from fitune.devices.figures import DEVICES
from fitune.errors import ConfigError
from fitune.sizes import GIB

# Words that tell no two devices apart.
_NOISE = frozenset(
    {"nvidia", "geforce", "tesla", "amd", "radeon", "instinct", "intel", "apple"}
    | {"graphics", "card", "gpu", "cpu", "generation", "workstation", "edition", "one", "die"}
)
# Words that name another device: nobody who means a GTX 1080 is given the Ti.
_VARIANTS = frozenset({"ti", "super", "pro", "max", "ultra", "s", "x", "g", "xtx"})
# "80GB" anywhere, "80G" only where it is a word of its own: the 10G of A10G is no memory.
_MEMORY = re.compile(r"([0-9]+)\s*gi?b(?![a-z0-9])|(?<![a-z0-9])([0-9]+)\s*g(?![a-z0-9])")


def find_device(name: str) -> Device:
    """The device called `name`, whatever its case, spaces and punctuation.

    Drivers' names (``"NVIDIA GeForce RTX 4090"``) and parts of names (``"4090"``,
    ``"A100 SXM 80G"``) do, as long as they fit one device best: ``"RTX 3090"`` is not the Ti.

    Raises:
        ConfigError: no device fits, or several do equally well.
    """
    wanted = _squeezed(name)
    for device in DEVICES:
        if wanted and wanted in map(_squeezed, (device.name, *device.aliases)):
            return device
    asked = _words(name)
    unasked = {
        device.name: len(_words(device.name) - asked)
        for device in DEVICES
        if asked and _fits(device, asked, _memories(name))
    }
    best = [each for each, count in unasked.items() if count == min(unasked.values())]
    if len(best) == 1:
        return next(device for device in DEVICES if device.name == best[0])
    if best:
        raise ConfigError(
            f"{len(best)} devices are called '{name:.60}'", fix=f"name one of {_listed(best)}"
        )
    squeezed = {_squeezed(device.name): device.name for device in DEVICES}
    near = difflib.get_close_matches(wanted, squeezed, n=3, cutoff=0.5)
    hint = f"did you mean {_listed([squeezed[key] for key in near])}? " if near else ""
    raise ConfigError(
        f"there is no device '{name:.60}' in the catalogue",
        fix=f"{hint}otherwise give its memory as a budget, such as 24GiB",
    )


def _fits(device: Device, asked: frozenset[str], memories: frozenset[str]) -> bool:
    """All that was asked for is true of it, and it is no variant that was not asked for.

    A number without unit may be the memory only where that is part of the name: A16 is a card of
    its own, not an RTX A4000 with 16 GB.
    """
    own = _words(device.name)
    return (
        asked <= own | _memories(device.name)
        and own & _VARIANTS <= asked
        and memories <= {str(device.memory_bytes // GIB)}
    )


def _squeezed(text: str) -> str:
    return re.sub(r"[^a-z0-9+]", "", text.lower())


def _words(text: str) -> frozenset[str]:
    """Runs of letters and of digits that are no memory: ``RTX4060Ti-16G`` → rtx, 4060, ti."""
    return frozenset(re.findall(r"[a-z]+|[0-9]+", _MEMORY.sub(" ", text.lower()))) - _NOISE


def _memories(text: str) -> frozenset[str]:
    """The digits of ``80GB``, ``80 GiB`` or ``80g``."""
    return frozenset(a or b for a, b in _MEMORY.findall(text.lower()))


def _listed(names: list[str]) -> str:
    shown = [f"'{name}'" for name in names[:12]]
    return ", ".join(shown) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
