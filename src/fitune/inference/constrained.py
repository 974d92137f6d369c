"""Answers held to a JSON Schema: at each step, only tokens that can still lead to a valid one.

Knows schemas, tokenizers and logits; knows nothing of models, rows or templates. Which tokens those
are is llguidance's work (github.com/guidance-ai/llguidance), in a third of a millisecond for each
token of a row.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fitune.errors import ConfigError, MissingExtraError, ModelError

if TYPE_CHECKING:
    from llguidance import LLMatcher

_FORM = {"item_separator": ", ", "key_separator": ": ", "whitespace_flexible": False}
"""JSON as most of it is written. With free white space, a model that has nothing to say could write
spaces up to the limit."""


def grammar(schema: Mapping[str, Any]) -> str:
    """A JSON Schema as llguidance takes it.

    Raises:
        MissingExtraError: llguidance is not installed.
        ConfigError: the schema is wrong, or holds what llguidance cannot enforce.
    """
    matcher = _llguidance().LLMatcher
    made: str = matcher.grammar_from_json_schema(json.dumps(schema), overrides=_FORM)
    if complaint := matcher.validate_grammar(made):
        first = complaint.strip().splitlines()[0]
        raise ConfigError(
            f"json_schema cannot be enforced: {first}",
            fix="mend the schema, or leave out what is named",
        )
    return made


class JsonConstraint:
    """Makes what bends the logits of a group of prompts; one for a model, since it takes half a
    second.

    Args:
        schema: every answer is valid under it, unless it runs into the limit of its length.
        tokenizer: a fast tokenizer of transformers.
        stop_tokens: any of them ends an answer.

    Raises:
        MissingExtraError, ConfigError: as `grammar`.
        ModelError: the tokenizer is not a fast one.
    """

    def __init__(
        self, schema: Mapping[str, Any], tokenizer: Any, stop_tokens: Sequence[int]
    ) -> None:
        self._grammar = grammar(schema)
        self._stop_tokens = list(stop_tokens)
        if not tokenizer.is_fast:
            raise ModelError(
                "json_schema needs a tokenizer that says how its tokens are written",
                fix="save it with a tokenizer.json",
            )
        from llguidance.hf import from_tokenizer

        self._tokenizer = from_tokenizer(tokenizer, eos_token=self._stop_tokens)

    def __call__(self, start: int) -> _Held:
        """For one group, whose answers begin at token `start`."""
        return _Held(self._matcher, start, self._stop_tokens)

    def _matcher(self) -> LLMatcher:
        return _llguidance().LLMatcher(self._tokenizer, self._grammar)


class _Held:
    """A logits processor of transformers, with one matcher a row."""

    def __init__(self, make: Any, start: int, stop_tokens: list[int]) -> None:
        self._make, self._start, self._stop_tokens = make, start, stop_tokens
        self._matchers: list[LLMatcher] = []

    def __call__(self, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if not self._matchers:
            self._matchers = [self._make() for _ in range(len(ids))]
        allowed = np.zeros(tuple(scores.shape), dtype=bool)
        for row, matcher in enumerate(self._matchers):
            if ids.shape[1] > self._start and not matcher.is_stopped():
                matcher.consume_token(int(ids[row, -1]))
            if matcher.is_error():
                raise ConfigError(
                    f"json_schema cannot be enforced: {matcher.get_error().splitlines()[0]}",
                    fix="make the schema simpler",
                )
            if matcher.is_stopped():  # whole: nothing may follow but the end
                allowed[row, self._stop_tokens] = True
            else:
                bits = np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8)
                known = np.unpackbits(bits, bitorder="little")[: scores.shape[1]]
                allowed[row, : len(known)] = known
        return scores.masked_fill(~torch.from_numpy(allowed).to(scores.device), -torch.inf)


def _llguidance() -> Any:
    try:
        import llguidance
    except ImportError as error:
        raise MissingExtraError("llguidance", extra="constrained", purpose="json_schema") from error
    return llguidance
