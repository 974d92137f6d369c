"""The labels of the nearest training rows, in a vote.

Knows retrievers and labels; knows nothing of how rows are compared, and learns nothing but how many
of them to ask.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fitune import config
from fitune.approaches.base import Cost, Prediction, Progress, Work, check_labels
from fitune.approaches.reach import rows_within_reach
from fitune.data.rows import Rows
from fitune.data.template import TextTemplate
from fitune.errors import ConfigError
from fitune.models.source import resolve_source
from fitune.names import lookup
from fitune.retrieval import RETRIEVERS, Hit, Retriever, make_retriever
from fitune.runs import read_json, write_json

NEIGHBOURS = (1, 2, 3, 5, 8, 12, 20, 30, 50)
"""How many are tried on the validation rows."""

MODEL = "minilm-l6"

_PRIOR = 1e-3  # of one vote: decides where nothing similar was found, and where votes are equal


class Knn:
    """Votes weighted by similarity (Dudani 1976) among the `k` nearest; for classify only."""

    def __init__(self, options: config.Knn, work: Work) -> None:
        check_labels("knn", work)
        if options.retriever == "bm25" and options.model:
            raise ConfigError(
                f"knn has a model ('{options.model}') and retriever bm25, which compares words",
                fix="set retriever: hybrid or dense, or remove the model",
            )
        self._options = options
        self.work = work
        self.labels = work.labels
        self.k = options.neighbours or NEIGHBOURS[0]
        self._label_of = np.zeros(0, dtype=np.int64)  # of each training row

    def fit(self, train: Rows, validation: Rows) -> None:
        """
        Raises:
            DataError: a row is longer than the encoder reads, and the task refuses such rows.
        """
        self.work.progress("indexing rows", 0, 1)
        self._retriever = self._empty()
        kept = self._within_reach(train, "training")
        texts, answers = train.whole_texts, train.answers
        self._retriever.build([texts[i] for i in kept])
        self._label_of = np.array([self.labels.index(answers[i]) for i in kept])
        self.work.progress("indexing rows", 1, 1)
        if self._options.neighbours is None:
            self._within_reach(validation, "validation")
            hits = self._retriever.search(validation.whole_texts, NEIGHBOURS[-1])
            scores = {
                k: self.work.score(self._vote(hits, k), validation)
                for k in NEIGHBOURS
                if k <= max(NEIGHBOURS[0], len(kept))
            }
            self.k = max(scores, key=scores.__getitem__)  # the first, so the fewest, of equals

    def predict(self, rows: Rows, progress: Progress) -> list[Prediction]:
        self._within_reach(rows, "answered")
        answers = self._vote(self._retriever.search(rows.whole_texts, self.k), self.k)
        progress("answering", len(rows), len(rows))
        return answers

    def _empty(self) -> Retriever:
        if self._options.retriever == "bm25":
            return make_retriever("bm25")
        from fitune.retrieval.encoder import Encoder

        task = self.work.task
        source = resolve_source(
            self._options.model or MODEL,
            download=task.download,
            trust_remote_code=task.trust_remote_code,
        )
        encoder = Encoder(source, device=self.work.device)
        return make_retriever(self._options.retriever, model=encoder)

    def _within_reach(self, rows: Rows, what: str) -> Sequence[int]:
        """The indices of the rows that are compared; words are compared in rows of any length."""
        encoder = getattr(self._retriever, "encoder", None)
        if encoder is None or not len(rows):
            return range(len(rows))
        template = TextTemplate(encoder.tokenizer)
        return rows_within_reach(rows, template, encoder.max_length, self.work, what)

    def _vote(self, found: Sequence[Sequence[Hit]], k: int) -> list[Prediction]:
        prior = np.bincount(self._label_of, minlength=len(self.labels)) / len(self._label_of)
        answers = []
        for hits in found:
            near = hits[:k]
            votes = prior * _PRIOR
            # A cosine below 0 is a likeness of nothing, not a vote against.
            weights = [max(hit.score, 0.0) for hit in near]
            np.add.at(votes, self._label_of[[hit.passage for hit in near]], weights)
            shares = votes / votes.sum()
            label = self.labels[int(shares.argmax())]
            answers.append(Prediction(label, tuple(float(share) for share in shares)))
        return answers

    @property
    def cost(self) -> Cost:
        return Cost(self._retriever.parameters, 0, len(self._label_of))

    @property
    def options(self) -> dict[str, Any]:
        resolved: dict[str, Any] = {"neighbours": self.k}
        if self._options.retriever != "bm25":
            resolved["model"] = self._options.model or MODEL
        return self._options.model_dump() | resolved

    def save(self, folder: Path) -> None:
        self._retriever.save(folder / "retriever")
        about = {"retriever": self._options.retriever, "neighbours": self.k}
        rows = {"labels": list(self.labels), "rows": self._label_of.tolist()}
        write_json(folder / "knn.json", about | rows)

    @classmethod
    def load(cls, folder: Path, work: Work) -> Knn:
        saved = read_json(folder / "knn.json")
        options = config.Knn(retriever=saved["retriever"], neighbours=saved["neighbours"])
        made = cls(options, work)
        made._label_of = np.array(saved["rows"], dtype=np.int64)
        # `options` has checked that it is one of fitune's own.
        kind = lookup(options.retriever, RETRIEVERS, "retriever")
        made._retriever = kind.load(folder / "retriever")
        return made
