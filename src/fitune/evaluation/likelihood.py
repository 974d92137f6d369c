"""How likely a language model finds a document, as numbers and as the text of an answer.

Knows nats, tokens and bytes; knows nothing of models.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from fitune.errors import ConfigError


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
