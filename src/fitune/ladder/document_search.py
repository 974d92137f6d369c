"""Whether a search in the task's documents would have found what an answer needs.

Knows passages and BM25; knows nothing of how a rung searches.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from fitune.ladder.wrong import held

if TYPE_CHECKING:
    from fitune.retrieval.bm25 import Bm25

DEPTH = 5
"""So many of the best passages count as found."""

_ENDS = re.compile(r"(?<=[.!?])\s+|\n+")


class DocumentSearch:
    """A search of the passages by words, made when it is first asked.

    Args:
        passages: may be empty: then nothing is found.
    """

    def __init__(self, passages: Sequence[str] = ()) -> None:
        self.passages = [passage for passage in passages if passage.strip()]

    def __bool__(self) -> bool:
        return bool(self.passages)

    def best(self, question: str) -> list[str]:
        """The `DEPTH` best passages for a question, best first; those without a word of it are
        not among them."""
        return self._best(self._passages, self.passages, question, DEPTH) if self else []

    def best_sentence(self, question: str) -> list[str]:
        """The best sentence or line of all documents, where one has a word of the question.

        A passage holds many facts, and so the words of many labels."""
        return self._best(self._sentences, self.sentences, question, 1) if self else []

    def holds(self, answer: str) -> bool:
        """Whether any passage has all words of the answer."""
        return held(answer, self.passages)

    @cached_property
    def sentences(self) -> list[str]:
        """Of all passages, each once."""
        pieces = (piece for passage in self.passages for piece in _ENDS.split(passage))
        return list(dict.fromkeys(piece for piece in pieces if piece.strip()))

    @cached_property
    def _passages(self) -> Bm25:
        return _index(self.passages)

    @cached_property
    def _sentences(self) -> Bm25:
        return _index(self.sentences)

    @staticmethod
    def _best(index: Bm25, texts: Sequence[str], question: str, count: int) -> list[str]:
        (hits,) = index.search([question], count)
        return [texts[hit.passage] for hit in hits]


def _index(texts: Sequence[str]) -> Bm25:
    from fitune.retrieval.bm25 import Bm25

    made = Bm25(stopwords="english")
    made.build(texts)
    return made
