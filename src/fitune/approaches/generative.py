"""One language model for each label, and Bayes' rule: what `ngram` and `hmm` have in common.

Knows rows, vocabularies and language models; knows nothing of how a model predicts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np

from fitune.approaches.base import Cost, Prediction, Progress, Work, check_labels
from fitune.config import ApproachConfig
from fitune.data.rows import Rows
from fitune.errors import DataError
from fitune.language_models import Floats, Ids, LanguageModel
from fitune.language_models.bayes import (
    choose_weights,
    fit_each,
    log_likelihoods,
    log_priors,
    posteriors,
)
from fitune.language_models.vocabulary import Vocabulary, build_vocabulary
from fitune.runs import read_json, write_json

Options = TypeVar("Options", bound=ApproachConfig)


@dataclass(frozen=True)
class Kind:
    """One kind of language model that every label gets.

    Attributes:
        name: of its folder.
        tokens: `words`, `characters` or `subwords`.
        make: a model that learned nothing, from the vocabulary's size.
        load: reads what the model's `save` wrote.
    """

    name: str
    tokens: str
    make: Callable[[int], LanguageModel]
    load: Callable[[Path], LanguageModel]


class Generative(Generic[Options]):
    """An approach of one or more kinds of language models; for classify only."""

    use: ClassVar[str]
    schema: ClassVar[type[ApproachConfig]]

    def __init__(self, options: Options, work: Work) -> None:
        check_labels(self.use, work)
        self._options = options
        self.work = work
        self.labels = work.labels
        self.vocabularies: dict[str, Vocabulary] = {}
        self.models: dict[str, list[LanguageModel | None]] = {}
        self.priors: Floats = np.zeros(0)
        self.weights: Floats = np.zeros(0)
        self.rows = 0

    def kinds(self) -> tuple[Kind, ...]:
        """The kinds of models that the options ask for."""
        raise NotImplementedError

    def fit(self, train: Rows, validation: Rows) -> None:
        texts, self.rows = train.whole_texts, len(train)
        if not any(text.strip() for text in texts):
            raise DataError(
                f"there is no text in any of the {len(texts):,} training rows",
                fix="set data.input to the column with the text",
            )
        tokens = {kind.tokens for kind in self.kinds()}
        self.vocabularies = {
            name: build_vocabulary(texts, name, lowercase=True) for name in sorted(tokens)
        }
        labels = self._numbers(train)
        self.priors = log_priors(labels, len(self.labels))
        encoded = self._encoded(texts)
        for kind in self.kinds():
            size = len(self.vocabularies[kind.tokens])
            self.models[kind.name] = fit_each(
                lambda kind=kind, size=size: kind.make(size),  # type: ignore[misc]
                encoded[kind.tokens],
                labels,
                len(self.labels),
                lambda done, of, name=kind.name: self.work.progress(name, done, of),  # type: ignore[misc]
            )
        known = Rows(tuple(row for row in validation if row.answer in self.labels))
        self.weights = choose_weights(
            self._likelihoods(known.whole_texts), self.priors, self._numbers(known)
        )

    def predict(self, rows: Rows, progress: Progress) -> list[Prediction]:
        found = posteriors(self._likelihoods(rows.whole_texts), self.priors, self.weights)
        progress("answering", len(rows), len(rows))
        return [
            Prediction(self.labels[int(row.argmax())], tuple(float(p) for p in row))
            for row in found
        ]

    def _likelihoods(self, texts: list[str]) -> Floats:
        encoded = self._encoded(texts)
        return np.stack(
            [log_likelihoods(self.models[kind.name], encoded[kind.tokens]) for kind in self.kinds()]
        )

    def _encoded(self, texts: list[str]) -> dict[str, list[Ids]]:
        return {name: made.encode_all(texts) for name, made in self.vocabularies.items()}

    def _numbers(self, rows: Rows) -> Any:
        places = {label: place for place, label in enumerate(self.labels)}
        return np.array([places[answer] for answer in rows.answers], np.intp)

    @property
    def cost(self) -> Cost:
        models = (model for each in self.models.values() for model in each if model is not None)
        size = sum(model.parameters for model in models)
        return Cost(parameters=size, trainable_parameters=size, rows=self.rows)

    @property
    def options(self) -> dict[str, Any]:
        """Before `fit`, without the weights."""
        names = [kind.name for kind in self.kinds()]
        weights = dict(zip(names, self.weights.tolist(), strict=False)) or None
        return self._options.model_dump() | {"weights": weights}

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for name, vocabulary in self.vocabularies.items():
            vocabulary.save(folder / f"{name}.json")
        for name, models in self.models.items():
            for place, model in enumerate(models):
                if model is not None:
                    model.save(folder / name / str(place))
        # JSON knows no infinity: a label without a row has no prior.
        priors = [float(p) if np.isfinite(p) else None for p in self.priors]
        about = {
            "options": self._options.model_dump(),
            "labels": list(self.labels),
            "priors": priors,
            "weights": self.weights.tolist(),
            "rows": self.rows,
        }
        write_json(folder / f"{self.use}.json", about)

    @classmethod
    def load(cls, folder: Path, work: Work) -> Any:
        saved = read_json(folder / f"{cls.use}.json")
        made = cls(cls.schema(**saved["options"]), work)  # type: ignore[arg-type]
        made.rows, made.weights = saved["rows"], np.array(saved["weights"])
        made.priors = np.array([-np.inf if p is None else p for p in saved["priors"]])
        for kind in made.kinds():
            made.vocabularies[kind.tokens] = Vocabulary.load(folder / f"{kind.tokens}.json")
            made.models[kind.name] = [
                kind.load(folder / kind.name / str(place)) if np.isfinite(prior) else None
                for place, prior in enumerate(made.priors)
            ]
        return made
