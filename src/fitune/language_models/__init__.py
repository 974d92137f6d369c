"""Language models side by side: one protocol for n-grams, hidden Markov models, recurrent networks
and transformers.

Knows token sequences; knows nothing of text, tasks or labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int32]
"""The token ids of one sequence, each from 0 to the vocabulary's size - 1; without marks for where
it begins or ends, which are the model's own."""

Floats = npt.NDArray[np.float64]


class LanguageModel(Protocol):
    """What every language model answers, whatever it is made of.

    Construct it with the vocabulary's size and its options. Every model predicts one thing more
    than the tokens: the end of the sequence, whose id is the vocabulary's size.
    """

    def fit(self, train: Sequence[Ids], validation: Sequence[Ids] = ()) -> None:
        """Learn from `train`; `validation` is for choosing when to stop, by models that do."""

    def log_probabilities(self, sequences: Sequence[Ids]) -> list[Floats]:
        """For each sequence, the natural log of each token's probability after those before it,
        and last that of the sequence's end: [length + 1] each."""

    def next_distribution(self, prefix: Sequence[int]) -> Floats:
        """[vocabulary + 1] probabilities of what comes after `prefix` at the start of a sequence,
        the end last; they sum to 1."""

    def sample(self, length: int, *, seed: int, prefix: Sequence[int] = ()) -> list[int]:
        """Up to `length` token ids drawn from the model after `prefix`, which is not among them;
        fewer where the sequence ends."""

    @property
    def parameters(self) -> int:
        """How many numbers the model learned; valid after `fit`."""

    def save(self, folder: Path) -> None:
        """Write what `load` needs, as arrays and JSON."""

    @classmethod
    def load(cls, folder: Path) -> LanguageModel:
        """Read what `save` wrote; the result answers exactly as before."""


LANGUAGE_MODELS: dict[str, str] = {
    "ngram": "fitune.language_models.ngram:NGram",
    "hmm": "fitune.language_models.hmm:HiddenMarkov",
    "rnn": "fitune.language_models.recurrent:Rnn",
    "lstm": "fitune.language_models.recurrent:Lstm",
    "gru": "fitune.language_models.recurrent:Gru",
    "transformer": "fitune.language_models.transformer:Transformer",
}
"""Name → where the class is; imported only when used."""
