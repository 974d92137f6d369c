"""How well a language model predicts a text: perplexity and bits per byte.

Knows language models and vocabularies; knows nothing of how a model was made.

Perplexity is exp of the mean negative log probability of what was predicted: every token and every
sequence's end. It compares models over one vocabulary only: a smaller vocabulary turns hard words
into `<unk>`, which is easy to predict.

Bits per byte divide the negative log2 probability of the text by its UTF-8 bytes, so that words,
characters and subwords can be compared. The probability of `<unk>` is not yet that of the word it
stands for, so each unknown one is charged its spelling as well: every byte and the spelling's end
are one of 257 equally likely symbols. Words lose white space, and `lowercase` loses capitals; what
is lost is not charged, and the figure is then too low (`Score.exact` is False).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from fitune.errors import DataError
from fitune.language_models import LanguageModel
from fitune.language_models.vocabulary import Vocabulary

AT_ONCE = 4_096
"""Texts encoded and scored together."""


@dataclass(frozen=True)
class Score:
    """What a text costs a model.

    Attributes:
        nats: minus the natural log of the probability of all sequences, their ends included.
        predictions: how many tokens and ends there are.
        bytes: of the text in UTF-8, with what separates its sequences.
        unknown: how many of the tokens are `<unk>`.
        spelling: nats that the unknown ones' spellings cost, which `nats` does not hold.
        exact: whether nothing of the text is lost between tokens.
    """

    nats: float
    predictions: int
    bytes: int
    unknown: int
    spelling: float
    exact: bool

    @property
    def perplexity(self) -> float:
        """exp(nats / predictions); infinite where a token is held impossible."""
        try:
            return math.exp(self.nats / self.predictions)
        except OverflowError:
            return math.inf

    @property
    def bits_per_byte(self) -> float:
        """Of the text, unknown tokens' spellings included."""
        return (self.nats + self.spelling) / math.log(2) / self.bytes


def score(
    model: LanguageModel, vocabulary: Vocabulary, texts: Iterable[str], *, separator: str = "\n"
) -> Score:
    """Score `texts`, each a sequence; they are read once and not kept.

    Args:
        separator: what stood after each text where they were cut apart, which a sequence's end
            tells: a line break for lines, nothing for whole documents.

    Raises:
        DataError: there is no text.
    """
    nats = spelling = 0.0
    predictions = size = unknown = 0
    for batch in _batches(iter(texts)):
        sequences = [vocabulary.encode(text) for text in batch]
        nats -= sum(float(logs.sum()) for logs in model.log_probabilities(sequences))
        predictions += sum(len(one) + 1 for one in sequences)
        size += sum(_bytes(text + separator) for text in batch)
        for text, ids in zip(batch, sequences, strict=True):
            if vocabulary.unknown is not None and (ids == vocabulary.unknown).any():
                pieces = vocabulary.unknowns(text)
                unknown += len(pieces)
                spelling += sum(_bytes(piece) + 1 for piece in pieces) * math.log(257)
    if not size:
        raise DataError("there is no text to score", fix="give a file with text in it")
    return Score(nats, predictions, size, unknown, spelling, vocabulary.lossless)


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def _batches(texts: Iterator[str]) -> Iterator[list[str]]:
    while batch := list(islice(texts, AT_ONCE)):
        yield batch
