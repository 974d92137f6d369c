"""A row as a model sees it: its tokens, and why each is there.

Knows reasons; knows nothing of tokenizers, templates or batches.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import cached_property


class Reason(str, Enum):
    """Why a token is there, and so why it is learned or masked."""

    BOS = "beginning of text"
    ROLE = "template"
    PROMPT = "prompt"
    TEXT = "text"
    ANSWER = "answer"
    END = "end of turn"
    DOCUMENT = "document"
    DOCUMENT_END = "end of document"

    @property
    def learned(self) -> bool:
        return self in _LEARNED


_LEARNED = frozenset({Reason.ANSWER, Reason.END, Reason.DOCUMENT, Reason.DOCUMENT_END})

Pairs = list[tuple[int, Reason]]
"""Token ids with their reasons."""


@dataclass(frozen=True)
class Encoded:
    """One row as a model sees it.

    Attributes:
        tokens: token ids.
        reasons: why each is there, as long as `tokens`.
        cut: how many tokens of the row's text were cut off to fit.
    """

    tokens: tuple[int, ...]
    reasons: tuple[Reason, ...]
    cut: int = 0

    @classmethod
    def of(cls, pairs: Pairs) -> Encoded:
        return cls(tuple(token for token, _ in pairs), tuple(reason for _, reason in pairs))

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def batch_tokens(self) -> int:
        """Tokens that it takes in a batch."""
        return len(self)

    @cached_property
    def learned(self) -> tuple[bool, ...]:
        """Whether each token is one that the model learns to write."""
        return tuple(reason in _LEARNED for reason in self.reasons)
