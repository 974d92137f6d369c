"""Retrieval: passages that may hold an answer, best first.

Knows texts and scores; knows nothing of how passages are shown to a model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Retriever(Protocol):
    """What every index answers, whether it compares words or vectors."""

    def add(self, passages: Sequence[str]) -> None:
        """Index passages; their numbers go on from those already there."""

    def search(self, query: str, k: int) -> list[tuple[int, float]]:
        """The `k` best passages as (number, score), best first."""
