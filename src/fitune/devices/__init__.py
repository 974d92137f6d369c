"""Devices one can buy or rent: what they hold and how fast they are.

`DEVICES` is all of them; `find_device` finds one by a name that people or drivers use. Knows
vendors' figures; knows nothing of models, nor of the machine it runs on (that is `hardware`).
"""

from fitune.devices.device import DTYPES, Device
from fitune.devices.figures import DEVICES
from fitune.devices.find import find_device

__all__ = ["DEVICES", "DTYPES", "Device", "find_device"]
