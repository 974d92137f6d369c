"""How likely a language model finds a document, as numbers and as the text of an answer.

Knows nats, tokens and bytes; knows nothing of models.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

import numpy as np

from fitune.errors import ConfigError
from fitune.evaluation.metric import Floats, Texts


@dataclass(frozen=True)
class Likelihood:
    """What a document costs a language model.

    Attributes:
        nats: minus the natural logarithm of the document's probability.
        tokens: how many the model's tokenizer makes of it.
        bytes: of its text, in UTF-8.
    """

    nats: float
    tokens: int
    bytes: int

    def __str__(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def read(cls, text: str) -> Likelihood:
        """What `str` wrote.

        Raises:
            ConfigError: the text is anything else.
        """
        try:
            return cls(**json.loads(text))
        except (TypeError, ValueError):
            raise ConfigError(
                f"the answer {text[:40]!r} does not say how likely a document is",
                fix="answer rows of kind language-model as fitune.evaluation.likelihood writes it",
            ) from None


def likelihoods(predictions: Texts, references: Texts) -> Floats:
    """[rows, 3]: nats, tokens and bytes."""
    found = (Likelihood.read(prediction) for prediction in predictions)
    return np.array([[f.nats, f.tokens, f.bytes] for f in found], dtype=np.float64)


def neg_perplexity(sums: Floats, rows: int) -> Floats:
    """Minus e to the mean nats of a token, over all text."""
    return -np.exp(sums[..., 0] / np.maximum(sums[..., 1], 1))


def neg_bits_per_byte(sums: Floats, rows: int) -> Floats:
    """Minus the mean bits of a byte, over all text."""
    return -sums[..., 0] / (np.maximum(sums[..., 2], 1) * np.log(2))
