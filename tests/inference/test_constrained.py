"""Answers under a JSON Schema: whatever a random model would say, they parse and are valid."""

from __future__ import annotations

import builtins
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fitune.errors import ConfigError, MissingExtraError, ModelError

pytest.importorskip("llguidance")

from fitune.inference.constrained import JsonConstraint, grammar
from fitune.inference.generate import generate

WORD = {"type": "string", "maxLength": 4}
YES = {"enum": ["yes", "no"]}


def is_word(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= 4


# name → (schema, what a valid value is, in plain words)
SCHEMAS: dict[str, tuple[dict[str, Any], Callable[[Any], bool]]] = {
    "choice": (
        {"enum": ["lost", "found", 3, None]},
        lambda v: v in ("lost", "found", 3, None),
    ),
    "number": (
        {"type": "integer", "minimum": -20, "maximum": 300},
        lambda v: isinstance(v, int) and -20 <= v <= 300,
    ),
    "text": (WORD, is_word),
    "object": (
        {
            "type": "object",
            "properties": {"card": WORD, "sure": {"type": "boolean"}, "said": YES},
            "required": ["card", "sure", "said"],
            "additionalProperties": False,
        },
        lambda v: (
            sorted(v) == ["card", "said", "sure"]
            and is_word(v["card"])
            and isinstance(v["sure"], bool)
            and v["said"] in ("yes", "no")
        ),
    ),
    "list": (
        {"type": "array", "items": {"enum": ["a", "bc"]}, "minItems": 2, "maxItems": 3},
        lambda v: isinstance(v, list) and len(v) in (2, 3) and {*v} <= {"a", "bc"},
    ),
    "either": (
        {
            "anyOf": [
                {"type": "object", "properties": {"a": {"const": 1}}, "required": ["a"],
                 "additionalProperties": False},
                {"type": "array", "items": {"type": "null"}, "maxItems": 1},
            ]
        },
        lambda v: v in ({"a": 1}, [], [None]),
    ),
    "reference": (
        {
            "$defs": {"yes": YES},
            "type": "array",
            "prefixItems": [{"$ref": "#/$defs/yes"}, {"type": "boolean"}],
            "items": False,
            "minItems": 2,
        },
        lambda v: len(v) == 2 and v[0] in ("yes", "no") and isinstance(v[1], bool),
    ),
}  # fmt: skip
PROMPTS = [[5, 60, 70, 80], [9], [40, 41, 42, 43, 44, 45, 46], [100, 200]]


@pytest.fixture(scope="module")
def loaded(tiny_decoder: Path) -> tuple[Any, Any]:
    from transformers import AutoTokenizer, LlamaForCausalLM

    model = LlamaForCausalLM.from_pretrained(tiny_decoder).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)  # far from uniform: every prompt wants something else
    return model, AutoTokenizer.from_pretrained(tiny_decoder)


def written(loaded: Any, schema: dict[str, Any], prompts: list[list[int]]) -> list[Any]:
    model, tokenizer = loaded
    stops = [tokenizer.convert_tokens_to_ids("<|end|>"), tokenizer.eos_token_id]
    return generate(
        model,
        prompts,
        stop_tokens=stops,
        max_new_tokens=60,
        pad=tokenizer.pad_token_id,
        constrain=JsonConstraint(schema, tokenizer, stops),
    )


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_answer_parses_and_is_valid(name: str, loaded: Any) -> None:
    schema, valid = SCHEMAS[name]
    together = written(loaded, schema, PROMPTS)
    for prompt, answer in zip(PROMPTS, together, strict=True):
        assert answer.stopped
        assert valid(json.loads(loaded[1].decode(answer.tokens)))
        assert written(loaded, schema, [prompt]) == [answer], "whoever is asked beside it"


def test_without_it_the_model_says_something_else(loaded: Any) -> None:
    """Else the test above could not fail."""
    model, tokenizer = loaded
    for answer in generate(model, PROMPTS, stop_tokens=[2], max_new_tokens=60, pad=0):
        with pytest.raises(ValueError):
            json.loads(tokenizer.decode(answer.tokens))


def test_answers_differ(loaded: Any) -> None:
    assert len({item.tokens for item in written(loaded, SCHEMAS["object"][0], PROMPTS)}) > 1


def test_the_limit_still_holds(loaded: Any) -> None:
    (answer,) = written(loaded, {"type": "string", "minLength": 500}, [[7, 8]])
    assert (len(answer.tokens), answer.stopped) == (60, False)


@pytest.mark.parametrize(
    ("schema", "said"),
    [({"type": "txt"}, "txt"), ({"minimum": "one"}, "json_schema cannot be enforced")],
)
def test_a_schema_that_is_wrong(schema: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        grammar(schema)


def test_a_slow_tokenizer(loaded: Any) -> None:
    class Slow:
        is_fast = False

    with pytest.raises(ModelError, match="how its tokens are written"):
        JsonConstraint(WORD, Slow(), [2])


def test_without_llguidance(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *rest: Any) -> Any:
        if name == "llguidance":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(MissingExtraError, match=r"pip install 'fitune\[constrained\]'"):
        grammar(WORD)
