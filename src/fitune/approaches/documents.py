"""What tuners of plain text share: rows of a stream, how likely documents are, what changed.

Knows streams of documents and language models; knows nothing of how one is loaded or trained.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from fitune.approaches.base import Prediction, Progress
from fitune.data.batches import Batch
from fitune.data.encoded import Encoded
from fitune.data.rows import Rows
from fitune.data.stream import Stream, refuse_small
from fitune.evaluation.likelihood import Likelihood
from fitune.training.loop import Trained
from fitune.training.objectives.likelihood import log_probs

Judged = tuple[float, int]
"""The log-probability of a row's text, and of how many tokens."""


def judged(
    model: Any,
    batches: Iterable[Batch],
    counts: Sequence[int],
    progress: Progress,
    **options: Any,
) -> list[Judged]:
    """How likely the targets of each row are.

    Args:
        batches: of all rows, in any order.
        counts: targets of each row.
        options: handed to the model.
    """
    found: list[Judged] = [(0.0, 0)] * len(counts)
    done = 0
    for batch in batches:
        here = [counts[row] for row in batch.rows]
        said = log_probs(model, batch, here, **options).tolist()
        for row, nats, count in zip(batch.rows, said, here, strict=True):
            found[row] = nats, count
        done += len(here)
        progress("answering", done, len(counts))
    return found


def stream_rows(
    stream: Stream, documents: Rows, what: str, max_length: int
) -> tuple[list[Encoded], list[int], list[str]]:
    """As `data.limits.encode_rows`; no document is too long.

    Raises:
        DataError: the training documents are shorter than a row together.
    """
    items = stream.rows(documents, max_length)
    if what == "training":
        refuse_small(items, documents, max_length)
    tokens = sum(map(len, items))
    note = (
        f"{len(documents):,} {what} documents make {len(items):,} rows of {max_length:,} tokens "
        f"({tokens:,} in all)."
    )
    return items, list(range(len(documents))), [note]


def likelihoods(
    stream: Stream,
    documents: Rows,
    max_length: int,
    judge: Callable[[Sequence[Encoded]], list[Judged]],
) -> list[Prediction]:
    """How likely each document is, each in as many rows as it takes."""
    pieces = [stream.pieces(row.text, max_length) for row in documents]
    found = iter(judge([item for items in pieces for item in items]))
    predictions = []
    for row, items in zip(documents, pieces, strict=True):
        judged = [next(found) for _ in items]
        nats, tokens = -sum(said for said, _ in judged), sum(count for _, count in judged)
        predictions.append(Prediction(str(Likelihood(nats, tokens, len(row.text.encode())))))
    return predictions


def perplexities(trained: Trained, unit: str) -> str | None:
    """What training changed."""
    before, after = trained.before, trained.best.loss
    if before is None or after is None:
        return None
    return (
        f"the perplexity per {unit} of held-out validation documents went from "
        f"{math.exp(before):,.2f} (untuned) to {math.exp(after):,.2f}."
    )
