"""What a GGUF file says about itself before its weights.

Knows the layout of the header (the GGUF specification in ggml's repository, ``docs/gguf.md``,
versions 2 and 3); knows nothing of models. The weights are not read, and of long values, such as
the vocabulary, only the length: the `gguf` package makes an array of each token first, which takes
seconds.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fitune.errors import ModelError, ResourceError

MAGIC = b"GGUF"
VERSIONS = (2, 3)

LONG = 1024
"""Elements of a list, or bytes of a text, from which on it is no setting: settings are a word, or
have one element a layer."""

_STRING, _ARRAY = 8, 9
_SCALAR_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Type → bytes of a number or a truth value."""


@dataclass(frozen=True)
class GgufHeader:
    """The settings and tensors of a file.

    Attributes:
        fields: name → the field as it lies in the file, name and type included. Long values are
            left out.
        lengths: name → elements of each list and bytes of each text, long ones included.
        tensors: name → shape, fastest dimension first.
    """

    fields: Mapping[str, bytes]
    lengths: Mapping[str, int]
    tensors: Mapping[str, tuple[int, ...]]

    @property
    def parameters(self) -> int:
        return sum(math.prod(shape) for shape in self.tensors.values())

    def small_file(self) -> bytes:
        """A GGUF file with the same settings and names, where every tensor is a single number.

        What reads a config from a GGUF file reads the same from this one, in a fraction of the
        time.
        """
        parts = [struct.pack("<4sIQQ", MAGIC, VERSIONS[-1], len(self.tensors), len(self.fields))]
        parts += self.fields.values()
        for name in self.tensors:
            raw = name.encode()
            # One dimension, of one element, of type F32, at offset 0.
            parts.append(struct.pack(f"<Q{len(raw)}sIQIQ", len(raw), raw, 1, 1, 0, 0))
        header = b"".join(parts)
        return header + bytes(-len(header) % 4096 + 64)  # any alignment, and one number


def read_gguf_header(path: Path) -> GgufHeader:
    """The header of the GGUF file `path`.

    Raises:
        ModelError: no GGUF file, of another version, or cut off.
        ResourceError: it may not be read.
    """
    try:
        with path.open("rb") as file:
            if file.read(4) != MAGIC:
                raise ModelError(
                    f"'{path}' is not a GGUF file: its first four bytes are not 'GGUF'",
                    fix="download it again, or give another file",
                )
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _Reader(data).header()
    except PermissionError as error:
        raise ResourceError(f"'{path}' may not be read", fix="change its permissions") from error
    except (struct.error, ValueError, IndexError, KeyError) as error:
        raise ModelError(
            f"the header of '{path}' is cut off or damaged ({error})",
            fix="download it again, or give another file",
        ) from error


class _Reader:
    """Goes through a file from front to back."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data, self._at = data, len(MAGIC)

    def header(self) -> GgufHeader:
        version = self._number("I")
        if version not in VERSIONS:
            raise ValueError(f"version {version}, where {VERSIONS[0]} and {VERSIONS[1]} are known")
        tensor_count, field_count = self._number("Q"), self._number("Q")
        fields: dict[str, bytes] = {}
        lengths: dict[str, int] = {}
        for _ in range(field_count):
            begin = self._at
            name = self._text()
            length = self._skip(self._number("I"))
            if length is not None:
                lengths[name] = length
            if length is None or length < LONG:
                fields[name] = self._data[begin : self._at]
        tensors = {}
        for _ in range(tensor_count):
            name = self._text()
            tensors[name] = tuple(self._number("Q") for _ in range(self._number("I")))
            self._at += 4 + 8  # type and offset
        return GgufHeader(fields, lengths, tensors)

    def _number(self, code: str) -> int:
        (value,) = struct.unpack_from(f"<{code}", self._data, self._at)
        self._at += struct.calcsize(code)
        return int(value)

    def _text(self) -> str:
        length = self._number("Q")
        raw = self._data[self._at : self._at + length]
        if len(raw) < length:
            raise ValueError("it ends within a name")
        self._at += length
        return raw.decode()

    def _skip(self, kind: int) -> int | None:
        """Go over a value; returns the length of a list or a text, None for a number."""
        length = None
        if kind == _STRING:
            length = self._number("Q")
            self._at += length
        elif kind == _ARRAY:
            kind, length = self._number("I"), self._number("Q")
            if kind in _SCALAR_BYTES:
                self._at += _SCALAR_BYTES[kind] * length
            else:
                for _ in range(length):
                    self._skip(kind)
        else:
            self._at += _SCALAR_BYTES[kind]
        if self._at > len(self._data):
            raise ValueError("it ends within a value")
        return length
