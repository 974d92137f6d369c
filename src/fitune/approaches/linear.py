"""TF-IDF of words and character n-grams, then logistic regression: the strong classic.

Knows scikit-learn; knows nothing of language models. Saved as arrays and JSON, never as a pickle.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from fitune import config
from fitune.approaches.base import Cost, Prediction, Progress, Work, check_labels
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
        self.weights = np.zeros((0, 0))
        self.bias = np.zeros(0)
        self.rows = 0

    def fit(self, train: Rows, validation: Rows) -> None:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression

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
        features = self._features(texts)
        model = LogisticRegression(C=self._options.regularization, max_iter=300, tol=1e-3)
        # A label that no training row has keeps a bias that never wins.
        self.weights = np.zeros((len(self.labels), features.shape[1]), dtype=np.float32)
        self.bias = np.full(len(self.labels), -1e9, dtype=np.float32)
        at = [self.labels.index(label) for label in train.labels]
        self.bias[at] = 0
        if len(at) > 1:
            with warnings.catch_warnings():
                # 300 steps are plenty for ranking labels; the last digits are not used.
                warnings.simplefilter("ignore", ConvergenceWarning)
                model.fit(features, train.answers)  # its classes are sorted, as `labels` are
            # For two labels scikit-learn keeps one row: the second's.
            fitted = at if len(at) > 2 else at[1:]
            self.weights[fitted], self.bias[fitted] = model.coef_, model.intercept_
        self.work.progress("logistic regression", 1, 1)

    def predict(self, rows: Rows, progress: Progress) -> list[Prediction]:
        from scipy.special import softmax

        logits = self._features(rows.whole_texts) @ self.weights.T + self.bias
        probabilities = softmax(logits, axis=1)
        progress("answering", len(rows), len(rows))
        return [
            Prediction(self.labels[int(row.argmax())], tuple(float(p) for p in row))
            for row in probabilities
        ]

    def _features(self, texts: list[str]) -> Any:
        from scipy.sparse import hstack

        return hstack([view.transform(texts) for view in self.views]).tocsr()

    @property
    def cost(self) -> Cost:
        size = int(self.weights.size + self.bias.size)
        return Cost(parameters=size, trainable_parameters=size, rows=self.rows)

    @property
    def options(self) -> dict[str, Any]:
        return self._options.model_dump() | {"views": [dict(view) for view in _VIEWS]}

    def save(self, folder: Path) -> None:
        from safetensors.numpy import save_file

        folder.mkdir(parents=True, exist_ok=True)
        tensors = {"weights": self.weights, "bias": self.bias}
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
        made.weights, made.bias = tensors["weights"], tensors["bias"]
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
