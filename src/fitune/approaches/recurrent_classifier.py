"""A recurrent network that chooses a label.

Knows labels and states; knows nothing of text or of the course of training.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.special import log_softmax, softmax
from torch import nn

from fitune import config
from fitune.approaches.base import Prediction, Progress, Work
from fitune.approaches.recurrent_reader import Reader
from fitune.data.encoded import Encoded
from fitune.data.rows import Rows
from fitune.inference.classify import classify
from fitune.language_models.vocabulary import Vocabulary
from fitune.training.loop import Validation
from fitune.training.objectives import Classify

LABEL_SMOOTHING = 0.1


class Classifier(nn.Module):
    """The mean and the maximum of a row's states, and a linear layer on them (concat pooling;
    Howard and Ruder, arXiv:1801.06146, section 3.3)."""

    def __init__(self, tokens: int, unknown: int, labels: int, options: config.Recurrent) -> None:
        super().__init__()
        self.reader = Reader(tokens, unknown, options)
        self.dropout = nn.Dropout(options.dropout or 0.0)
        self.head = nn.Linear(2 * self.reader.width, labels)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """``[rows, tokens]`` int64 each → logits ``[rows, labels]``."""
        states, _ = self.reader(ids, mask)
        there = mask[..., None].bool()
        mean = states.sum(dim=1) / there.sum(dim=1)
        highest = states.masked_fill(~there, -torch.inf).amax(dim=1)
        return self.head(self.dropout(torch.cat([mean, highest], dim=1)))


class Choosing:
    """For classify. Labels that no training row has are not among the network's, and so never win.

    Args:
        seen: the labels that training rows have, sorted.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        options: config.Recurrent,
        work: Work,
        *,
        seen: Sequence[str],
    ) -> None:
        self.work, self.seen = work, tuple(seen)
        self.end = len(vocabulary)
        unknown = self.end if vocabulary.unknown is None else vocabulary.unknown
        self.network = Classifier(self.end + 1, unknown, len(self.seen), options)
        self._index = {label: place for place, label in enumerate(self.seen)}

    @staticmethod
    def learned(train: Rows, vocabulary: Vocabulary, work: Work) -> dict[str, Any]:
        """What it knows of the training rows besides its weights, as JSON."""
        return {"seen": list(train.labels)}

    def objective(self, items: Sequence[Encoded], rows: Rows) -> Classify:
        labels = [self._index[answer] for answer in rows.answers]
        return Classify(items, labels, pad=self.end, label_smoothing=LABEL_SMOOTHING)

    def validate(self, items: Sequence[Encoded], rows: Rows) -> Validation:
        """Loss and metric; the error is that of the share of right answers, ``std / sqrt(rows)``.

        Without rows all weights score alike, so that the last are kept.
        """
        if not items:
            return Validation(None, 0.0, 0.0)
        logits = self._logits(items, None)
        expected = np.array([self._index.get(answer, -1) for answer in rows.answers])
        known = np.flatnonzero(expected >= 0)
        loss = None
        if len(known):
            loss = -float(log_softmax(logits, axis=1)[known, expected[known]].mean())
        right = logits.argmax(axis=1) == expected
        error = float(right.std() / np.sqrt(len(right)))
        return Validation(loss, self.work.score(self._predictions(logits), rows), error)

    def answer(self, items: Sequence[Encoded], progress: Progress) -> list[Prediction]:
        """One prediction an item, in order."""
        return self._predictions(self._logits(items, progress)) if items else []

    def _logits(self, items: Sequence[Encoded], progress: Progress | None) -> np.ndarray:
        """``[items, seen labels]`` float64."""
        return classify(
            self.network,
            items,
            pad=self.end,
            device=self.work.device,
            progress=(lambda done, total: progress("answering", done, total)) if progress else None,
        ).astype(np.float64)

    def _predictions(self, logits: np.ndarray) -> list[Prediction]:
        probabilities = np.zeros((len(logits), len(self.work.labels)))
        places = [self.work.labels.index(label) for label in self.seen]
        probabilities[:, places] = softmax(logits, axis=1)
        return [
            Prediction(self.work.labels[int(row.argmax())], tuple(row.tolist()))
            for row in probabilities
        ]
