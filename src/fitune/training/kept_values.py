"""Vectors of rows, kept in memory or in a file and found again by the rows' token ids.

Knows tensors and token ids; knows nothing of models. Nothing outlives the process: a file has no
name, and the system takes it back however the process ends.
"""

from __future__ import annotations

import errno
import mmap
import os
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import torch

from fitune.hardware import disk_free


@dataclass(frozen=True)
class Part:
    """Some rows' values.

    Attributes:
        rows: token ids of each row.
        counts: how many vectors each has.
        vectors: those of all, one after another: ``[sum of counts, hidden]``.
    """

    rows: Sequence[Sequence[int]]
    counts: Sequence[int]
    vectors: torch.Tensor


@dataclass(frozen=True)
class Kept:
    """Values of rows.

    Attributes:
        vectors: ``[vectors, hidden]`` in main memory or mapped, in the dtype they came in.
        places: `key` of a row → its first vector, and how many it has.
        file: where they are, unless in memory.
    """

    vectors: torch.Tensor
    places: dict[bytes, tuple[int, int]]
    file: IO[bytes] | None

    @property
    def bytes(self) -> int:
        return self.vectors.nbytes

    def find(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor | None:
        """Of rows padded at their ends, ``[rows, tokens]``: ``[rows, most vectors, hidden]`` on the
        same device; None if one of them is not known.

        A row with fewer vectors repeats its last: as padding it is read by nothing, but must be a
        number.
        """
        ids, lengths = input_ids.cpu().numpy(), attention_mask.sum(1).tolist()
        found = []
        for row, length in zip(ids, lengths, strict=True):
            if (place := self.places.get(row[:length].tobytes())) is None:
                return None
            found.append(place)
        starts, counts = np.asarray(found, dtype=np.int64).T[..., None]
        at = starts + np.minimum(np.arange(counts.max()), counts - 1)
        picked = self.vectors.index_select(0, torch.from_numpy(at.ravel()))
        return picked.view(*at.shape, -1).to(input_ids.device)

    def close(self) -> None:
        """Give the file's room back."""
        if self.file is not None:
            self.file.close()


def key(tokens: Sequence[int]) -> bytes:
    """What a row is found by."""
    return np.asarray(tokens, np.int64).tobytes()


def keep(parts: Iterable[Part], total: int, *, room: int, folder: Path) -> Kept:
    """Keep all values.

    Args:
        parts: at least one.
        total: vectors of all of them together.
        room: bytes of memory; if values take more, they go into a file in `folder`.

    Raises:
        OSError: the disk has no room.
    """
    store: _Memory | _File | None = None
    places: dict[bytes, tuple[int, int]] = {}
    filled = 0
    try:
        for part in parts:
            vectors = part.vectors.cpu().contiguous()
            if store is None:
                size = total * vectors[0].nbytes
                store = _Memory(total, vectors) if size <= room else _File(size, vectors, folder)
            store.add(vectors)
            for row, count in zip(part.rows, part.counts, strict=True):
                places[key(row)] = (filled, count)
                filled += count
        assert store is not None and filled == total
        return Kept(store.all(), places, store.file)
    except BaseException:
        if store is not None and store.file is not None:
            store.file.close()
        raise


class _Memory:
    file = None

    def __init__(self, total: int, like: torch.Tensor) -> None:
        self._all = torch.empty((total, like.shape[1]), dtype=like.dtype)
        self._filled = 0

    def add(self, vectors: torch.Tensor) -> None:
        self._all[self._filled : self._filled + len(vectors)] = vectors
        self._filled += len(vectors)

    def all(self) -> torch.Tensor:
        return self._all


class _File:
    """Written first and mapped then: a full disk is an error of a write, whereas it ends the
    process where a page of a map is touched that has no room. `Kept` closes it."""

    def __init__(self, size: int, like: torch.Tensor, folder: Path) -> None:
        if disk_free(folder) < size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.file: IO[bytes] = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115
        self._width, self._dtype = like.shape[1], like.dtype

    def add(self, vectors: torch.Tensor) -> None:
        left = vectors.view(torch.uint8).numpy().data.cast("B")
        while left:  # one call need not write everything
            left = left[self.file.write(left) :]

    def all(self) -> torch.Tensor:
        mapped = mmap.mmap(self.file.fileno(), 0, access=mmap.ACCESS_COPY)
        return torch.frombuffer(mapped, dtype=self._dtype).view(-1, self._width)
