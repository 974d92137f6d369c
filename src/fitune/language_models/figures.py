"""What is known of a language model once it has learned and was scored.

Knows figures; knows nothing of how they came about.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from fitune.language_models.perplexity import Score
from fitune.language_models.probes import Probed


@dataclass(frozen=True)
class Continuation:
    """A text's beginning, and how likely a model finds what may come next.

    Attributes:
        prefix: the beginning.
        actual: the token that follows in the text.
        likeliest: (token, probability), likeliest first; the end of a sequence is ``"(end)"``.
        probability: of the actual token; None where the model's own tokenizer has no such token.
    """

    prefix: str
    actual: str
    likeliest: tuple[tuple[str, float], ...]
    probability: float | None


@dataclass(frozen=True)
class CurvePoint:
    """How a model did that learned from a part of the corpus.

    Attributes:
        tokens: of the part, ends of sequences not counted.
        perplexity: of the test texts.
    """

    tokens: int
    perplexity: float


@dataclass(frozen=True)
class ModelFigures:
    """One model of a comparison.

    Attributes:
        name: of `LANGUAGE_MODELS`, or as the user wrote a model's.
        score: of the test texts.
        parameters: numbers that it learned.
        train_seconds: None for a model that was not trained now.
        learned_tokens: that it learned from, repeats counted.
        score_tokens_per_second: while the test texts were scored.
        own_tokens: whether its tokens are those of its own tokenizer, so that its perplexity is not
            comparable with the others'.
        ended: why training ended where it could have gone on: ``"validation"`` or ``"time"``.
        sample: text that it wrote.
        continuations: of beginnings of test texts.
        probed: what it made of the small language; None for a model that cannot be taught it.
        curve: by size of the training text, smallest first; empty where not asked for.
    """

    name: str
    score: Score
    parameters: int
    train_seconds: float | None
    learned_tokens: int
    score_tokens_per_second: float
    own_tokens: bool
    ended: str | None
    sample: str
    continuations: tuple[Continuation, ...]
    probed: Probed | None
    curve: tuple[CurvePoint, ...]

    @property
    def tokens_per_second(self) -> float | None:
        """Learned from, while training."""
        if not self.train_seconds:
            return None
        return self.learned_tokens / self.train_seconds

    def to_json(self) -> dict[str, Any]:
        """What is infinite is None, which JSON has a word for."""
        record = asdict(self)
        record["perplexity"] = finite(self.score.perplexity)
        record["bits_per_byte"] = finite(self.score.bits_per_byte)
        record["score"]["nats"] = finite(self.score.nats)
        record["tokens_per_second"] = self.tokens_per_second
        for point in record["curve"]:
            point["perplexity"] = finite(point["perplexity"])
        return record


def finite(value: float) -> float | None:
    """`value`, None where it is no finite number."""
    return value if math.isfinite(value) else None
