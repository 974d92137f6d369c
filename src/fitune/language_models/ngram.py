"""An n-gram language model: stored probabilities, and back-off weights for what is not stored.

Knows tables of n-grams (`ngram_counts`) and what smoothing makes of them (`smoothing`); knows
nothing of text. Both learning and answering work on whole arrays of tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fitune.errors import ConfigError, TrainingError
from fitune.language_models import Floats, Ids
from fitune.language_models.batches import batches
from fitune.language_models.ngram_counts import (
    ABSENT,
    Keys,
    Places,
    begin_of,
    count_ngrams,
    lay_out,
    width_of,
)
from fitune.language_models.smoothing import SMOOTHINGS
from fitune.runs import read_json, write_json

HIGHEST = 20
"""The highest order that is of any use: beyond, texts repeat themselves word by word."""

AT_ONCE = 2**20
"""Tokens scored at once, of about 60 bytes each."""


@dataclass(frozen=True)
class Level:
    """The n-grams of one order, ascending by key.

    Attributes:
        keys: int64 [n-grams], as in `ngram_counts.Table`.
        log_probabilities: float64 [n-grams], natural, of the last token after the others.
        log_backoffs: float64 [n-grams], natural, of the n-gram as a context; [0] of the highest
            order, which is none.
    """

    keys: Keys
    log_probabilities: Floats
    log_backoffs: Floats


class NGram:
    """Modified Kneser-Ney (`smoothing.kneser_ney`) or another of `SMOOTHINGS`.

    Args:
        vocabulary: how many tokens there are.
        order: tokens in the longest n-gram; 1 to 20.
        smoothing: `kneser-ney` or `absolute`.

    Raises:
        ConfigError: an option is out of its limits.
    """

    def __init__(self, vocabulary: int, *, order: int = 5, smoothing: str = "kneser-ney") -> None:
        if not 1 <= order <= HIGHEST:
            raise ConfigError(
                f"order is {order}, and n-grams have from 1 to {HIGHEST} tokens",
                fix=f"set order to at most {HIGHEST}; 3 to 5 for words, 5 to 8 for characters",
            )
        if smoothing not in SMOOTHINGS:
            raise ConfigError(
                f"there is no smoothing '{smoothing}'", fix=f"use one of {', '.join(SMOOTHINGS)}"
            )
        if vocabulary < 1:
            raise ConfigError(
                f"the vocabulary has {vocabulary} tokens", fix="give a vocabulary of at least 1"
            )
        self.vocabulary = vocabulary
        self.order = order
        self.smoothing = smoothing
        self.levels: tuple[Level, ...] = ()

    def fit(self, train: Sequence[Ids], validation: Sequence[Ids] = ()) -> None:
        """Count and smooth; `validation` is not looked at, since there is nothing to stop.

        Raises:
            DataError: `train` is empty, or a token id is outside of the vocabulary.
        """
        tables = count_ngrams(train, self.vocabulary, self.order)
        smoothed = SMOOTHINGS[self.smoothing](tables)
        self.levels = tuple(
            Level(table.keys, *made) for table, made in zip(tables, smoothed, strict=True)
        )

    def log_probabilities(self, sequences: Sequence[Ids]) -> list[Floats]:
        """See `LanguageModel`.

        Raises:
            DataError: a token id is outside of the vocabulary.
            TrainingError: the model was not fitted.
        """
        return [scores for batch in batches(sequences, AT_ONCE) for scores in self._scored(batch)]

    def _scored(self, sequences: Sequence[Ids]) -> list[Floats]:
        stream = lay_out(sequences, self.vocabulary)
        scores = np.zeros(len(stream))
        below: tuple[Level, Places] | None = None
        for level, places in self._places(stream):
            found = places != ABSENT
            if below is not None:
                context = below[1][:-1]
                known = np.flatnonzero(context != ABSENT)
                scores[known + 1] += below[0].log_backoffs[context[known]]
            scores[found] = level.log_probabilities[places[found]]
            below = level, places
        begins = np.flatnonzero(stream == begin_of(self.vocabulary))
        return [part[1:] for part in np.split(scores, begins[1:])]

    def _places(self, stream: Ids) -> Iterator[tuple[Level, Places]]:
        """For each order, where the n-gram that ends at each position of `stream` stands in it."""
        if not self.levels:
            raise TrainingError("the n-gram model has learned nothing", fix="call fit first")
        width = np.int64(width_of(self.vocabulary))
        places = stream
        yield self.levels[0], places
        for level in self.levels[1:]:
            # After an absent context the key is negative, and absent as well.
            found = _find(places[:-1] * width + stream[1:], level.keys)
            places = np.append(np.int32(ABSENT), found)
            yield level, places

    def next_distribution(self, prefix: Sequence[int]) -> Floats:
        """See `LanguageModel`; only the last `order` - 1 tokens of `prefix` matter."""
        made = np.exp(self._unigrams)
        if self.order == 1:
            return made
        begun = [begin_of(self.vocabulary), *prefix]
        context = np.array(begun[-(self.order - 1) :], np.int32)
        width = width_of(self.vocabulary)
        matched = [(level, int(places[-1])) for level, places in self._places(context)]
        for (below, place), level in zip(matched, self.levels[1:], strict=False):
            if place == ABSENT:
                continue
            made *= np.exp(below.log_backoffs[place])
            first, last = np.searchsorted(level.keys, [place * width, (place + 1) * width])
            tokens = level.keys[first:last] % width
            made[tokens] = np.exp(level.log_probabilities[first:last])
        return made

    @property
    def _unigrams(self) -> Floats:
        if not self.levels:
            raise TrainingError("the n-gram model has learned nothing", fix="call fit first")
        return self.levels[0].log_probabilities[: self.vocabulary + 1]

    def sample(self, length: int, *, seed: int, prefix: Sequence[int] = ()) -> list[int]:
        """See `LanguageModel`; the same seed draws the same tokens."""
        draw = np.random.default_rng(seed)
        text = list(prefix)
        for _ in range(length):
            made = self.next_distribution(text[-self.order :])
            token = int(draw.choice(len(made), p=made / made.sum()))
            if token == self.vocabulary:
                break
            text.append(token)
        return text[len(prefix) :]

    @property
    def parameters(self) -> int:
        """Probabilities stored, and the back-off weights of all orders but the highest."""
        sizes = [len(level.keys) for level in self.levels]
        return sum(sizes) + sum(sizes[:-1])

    def save(self, folder: Path) -> None:
        from safetensors.numpy import save_file

        folder.mkdir(parents=True, exist_ok=True)
        arrays: dict[str, npt.NDArray[Any]] = {}
        for n, level in enumerate(self.levels, start=1):
            arrays[f"keys.{n}"] = level.keys
            arrays[f"log_probabilities.{n}"] = level.log_probabilities
            arrays[f"log_backoffs.{n}"] = level.log_backoffs
        save_file(arrays, folder / "ngram.safetensors")
        about = {"vocabulary": self.vocabulary, "order": self.order, "smoothing": self.smoothing}
        write_json(folder / "ngram.json", about)

    @classmethod
    def load(cls, folder: Path) -> NGram:
        from safetensors.numpy import load_file

        about = read_json(folder / "ngram.json")
        made = cls(about["vocabulary"], order=about["order"], smoothing=about["smoothing"])
        arrays = load_file(folder / "ngram.safetensors")
        parts = ("keys", "log_probabilities", "log_backoffs")
        made.levels = tuple(
            Level(*(arrays[f"{part}.{n}"] for part in parts)) for n in range(1, made.order + 1)
        )
        return made


def _find(wanted: Keys, keys: Keys) -> Places:
    """Where each of `wanted` stands among `keys`, which ascend."""
    if not len(keys):
        return np.full(len(wanted), ABSENT, np.int32)
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, at, ABSENT).astype(np.int32)
