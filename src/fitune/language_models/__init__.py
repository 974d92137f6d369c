"""Language models side by side: one protocol for n-grams, hidden Markov models, recurrent networks
and transformers.

Knows token sequences; knows nothing of tasks or labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class LanguageModel(Protocol):
    """What every language model answers, whatever it is made of."""

    def fit(self, sequences: Sequence[Sequence[int]]) -> None:
        """Learn from sequences of token ids."""

    def log_probability(self, sequence: Sequence[int]) -> float:
        """Natural log of the probability of a whole sequence, its end included."""

    def sample(self, length: int, *, seed: int) -> list[int]:
        """Up to `length` token ids, drawn from the model."""
