"""How an encoder is tuned for classification and answers.

Knows classifiers and templates; the course of training is `finetuned`'s matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import log_softmax, softmax
from torch import nn

from fitune import config
from fitune.approaches.base import Prediction, Progress
from fitune.approaches.tuner import Subject
from fitune.data.encoded import Encoded
from fitune.data.kept_tokens import kept
from fitune.data.limits import encode_rows
from fitune.data.rows import Row, Rows
from fitune.data.template import TextTemplate
from fitune.inference.classify import classify
from fitune.models.classifier import NativeClassifier, load_classifier
from fitune.models.save import load_saved_classifier, save_classifier
from fitune.models.source import cache_folder
from fitune.quantization.weights import quantize_linear_layers
from fitune.training.class_weights import label_weights
from fitune.training.loop import Trained, Validation
from fitune.training.methods import Method, prepare
from fitune.training.objectives import Classify
from fitune.training.precision import precision


class EncoderTuner:
    """An encoder and its head, for one task's labels."""

    def __init__(self, subject: Subject) -> None:
        self.source, self.tokenizer = subject.source, subject.tokenizer
        self.options, self.work = subject.options, subject.work
        self.labels = self.work.labels
        self.index = {label: i for i, label in enumerate(self.labels)}
        self.template = TextTemplate(self.tokenizer)
        self.model: Any = None

    def build(self, method: Method, options: config.Finetuned) -> None:
        self.options = options
        self.model = load_classifier(
            self.source,
            self.labels,
            dtype=precision(options.dtype, options.method or "", decoder=False).weights,
            device=self.work.device,
            seed=options.seed or 0,
            dropout=options.dropout,
        )
        if isinstance(self.model, NativeClassifier):
            self.model.model = prepare(self.model.model, method, options)
        else:
            self.model.trunk = prepare(self.model.trunk, method, options)

    def encode(self, row: Row) -> Encoded:
        return self.template.encode(row)

    def encode_all(self, rows: Sequence[Row]) -> Iterable[Encoded]:
        """`encode` of each, many at a time, or as an earlier start kept them."""
        template = self.template
        return kept(cache_folder() / "tokens", template.identity, rows, template.encode_all)

    def encode_rows(
        self, rows: Rows, *, what: str, max_length: int, **limits: Any
    ) -> tuple[list[Encoded], list[int], list[str]]:
        return encode_rows(
            self.encode,
            rows,
            tokenizer=self.tokenizer,
            what=what,
            max_length=max_length,
            together=self.encode_all,
            **limits,
        )

    def objective(self, items: list[Encoded], rows: list[Row], smoothing: float) -> Classify:
        answers = [row.answer or "" for row in rows]
        return Classify(
            items,
            [self.index[answer] for answer in answers],
            pad=self.tokenizer.pad_token_id,
            label_smoothing=smoothing,
            weights=label_weights(self.options.class_weights, self.labels, answers),
        )

    def head_parameters(self) -> list[nn.Parameter]:
        return self.model.head_parameters()

    def learn_limits(self, train: Rows) -> None:
        """A label needs no limit."""

    def before_training(self, validation: Sequence[Any]) -> None:
        """Nothing is kept of the untuned model."""

    def summary(self, trained: Trained) -> str | None:
        """A new head's first loss says nothing."""
        return None

    def validate(self, items: list[Encoded], rows: Rows) -> Validation:
        """Loss and metric, computed in training's dtype.

        The error is that of the share of right answers, ``std / sqrt(rows)``,
        which for the other metrics of single labels is about right, too."""
        training = precision(self.options.dtype, self.options.method or "", decoder=False)
        logits = self._logits(items, None, training.autocast)
        expected = [self.index.get(row.answer or "", -1) for row in rows]
        known = [i for i, label in enumerate(expected) if label >= 0]
        log_probs = log_softmax(logits.astype(np.float64), axis=1)
        loss = -float(np.mean([log_probs[i, expected[i]] for i in known])) if known else None
        right = logits.argmax(axis=1) == np.asarray(expected)
        error = float(right.std() / np.sqrt(len(right)))
        return Validation(loss, self.work.score(self._predictions(logits), rows), error)

    def predict(self, rows: Rows, progress: Progress) -> list[Prediction]:
        assert self.options.max_length
        items, _, notes = encode_rows(
            self.template.encode,
            rows,
            tokenizer=self.tokenizer,
            max_length=self.options.max_length,
            too_long=self.work.task.data.too_long,
            what="answered",
            together=self.template.encode_all,
        )
        for note in notes:
            self.work.notice(note)
        if not items:
            return []
        return self._predictions(self._logits(items, progress))

    def _logits(
        self, items: list[Encoded], progress: Progress | None, autocast: torch.dtype | None = None
    ) -> np.ndarray:
        return classify(
            self.model,
            items,
            pad=self.tokenizer.pad_token_id,
            device=self.work.device,
            progress=(lambda done, total: progress("answering", done, total)) if progress else None,
            autocast=autocast,
        )

    def _predictions(self, logits: np.ndarray) -> list[Prediction]:
        return [
            Prediction(self.labels[int(row.argmax())], tuple(float(p) for p in row))
            for row in softmax(logits.astype(np.float64), axis=1)
        ]

    def save(self, folder: Path) -> None:
        assert self.options.max_length
        save_classifier(
            folder,
            self.model,
            self.tokenizer,
            labels=self.labels,
            max_length=self.options.max_length,
        )

    def load(self, folder: Path) -> None:
        self.model = load_saved_classifier(
            folder, self.source, device=self.work.device, quantize=_quantize
        )


def _quantize(model: Any, compute_dtype: torch.dtype) -> Any:
    return quantize_linear_layers(model, compute_dtype=compute_dtype)
