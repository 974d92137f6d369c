"""How an encoder goes on learning from plain text, and how likely it finds documents.

Knows masked language models and streams of documents; the course of training is `finetuned`'s
matter.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fitune import config
from fitune.approaches.base import Prediction, Progress
from fitune.approaches.documents import Judged, judged, likelihoods, perplexities, stream_rows
from fitune.approaches.tuner import Subject
from fitune.data.batches import Batch, micro_batches
from fitune.data.encoded import Encoded, Reason
from fitune.data.rows import Row, Rows
from fitune.data.stream import MaskedStream
from fitune.errors import ConfigError
from fitune.models.load import load_masked, training_config
from fitune.models.save import load_saved_masked, save_language_model
from fitune.training.loop import Trained, Validation
from fitune.training.methods import Method, prepare
from fitune.training.objectives import Masked
from fitune.training.precision import precision

METHODS_OF_WHOLE_MODELS = ("full", "freeze", "head", "bitfit")
"""What trains is saved as a whole model, whose trunk can then be tuned to classify."""


class MaskedTuner:
    """An encoder with its head for hidden tokens."""

    def __init__(self, subject: Subject) -> None:
        options = subject.options
        if options.method not in (None, *METHODS_OF_WHOLE_MODELS) and ":" not in options.method:
            raise ConfigError(
                f"method '{options.method}' does not go with objective 'masked': a whole model is "
                "saved, whose trunk can then be tuned to classify",
                fix=f"use {', '.join(METHODS_OF_WHOLE_MODELS)}",
            )
        self.source, self.tokenizer = subject.source, subject.tokenizer
        self.options, self.work = options, subject.work
        self.stream = MaskedStream(self.tokenizer)
        self.model: Any = None
        self._new_head = False

    def build(self, method: Method, options: config.Finetuned) -> None:
        self.options = options
        model, self._new_head = load_masked(
            self.source,
            dtype=precision(options.dtype, options.method or "", decoder=False).weights,
            device=self.work.device,
            config=training_config(self.source, options.dropout),
            seed=options.seed or 0,
        )
        if self._new_head:
            self.work.notice(
                f"'{self.source.name}' comes without a head for hidden tokens; a new one is drawn."
            )
        self.model = prepare(model, method, options)

    def encode_rows(
        self, rows: Rows, *, what: str, max_length: int, **limits: Any
    ) -> tuple[list[Encoded], list[int], list[str]]:
        return stream_rows(self.stream, rows, what, max_length)

    def objective(self, items: list[Encoded], rows: list[Row], smoothing: float) -> Masked:
        return self._masked(items, smoothing)

    def _masked(
        self, items: Sequence[Encoded], smoothing: float = 0.0, *, fixed: bool = False
    ) -> Masked:
        most = min(len(self.tokenizer), int(self.model.config.vocab_size))
        special = set(self.tokenizer.all_special_ids)
        return Masked(
            items,
            pad=self.tokenizer.pad_token_id,
            mask=self.tokenizer.mask_token_id,
            words=[token for token in range(most) if token not in special],
            seed=self.options.seed or 0,
            label_smoothing=smoothing,
            fixed=fixed,
        )

    def head_parameters(self) -> list[nn.Parameter]:
        """Of a new head, but for the matrix that it shares with the embeddings."""
        trunk = f"{self.model.base_model_prefix}."
        named = self.model.named_parameters() if self._new_head else ()
        return [parameter for name, parameter in named if not name.startswith(trunk)]

    def learn_limits(self, train: Rows) -> None:
        """Nothing is answered."""

    def before_training(self, validation: Sequence[Any]) -> None:
        """Nothing is kept of the untuned model."""

    def validate(self, items: list[Encoded], rows: Rows) -> Validation:
        """The mean loss of hidden tokens, the same at each evaluation."""
        objective = self._masked(items, fixed=True)
        total, hidden = 0.0, 0
        computed = precision(self.options.dtype, self.options.method or "", decoder=False)
        for batch in self._batches(objective, items, computed.autocast):
            total += float(objective.loss_sum(self.model, batch))
            hidden += batch.learned
        return Validation(total / hidden, None)

    def _batches(
        self, objective: Masked, items: Sequence[Encoded], autocast: torch.dtype | None = None
    ) -> Iterator[Batch]:
        """Every row's batch, on the device, where nothing is learned."""
        assert self.options.micro_batch_tokens
        lengths = [len(item) for item in items]
        device = "cuda" if self.work.device == "cuda" else "cpu"
        context: Any = (
            contextlib.nullcontext() if autocast is None else torch.autocast(device, dtype=autocast)
        )
        self.model.eval()
        with torch.inference_mode(), context:
            for part in micro_batches(range(len(items)), lengths, self.options.micro_batch_tokens):
                yield objective.batch(part).to(self.work.device)

    def summary(self, trained: Trained) -> str | None:
        return perplexities(trained, "hidden token")

    def predict(self, rows: Rows, progress: Progress) -> list[Prediction]:
        """How likely each document is, as `evaluation.likelihood` writes it: the tokens that are
        not hidden are taken to be as likely as those that are."""
        assert self.options.max_length

        def judge(items: Sequence[Encoded]) -> list[Judged]:
            objective = self._masked(items, fixed=True)
            counts = [len(objective.hide(row)[1]) for row in range(len(items))]
            found = judged(self.model, self._batches(objective, items), counts, progress)
            tokens = [item.reasons.count(Reason.TEXT) for item in items]
            return [
                (nats * count / hidden, count)
                for (nats, hidden), count in zip(found, tokens, strict=True)
            ]

        return likelihoods(self.stream, rows, self.options.max_length, judge)

    def save(self, folder: Path) -> None:
        save_language_model(folder, self.model, self.tokenizer, masked=True)

    def load(self, folder: Path) -> None:
        self.model = load_saved_masked(folder, device=self.work.device)
