"""How a decoder goes on learning from plain text, and how likely it finds documents.

Knows causal language models and streams of documents; the course of training is `finetuned`'s
matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from fitune.approaches.base import Prediction, Progress
from fitune.approaches.decoder_tuner import DecoderTuner
from fitune.approaches.documents import Judged, judged, likelihoods, perplexities, stream_rows
from fitune.approaches.tuner import Subject
from fitune.data.encoded import Encoded
from fitune.data.rows import Rows
from fitune.data.stream import CausalStream
from fitune.models.save import load_saved_decoder, save_language_model
from fitune.training.loop import Trained


class DocumentTuner(DecoderTuner):
    """A causal language model that learns every token of its documents."""

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject)
        self.stream = CausalStream(self.tokenizer)

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

        def judge(items: Sequence[Encoded]) -> list[Judged]:
            objective = self._sft(list(items))
            counts = [sum(item.learned[1:]) for item in items]
            with torch.inference_mode():
                batches = self.batches(objective, items)
                return judged(self.model, batches, counts, progress, use_cache=False)

        return likelihoods(self.stream, rows, self.options.max_length, judge)

    def save(self, folder: Path) -> None:
        save_language_model(folder, self.model, self.tokenizer, masked=False)

    def load(self, folder: Path) -> None:
        self.model = load_saved_decoder(
            folder, self.source, device=self.work.device, quantize=self._quantize
        )
        self._choose_layout()
