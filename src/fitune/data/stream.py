"""Documents → rows of one length, end to end, with the reason for each token.

Beside `template`, the owner of what a language model sees of plain text. Knows tokenizers and their
beginning-, end- and separating tokens; knows nothing of batches, models or losses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any, Protocol

from fitune.data.rows import Rows
from fitune.data.template import Encoded, Reason, adds_bos
from fitune.errors import ConfigError, DataError, ModelError

_Pairs = list[tuple[int, Reason]]


class Stream(Protocol):
    """Cuts documents into rows."""

    def rows(self, documents: Rows, max_length: int) -> list[Encoded]:
        """Rows of `max_length` tokens, the last one shorter where tokens are left over."""

    def pieces(self, text: str, max_length: int) -> list[Encoded]:
        """One document alone, in as many rows as it takes."""


class CausalStream:
    """For decoders: every token is learned from those before it in its row.

    A row begins with the token that the row before it ended with, so that each token of each
    document, and each end of a document, is learned exactly once. The first row begins with the
    token that the tokenizer puts before text, or else with the end of text, after which documents
    begin everywhere else.

    Text that spells a special token is tokenized as text.

    Raises:
        ConfigError: the tokenizer has no end-of-text token.
    """

    def __init__(self, tokenizer: Any) -> None:
        if tokenizer.eos_token_id is None:
            raise ConfigError(
                "the tokenizer has no end-of-text token to stand between documents",
                fix="set eos_token in its tokenizer_config.json",
            )
        self._tokenizer = tokenizer
        self._end = (tokenizer.eos_token_id, Reason.DOCUMENT_END)
        opens = tokenizer.bos_token_id if adds_bos(tokenizer) else None
        self._opening = [] if opens is None else [(opens, Reason.BOS)]
        self._start = self._opening or [(tokenizer.eos_token_id, Reason.BOS)]

    def rows(self, documents: Rows, max_length: int) -> list[Encoded]:
        _refuse_short(max_length, 2)
        bodies = (self._body(row.text) for row in documents)
        later = chain.from_iterable(
            [*(self._opening if i else ()), *body, self._end] for i, body in enumerate(bodies)
        )
        return self._cut([*self._start, *later], max_length)

    def pieces(self, text: str, max_length: int) -> list[Encoded]:
        """Without the end, which is no part of the text's bytes."""
        _refuse_short(max_length, 2)
        return self._cut([*self._start, *self._body(text)], max_length)

    def _body(self, text: str) -> _Pairs:
        return [(token, Reason.DOCUMENT) for token in _tokens(self._tokenizer, text)]

    def _cut(self, pairs: _Pairs, length: int) -> list[Encoded]:
        starts = range(0, len(pairs) - 1, length - 1)
        return [_encoded(pairs[start : start + length]) for start in starts]


class MaskedStream:
    """For encoders: tokens between the tokenizer's own special tokens, documents end to end with a
    separating token between them (as RoBERTa's FULL-SENTENCES; Liu et al., arXiv:1907.11692,
    section 4.2).

    Which tokens are hidden is the objective's matter. Text that spells a special token is tokenized
    as text.

    Raises:
        ModelError: the tokenizer has no mask token.
    """

    def __init__(self, tokenizer: Any) -> None:
        if tokenizer.mask_token_id is None:
            raise ModelError(
                "the tokenizer has no mask token, so no token can be hidden",
                fix="use an encoder that was trained on hidden tokens, e.g. minilm-l6",
            )
        self._tokenizer = tokenizer
        probe = tokenizer("a", return_special_tokens_mask=True)
        first = probe.special_tokens_mask.index(0)
        last = len(probe.input_ids) - probe.special_tokens_mask[::-1].index(0)
        self._before = [(token, Reason.ROLE) for token in probe.input_ids[:first]]
        self._after = [(token, Reason.ROLE) for token in probe.input_ids[last:]]
        separator = tokenizer.sep_token_id
        self._between = [] if separator is None else [(separator, Reason.ROLE)]

    def rows(self, documents: Rows, max_length: int) -> list[Encoded]:
        bodies = (self._body(row.text) for row in documents)
        joined = chain.from_iterable(
            [*(self._between if i else ()), *body] for i, body in enumerate(bodies)
        )
        return self._cut(list(joined), max_length)

    def pieces(self, text: str, max_length: int) -> list[Encoded]:
        return self._cut(self._body(text), max_length)

    def _body(self, text: str) -> _Pairs:
        return [(token, Reason.TEXT) for token in _tokens(self._tokenizer, text)]

    def _cut(self, pairs: _Pairs, length: int) -> list[Encoded]:
        around = len(self._before) + len(self._after)
        _refuse_short(length, around + 1)
        room = length - around
        parts = (pairs[start : start + room] for start in range(0, len(pairs), room))
        return [
            _encoded([*self._before, *part, *self._after])
            for part in parts
            if any(reason is Reason.TEXT for _, reason in part)
        ]


STREAMS: dict[str, Callable[[Any], Stream]] = {"pretrain": CausalStream, "masked": MaskedStream}
"""Objective → how it sees documents."""


def refuse_small(items: Sequence[Encoded], documents: Rows, max_length: int) -> None:
    """Less than one row is no corpus.

    Raises:
        DataError: the documents together are shorter than a row.
    """
    if items and len(items[0]) >= max_length:
        return
    tokens = sum(map(len, items))
    raise DataError(
        f"the {len(documents):,} training documents have {tokens:,} tokens together, fewer than "
        f"one row of max_length {max_length:,}",
        fix="give more text, or lower max_length",
    )


def _refuse_short(max_length: int, least: int) -> None:
    if max_length < least:
        raise ConfigError(
            f"max_length is {max_length}, and a row of text takes {least} tokens at least",
            fix=f"raise max_length to {least} or more",
        )


def _tokens(tokenizer: Any, text: str) -> Iterator[int]:
    encoding = tokenizer(text, add_special_tokens=False, split_special_tokens=True, verbose=False)
    return iter(encoding.input_ids)


def _encoded(pairs: _Pairs) -> Encoded:
    return Encoded(tuple(token for token, _ in pairs), tuple(reason for _, reason in pairs))
