"""Amounts of memory as people write them → bytes.

Knows units; knows nothing of what is that big.
"""

from __future__ import annotations

import re
from fractions import Fraction

from fitune.errors import ConfigError

KIB, MIB, GIB, TIB = 2**10, 2**20, 2**30, 2**40

_POWER = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
# At most 15 digits, so that no text becomes a number that takes long to read.
_SIZE = re.compile(
    r"(\d{1,15}(?:\.\d{1,15})?|\.\d{1,15})\s*([kmgt]?)(i?)(b?)", re.ASCII | re.IGNORECASE
)


def parse_bytes(size: str | int) -> int:
    """Bytes of ``"24GiB"``, ``"24 GB"``, ``"24g"``, ``"512 MiB"``, ``"1.5GiB"`` or ``1048576``.

    ``GiB`` is 2^30 bytes and ``GB`` is 10^9 (IEC 80000-13), likewise ``K``, ``M`` and ``T``. A bare
    letter counts in powers of two, as `docker run --memory 24g` does. A number without a unit is
    bytes. Case and spaces do not matter; a fraction of a byte is cut off.

    Raises:
        ConfigError: not a size, or below zero.
    """
    if isinstance(size, int) and not isinstance(size, bool):
        if size >= 0:
            return size
    elif isinstance(size, str) and (match := _SIZE.fullmatch(size.strip())):
        number, letter, binary, byte = match.groups()
        if letter or not binary:  # "24iB" is no unit
            base = 1000 if byte and not binary else 1024
            return int(Fraction(number) * base ** _POWER[letter.lower()])
    raise ConfigError(
        f"'{size!s:.40}' is not an amount of memory",
        fix="write it like 24GiB (2^30 bytes each), 24GB (10^9), 512MiB, or plain bytes",
    )
