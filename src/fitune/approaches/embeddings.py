"""Vectors of an encoder that nobody tuned, then logistic regression: whether what a general encoder
knows already tells the labels apart.

Knows encoders and logistic regression; knows nothing of similarity or of tuning.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from fitune import config
from fitune.approaches.base import Cost, Prediction, Progress, Work, check_labels
from fitune.approaches.logistic import Logistic, fit_logistic
from fitune.approaches.reach import rows_within_reach
from fitune.data.rows import Rows
from fitune.data.template import TextTemplate
from fitune.models.load import load_tokenizer
from fitune.models.source import resolve_source
from fitune.retrieval.encoder import Encoder, Vectors, require_pooling
from fitune.runs import explain_damage, read_json, write_json

STRENGTHS = (1.0, 10.0, 100.0, 1000.0)
"""Of the penalty, inverse: those tried on the validation rows. Vectors of length one have small
values, and so take large weights."""

TOLERANCE = 1e-4
"""At 1e-3, as for TF-IDF, a weak penalty is stopped far from its optimum: on banking77 it chose
another strength, and lost a point of accuracy."""


class Embeddings:
    """A linear head on a frozen encoder (a linear probe; Alain and Bengio, arXiv:1610.01644); for
    classify only."""

    def __init__(self, options: config.Embeddings, work: Work) -> None:
        check_labels("embeddings", work)
        self._options = options
        self.work = work
        source = resolve_source(
            options.model,
            download=work.task.download,
            trust_remote_code=work.task.trust_remote_code,
        )
        require_pooling(source)
        self._source = source
        self._template = TextTemplate(load_tokenizer(source))
        self._strength = options.regularization or STRENGTHS[0]
        self._head = Logistic(work.labels, np.zeros((0, 0)), np.zeros(0))
        self._rows = 0

    @cached_property
    def _encoder(self) -> Encoder:
        """Its weights, which an approach does not load before it works."""
        return Encoder(self._source, device=self.work.device)

    def fit(self, train: Rows, validation: Rows) -> None:
        """
        Raises:
            DataError: a row is longer than the encoder reads, and the task refuses such rows.
        """
        vectors, answers = self._read(train, "training")
        self._rows = len(answers)
        asked = self._options.regularization
        if asked or not len(validation):
            self._head = self._fitted(vectors, answers, self._strength)
            return
        held_out, _ = self._read(validation, "validation")
        best = -np.inf
        for done, strength in enumerate(STRENGTHS):
            self.work.progress("logistic regression", done, len(STRENGTHS))
            head = self._fitted(vectors, answers, strength)
            score = self.work.score(head.predictions(held_out), validation)
            if score > best:  # of equals the first, whose weights are the smallest
                best, self._head, self._strength = score, head, strength
        self.work.progress("logistic regression", len(STRENGTHS), len(STRENGTHS))

    def predict(self, rows: Rows, progress: Progress) -> list[Prediction]:
        vectors, _ = self._read(rows, "answered", progress)
        return self._head.predictions(vectors)

    def _fitted(self, vectors: Vectors, answers: list[str], strength: float) -> Logistic:
        return fit_logistic(
            vectors, answers, self.work.labels, strength=strength, tolerance=TOLERANCE
        )

    def _read(
        self, rows: Rows, what: str, progress: Progress | None = None
    ) -> tuple[Vectors, list[str]]:
        """The rows' vectors, ``[rows, dimension]``, and answers: of those that are kept."""
        kept = rows_within_reach(rows, self._template, self._encoder.max_length, self.work, what)
        label = "answering" if progress else f"vectors of {what} rows"
        told = progress or self.work.progress
        texts, answers = rows.whole_texts, rows.answers
        vectors, _ = self._encoder.passages(
            [texts[i] for i in kept], lambda done, total: told(label, done, total)
        )
        return vectors, [answers[i] for i in kept]

    @property
    def cost(self) -> Cost:
        head = self._head.parameters
        return Cost(self._encoder.parameters + head, trainable_parameters=head, rows=self._rows)

    @property
    def options(self) -> dict[str, Any]:
        return self._options.model_dump() | {"regularization": self._strength}

    def save(self, folder: Path) -> None:
        from safetensors.numpy import save_file

        folder.mkdir(parents=True, exist_ok=True)
        save_file(
            {"weights": self._head.weights, "bias": self._head.bias},
            folder / "embeddings.safetensors",
        )
        write_json(
            folder / "embeddings.json",
            {"options": self.options, "labels": list(self._head.labels), "rows": self._rows},
        )

    @classmethod
    def load(cls, folder: Path, work: Work) -> Embeddings:
        from safetensors.numpy import load_file

        saved = read_json(folder / "embeddings.json")
        with explain_damage(folder / "embeddings.json"):
            made = cls(config.Embeddings(**saved["options"]), work)
            labels, made._rows = tuple(saved["labels"]), saved["rows"]
        with explain_damage(folder / "embeddings.safetensors"):
            arrays = load_file(folder / "embeddings.safetensors")
            made._head = Logistic(labels, arrays["weights"], arrays["bias"])
        return made
