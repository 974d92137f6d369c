"""How a decoder goes on learning from plain text, and how likely it finds documents.

Knows causal language models and streams of documents; the course of training is `finetuned`'s
matter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from fitune import config
from fitune.approaches.base import Prediction, Progress, Work
from fitune.approaches.decoder_tuner import DecoderTuner
from fitune.data.rows import Rows
from fitune.data.stream import CausalStream, Stream, refuse_small
from fitune.data.template import Encoded
from fitune.evaluation.likelihood import Likelihood
from fitune.models.architecture import Architecture
from fitune.models.save import load_saved_decoder, save_language_model
from fitune.models.source import ModelSource
from fitune.training.loop import Trained
from fitune.training.objectives.likelihood import log_probs

LogProbs = Callable[[Sequence[Encoded]], list[tuple[float, int]]]
"""Rows → of each, the log-probability of its text, and of how many tokens."""


class DocumentTuner(DecoderTuner):
    """A causal language model that learns every token of its documents."""

    def __init__(
        self,
        source: ModelSource,
        architecture: Architecture,
        tokenizer: Any,
        options: config.Finetuned,
        work: Work,
    ) -> None:
        super().__init__(source, architecture, tokenizer, options, work)
        self.stream = CausalStream(tokenizer)

    def encode_rows(
        self, rows: Rows, *, what: str, max_length: int, **limits: Any
    ) -> tuple[list[Encoded], list[int], list[str]]:
        return stream_rows(self.stream, rows, what, max_length)

    def learn_limits(self, train: Rows) -> None:
        """Nothing is answered."""

    def summary(self, trained: Trained) -> str | None:
        return perplexities(trained, "token")

    def predict(self, rows: Rows, progress: Progress) -> list[Prediction]:
        """How likely each document is, as `evaluation.likelihood` writes it."""
        assert self.options.max_length
        self.model.eval()

        def judge(items: Sequence[Encoded]) -> list[tuple[float, int]]:
            objective = self._sft(list(items))
            found = [(0.0, 0)] * len(items)
            done = 0
            with torch.inference_mode():
                for batch in self.batches(objective, items):
                    counts = [sum(items[row].learned[1:]) for row in batch.rows]
                    said = log_probs(self.model, batch, counts, use_cache=False).tolist()
                    for row, nats, count in zip(batch.rows, said, counts, strict=True):
                        found[row] = nats, count
                    done += len(counts)
                    progress("answering", done, len(items))
            return found

        return likelihoods(self.stream, rows, self.options.max_length, judge)

    def save(self, folder: Path) -> None:
        save_language_model(folder, self.model, self.tokenizer, masked=False)

    def load(self, folder: Path) -> None:
        self.model = load_saved_decoder(
            folder, self.source, device=self.work.device, quantize=self._quantize
        )
        self._choose_layout()


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
    stream: Stream, documents: Rows, max_length: int, judge: LogProbs
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
