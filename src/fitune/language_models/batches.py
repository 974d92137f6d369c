"""Sequences taken a few at a time, so that what is computed at once is bounded.

Knows lengths; knows nothing of models.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fitune.language_models import Ids


def batches(sequences: Sequence[Ids], tokens: int) -> Iterator[Sequence[Ids]]:
    """In order, as many at once as have at most `tokens` tokens; a longer one by itself."""
    start = size = 0
    for i, one in enumerate(sequences):
        if size and size + len(one) > tokens:
            yield sequences[start:i]
            start, size = i, 0
        size += len(one) + 1
    if start < len(sequences):
        yield sequences[start:]
