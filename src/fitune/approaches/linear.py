"""TF-IDF of words and character n-grams, then logistic regression: the strong classic.

Knows scikit-learn; knows nothing of language models. Saved as arrays and JSON, never as a pickle.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fitune import config
from fitune.approaches.base import Cost, Prediction, Progress, Work, check_labels
from fitune.approaches.logistic import Logistic, fit_logistic
from fitune.data.rows import Rows
from fitune.errors import DataError
from fitune.runs import read_json, write_json

_VIEWS: tuple[dict[str, Any], ...] = (
    {"analyzer": "word", "ngram_range": (1, 2), "sublinear_tf": True},
    # Character n-grams inside words carry what spelling and endings tell; those seen once only
    # would double the matrix without being able to generalise.
    {"analyzer": "char_wb", "ngram_range": (2, 4), "sublinear_tf": True, "min_df": 2},
)


class Linear:
    """Multinomial logistic regression on TF-IDF features; for classify only."""

    def __init__(self, options: config.Linear, work: Work) -> None:
        check_labels("linear", work)
        self._options = options
        self.work = work
        self.labels = work.labels
        self.views: list[Any] = []
        self.head = Logistic(work.labels, np.zeros((0, 0)), np.zeros(0))
        self.rows = 0

    def fit(self, train: Rows, validation: Rows) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer

        self.rows = len(train)
        texts = train.whole_texts
        self.work.progress("logistic regression", 0, 1)
        views = []
        for view in _VIEWS:
            vectorizer = TfidfVectorizer(**view)
            try:
                vectorizer.fit(texts)
            except ValueError:  # too few rows for min_df, or no word of two letters
                # Padded by spaces, a text of one letter still has an n-gram.
                vectorizer = TfidfVectorizer(**{**view, "min_df": 1, "analyzer": "char_wb"})
                try:
                    vectorizer.fit(texts)
                except ValueError as error:
                    raise DataError(
                        f"there is no text in any of the {len(texts):,} training rows",
                        fix="set data.input to the column with the text",
                    ) from error
            views.append(vectorizer)
        self.views = views
        self.head = fit_logistic(
            self._features(texts),
            train.answers,
            self.labels,
            strength=self._options.regularization,
        )
        self.work.progress("logistic regression", 1, 1)

    def predict(self, rows: Rows, progress: Progress) -> list[Prediction]:
        predictions = self.head.predictions(self._features(rows.whole_texts))
        progress("answering", len(rows), len(rows))
        return predictions

    def _features(self, texts: list[str]) -> Any:
        from scipy.sparse import hstack

        return hstack([view.transform(texts) for view in self.views]).tocsr()

    @property
    def cost(self) -> Cost:
        size = self.head.parameters
        return Cost(parameters=size, trainable_parameters=size, rows=self.rows)

    @property
    def options(self) -> dict[str, Any]:
        return self._options.model_dump() | {"views": [dict(view) for view in _VIEWS]}

    def save(self, folder: Path) -> None:
        from safetensors.numpy import save_file

        folder.mkdir(parents=True, exist_ok=True)
        tensors = {"weights": self.head.weights, "bias": self.head.bias}
        views = []
        for i, view in enumerate(self.views):
            tensors[f"idf.{i}"] = np.asarray(view.idf_)
            terms = sorted(view.vocabulary_, key=view.vocabulary_.__getitem__)
            views.append({"analyzer": view.analyzer, "terms": terms})
        save_file(tensors, folder / "linear.safetensors")
        write_json(folder / "linear.json", {"labels": list(self.labels), "views": views})

    @classmethod
    def load(cls, folder: Path, work: Work) -> Linear:
        from safetensors.numpy import load_file
        from sklearn.feature_extraction.text import TfidfVectorizer

        made = cls(config.Linear(), work)
        saved = read_json(folder / "linear.json")
        tensors = load_file(folder / "linear.safetensors")
        made.head = Logistic(tuple(saved["labels"]), tensors["weights"], tensors["bias"])
        for i, (view, kept) in enumerate(zip(_VIEWS, saved["views"], strict=True)):
            vectorizer = TfidfVectorizer(
                analyzer=kept["analyzer"],
                ngram_range=view["ngram_range"],
                sublinear_tf=view["sublinear_tf"],
                vocabulary=kept["terms"],
            )
            vectorizer.idf_ = tensors[f"idf.{i}"]
            made.views.append(vectorizer)
        return made
