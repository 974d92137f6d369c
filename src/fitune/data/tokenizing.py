"""The tokens of many rows' texts, in few calls of the tokenizer.

A fast tokenizer works through a list on all cores, and its price a call is paid once. But which
texts a row needs next may depend on tokens it was given. So what makes a row is a generator: it
yields texts, is sent their tokens, and returns what it made of them (`Asking`). Many of them run
side by side here, and what they ask for at the same time is tokenized together.

Knows tokenizers; knows nothing of templates, roles or reasons.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, TypeVar

T = TypeVar("T")

TOGETHER = 128
"""Rows whose texts are tokenized in one call: enough for all cores, and few to hold."""


@dataclass(frozen=True)
class Tokens:
    """Of one text, without special tokens around it.

    Attributes:
        ids: token ids.
        encoding: what a fast tokenizer says besides; None of others.
    """

    ids: list[int]
    encoding: Any

    @property
    def offsets(self) -> list[tuple[int, int]] | None:
        """Where in the text each token begins and ends; None where the tokenizer is not fast."""
        return None if self.encoding is None else self.encoding.offsets


Asking = Generator[Sequence[str], Sequence[Tokens], T]
"""Yields texts, is sent the tokens of each, and returns a T."""


def ask(tokenizer: Any, asking: Asking[T]) -> T:
    """What one of them returns."""
    (found,) = ask_together(tokenizer, [asking])
    return found


def ask_together(tokenizer: Any, askings: Iterable[Asking[T]]) -> Iterator[T]:
    """What each of them returns, in order, `TOGETHER` at a time.

    Raises:
        Exception: as the first in order that fails, once those before it were given out.
    """
    rest = iter(askings)
    while some := list(islice(rest, TOGETHER)):
        for outcome in _outcomes(tokenizer, some):
            if isinstance(outcome, Exception):
                raise outcome
            yield outcome


def _outcomes(tokenizer: Any, askings: Sequence[Asking[T]]) -> list[T | Exception]:
    found: dict[int, T | Exception] = {}
    wanted: dict[int, Sequence[str]] = {}

    def go_on(index: int, tokens: Sequence[Tokens] | None) -> None:
        try:
            # None starts a generator, which mypy does not know.
            wanted[index] = askings[index].send(tokens)  # type: ignore[arg-type]
        except StopIteration as end:
            found[index] = end.value
        except Exception as error:
            found[index] = error

    for index in range(len(askings)):
        go_on(index, None)
    while wanted:
        asked, wanted = wanted, {}
        known = _tokenized(tokenizer, dict.fromkeys(chain.from_iterable(asked.values())))
        for index, texts in asked.items():
            go_on(index, [known[text] for text in texts])
    return [found[index] for index in range(len(askings))]


def _tokenized(tokenizer: Any, texts: Iterable[str]) -> dict[str, Tokens]:
    """Each text once: what a template writes is the same in many rows."""
    each = list(texts)
    if not each:
        return {}
    batch = tokenizer(
        each,
        add_special_tokens=False,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,  # texts longer than the model reads are counted and told elsewhere
    )
    encodings = batch.encodings or [None] * len(each)
    return {
        text: Tokens(ids, encoding)
        for text, ids, encoding in zip(each, batch.input_ids, encodings, strict=True)
    }
