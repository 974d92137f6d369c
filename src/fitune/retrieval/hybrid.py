"""Search by words and by meaning, fused into one ranking.

Knows two retrievers and a fusion; knows nothing of how either compares.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fitune.errors import ConfigError
from fitune.retrieval import Hit, check_k
from fitune.retrieval.bm25 import Bm25
from fitune.retrieval.dense import Dense
from fitune.retrieval.encoder import Encoder
from fitune.retrieval.fusion import FUSIONS
from fitune.runs import explain_damage, read_json, write_json


class Hybrid:
    """BM25 and an encoder: exact words, names and numbers, and what is said in other words.

    Args:
        model, query_prefix, passage_prefix, device: as `Dense` takes them.
        stem, stopwords: as `Bm25` takes them.
        fusion: a name in `fusion.FUSIONS`; default: scores, which do better than ranks on many
            collections (Bruch et al., arXiv:2210.11934).
        weight: of the encoder's ranking, from 0 to 1; that of the words is the rest.
        depth: how many passages of each ranking are fused; at least `k` are.

    Attributes:
        words, vectors: the two retrievers.

    Raises:
        ConfigError: a value outside its limits, or a name that is not known.
    """

    def __init__(
        self,
        *,
        model: str | Encoder = "minilm-l6",
        query_prefix: str = "",
        passage_prefix: str = "",
        device: str = "cpu",
        stem: str | None = None,
        stopwords: str | Sequence[str] = (),
        fusion: str = "min-max",
        weight: float = 0.5,
        depth: int = 100,
    ) -> None:
        words = Bm25(stem=stem, stopwords=stopwords)
        self._set(fusion, weight, depth)
        self.words = words
        self.vectors = Dense(
            model=model, query_prefix=query_prefix, passage_prefix=passage_prefix, device=device
        )

    @classmethod
    def of(
        cls,
        words: Bm25,
        vectors: Dense,
        *,
        fusion: str = "min-max",
        weight: float = 0.5,
        depth: int = 100,
    ) -> Hybrid:
        """Over two retrievers of the same passages."""
        made = cls.__new__(cls)
        made._set(fusion, weight, depth)
        made.words, made.vectors = words, vectors
        return made

    def _set(self, fusion: str, weight: float, depth: int) -> None:
        if not 0 <= weight <= 1:
            raise ConfigError(
                f"weight is {weight}, and it is from 0 to 1", fix="set weight, e.g. to 0.5"
            )
        if depth < 1:
            raise ConfigError(f"depth is {depth}, and it is 1 or more", fix="set depth: 100")
        if fusion not in FUSIONS:
            raise ConfigError(f"there is no fusion '{fusion}'", fix=f"use {', '.join(FUSIONS)}")
        self._fusion, self._weight, self._depth = fusion, weight, depth
        self._fuse = FUSIONS[fusion]

    def build(self, passages: Sequence[str]) -> None:
        self.words.build(passages)
        self.vectors.build(passages)

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        check_k(k)
        depth = max(k, self._depth)
        weights = (1 - self._weight, self._weight)
        pairs = zip(
            self.words.search(queries, depth), self.vectors.search(queries, depth), strict=True
        )
        return [self._fuse(pair, weights, k) for pair in pairs]

    @property
    def encoder(self) -> Encoder:
        return self.vectors.encoder

    @property
    def parameters(self) -> int:
        return self.vectors.parameters

    def save(self, folder: Path) -> None:
        self.words.save(folder / "words")
        self.vectors.save(folder / "vectors")
        options = {"fusion": self._fusion, "weight": self._weight, "depth": self._depth}
        write_json(folder / "hybrid.json", options)

    @classmethod
    def load(cls, folder: Path) -> Hybrid:
        options = read_json(folder / "hybrid.json")
        words, vectors = Bm25.load(folder / "words"), Dense.load(folder / "vectors")
        with explain_damage(folder / "hybrid.json"):
            return cls.of(words, vectors, **options)
