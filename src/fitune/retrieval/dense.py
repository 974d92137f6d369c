"""Search by meaning: the passages whose vectors are nearest to the query's, exactly.

Knows vectors; knows nothing of words or of how vectors came about (`encoder`). Every passage is
compared, in blocks: at 100,000 passages a query takes milliseconds, and nothing is missed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fitune.errors import ConfigError, RunError
from fitune.retrieval import Hit, check_k, check_passages
from fitune.retrieval.best import best
from fitune.retrieval.encoder import Encoder, Vectors
from fitune.runs import explain_damage, read_json, replaced_folder, write_json

_PASSAGES, _QUERIES = 65_536, 64
"""Compared at once: 16 MB of scores, however many passages there are."""


class Dense:
    """Cosine similarity of an encoder's vectors.

    Args:
        model: an encoder, or the name of its model.
        query_prefix, passage_prefix: as `Encoder` takes them; only with a name.

    Attributes:
        encoder: makes the vectors.
        vectors: of the passages, ``[passages, dimension]``, each of length one.
        truncated: how many passages were longer than the encoder reads; what is beyond plays no
            part in their vectors.
    """

    def __init__(
        self,
        *,
        model: str | Encoder = "minilm-l6",
        query_prefix: str = "",
        passage_prefix: str = "",
        device: str = "cpu",
    ) -> None:
        self.encoder = as_encoder(model, query_prefix, passage_prefix, device)
        self.vectors: Vectors = np.empty((0, self.encoder.dimension), dtype=np.float32)
        self.truncated = 0

    @classmethod
    def of_vectors(cls, encoder: Encoder, vectors: Vectors) -> Dense:
        """Over passages whose vectors are known."""
        made = cls(model=encoder)
        made.vectors = vectors
        return made

    def build(self, passages: Sequence[str]) -> None:
        check_passages(passages)
        self.vectors, self.truncated = self.encoder.passages(passages)

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        check_k(k)
        if not len(self.vectors):
            raise ConfigError("nothing was built to search in", fix="call build with passages")
        asked = [number for number, query in enumerate(queries) if query.strip()]
        found: list[list[Hit]] = [[] for _ in queries]
        vectors = self.encoder.queries([queries[number] for number in asked])
        for number, hits in zip(asked, nearest(vectors, self.vectors, k), strict=True):
            found[number] = hits
        return found

    @property
    def parameters(self) -> int:
        return self.encoder.parameters

    def save(self, folder: Path) -> None:
        with replaced_folder(folder) as partial:
            np.save(partial / "vectors.npy", self.vectors)
            write_json(partial / "dense.json", self.encoder.options)

    @classmethod
    def load(cls, folder: Path) -> Dense:
        options = read_json(folder / "dense.json")
        with explain_damage(folder / "dense.json"):
            encoder = Encoder(**options)
        return cls.of_vectors(encoder, read_vectors(folder / "vectors.npy", encoder.dimension))


def nearest(queries: Vectors, vectors: Vectors, k: int) -> list[list[Hit]]:
    """For each of `queries` ``[queries, dimension]`` the `k` of `vectors` ``[passages, dimension]``
    with the largest dot product, largest first; equal ones in order of number."""
    found: list[list[Hit]] = []
    for first in range(0, len(queries), _QUERIES):
        part = queries[first : first + _QUERIES]
        scores = np.empty((len(part), 0), dtype=np.float32)
        numbers = np.empty((len(part), 0), dtype=np.int64)
        for begin in range(0, len(vectors), _PASSAGES):
            block = part @ vectors[begin : begin + _PASSAGES].T
            top = np.stack([best(row, k) for row in block])
            scores = np.hstack([scores, np.take_along_axis(block, top, axis=1)])
            numbers = np.hstack([numbers, top + begin])
            # Earlier blocks stand first, so that equals keep the order of their numbers.
            kept = np.stack([best(row, k) for row in scores])
            scores = np.take_along_axis(scores, kept, axis=1)
            numbers = np.take_along_axis(numbers, kept, axis=1)
        found += [
            [Hit(number, score) for number, score in zip(row, values, strict=True)]
            for row, values in zip(numbers.tolist(), scores.tolist(), strict=True)
        ]
    return found


def read_vectors(path: Path, dimension: int) -> Vectors:
    """Vectors ``[passages, dimension]`` float32, left on disk until they are compared.

    Raises:
        RunError: the file is missing, damaged, or holds something else.
    """
    vectors = read_array(path)
    if vectors.dtype != np.float32 or vectors.ndim != 2 or vectors.shape[1] != dimension:
        raise RunError(
            f"'{path}' holds {vectors.dtype} of shape {vectors.shape} and not float32 vectors of "
            f"{dimension:,} numbers",
            fix="build the index again",
        )
    return vectors


def read_array(path: Path) -> Any:
    """An array, left on disk until it is read.

    Raises:
        RunError: the file is missing or damaged.
    """
    with explain_damage(path):
        try:
            return np.load(path, mmap_mode="r", allow_pickle=False)
        except EOFError as error:
            raise ValueError("it is cut off") from error


def as_encoder(
    model: str | Encoder, query_prefix: str, passage_prefix: str, device: str
) -> Encoder:
    """
    Raises:
        ConfigError: prefixes beside an encoder, which has its own.
    """
    if isinstance(model, str):
        return Encoder(
            model, query_prefix=query_prefix, passage_prefix=passage_prefix, device=device
        )
    if query_prefix or passage_prefix:
        raise ConfigError(
            "prefixes are given beside an encoder, which has its own",
            fix="construct the encoder with them",
        )
    return model
