"""How a decoder answers rows: by label likelihood (classify) or greedy generation (generate).

Knows templates and inference; knows nothing of how the decoder came to be (prompted or tuned).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import softmax

from fitune.approaches.base import Prediction, Progress, Work
from fitune.data.limits import encode_rows
from fitune.data.rows import Row, Rows
from fitune.data.template import ChatTemplate
from fitune.errors import ConfigError, ModelError
from fitune.inference.generate import generate
from fitune.inference.score import score_answers
from fitune.models.architecture import Architecture
from fitune.models.source import ModelSource

DEFAULT_ANSWER_TOKENS = 128
"""For generate, when no training answer tells how long answers are."""


@dataclass
class Answerer:
    """A decoder with a template, ready to answer.

    Attributes:
        model: a causal language model of transformers (or PEFT), in evaluation mode.
        examples: shown as turns before each row.
        max_length: tokens of prompt and answer together.
        max_new_tokens: for generate.
    """

    model: Any
    template: ChatTemplate
    labels: tuple[str, ...]
    max_length: int
    max_new_tokens: int
    too_long: str
    work: Work
    examples: tuple[Row, ...] = ()

    def answer(self, rows: Rows, progress: Progress) -> list[Prediction]:
        """One prediction a row, in order.

        Raises:
            DataError: a row is too long and the task refuses such rows.
            ConfigError: answers take all of `max_length`.
        """
        answers = [self.template.answer(label) for label in self.labels]
        room = max(map(len, answers)) if answers else self.max_new_tokens
        if room >= self.max_length:
            raise ConfigError(
                f"an answer may have {room:,} tokens, which leaves none of max_length "
                f"{self.max_length:,} for the question",
                fix="raise max_length, or set max_answer_tokens to less",
            )
        tokenizer = self.template.tokenizer
        encoded, _, notes = encode_rows(
            lambda row: self.template.prompt(row, self.examples),
            rows,
            tokenizer=tokenizer,
            max_length=self.max_length - room,
            too_long=self.too_long,
            what="answered",
            progress=None,
        )
        for note in notes:
            self.work.notice(note)
        prompts = [item.tokens for item in encoded]
        self.model.eval()
        if not prompts:
            return []
        if answers:
            scores = score_answers(
                self.model,
                prompts,
                answers,
                pad=tokenizer.pad_token_id,
                progress=lambda done, total: progress("answering", done, total),
            )
            return [self._choose(row) for row in softmax(scores, axis=1)]
        generated = generate(
            self.model,
            prompts,
            stop_tokens=self.template.stop_tokens,
            max_new_tokens=self.max_new_tokens,
            pad=tokenizer.pad_token_id,
            progress=lambda done, total: progress("answering", done, total),
        )
        return [
            Prediction(self.template.decode(item.tokens), stopped=item.stopped)
            for item in generated
        ]

    def _choose(self, probabilities: np.ndarray) -> Prediction:
        label = self.labels[int(probabilities.argmax())]
        return Prediction(label, tuple(float(p) for p in probabilities))


def require_decoder(source: ModelSource, architecture: Architecture, use: str) -> None:
    """Refuse models that cannot write.

    Raises:
        ModelError: the model is not a decoder.
    """
    if architecture.kind != "decoder":
        raise ModelError(
            f"approach '{use}' needs a decoder, and '{source.name}' is an {architecture.kind}",
            fix="use a causal language model, e.g. smollm2-135m",
        )


def label_instruction(instruction: str | None, labels: Sequence[str]) -> str | None:
    """The instruction of an untuned model: it must be told which labels there are."""
    if not labels:
        return instruction
    first = instruction or "Classify the text."
    return f"{first}\nAnswer with exactly one of these labels: {', '.join(labels)}."


def answer_tokens(work: Work, template: ChatTemplate, train: Rows) -> int:
    """How many tokens an answer may have: the task's word, else from the training answers.

    The longest answers decide, with a quarter more, so that a good answer is not cut off.
    """
    if work.task.max_answer_tokens:
        return work.task.max_answer_tokens
    if not len(train):
        return DEFAULT_ANSWER_TOKENS
    sample = train[:2000]
    lengths = [
        len(template.tokenizer(a, add_special_tokens=False).input_ids) for a in sample.answers
    ]
    return max(16, min(1024, math.ceil(1.25 * float(np.quantile(lengths, 0.99)))))


def context_length(
    asked: int | None, architecture: Architecture, default: int, source: ModelSource
) -> int:
    """Tokens of prompt and answer together.

    Raises:
        ConfigError: more than the model's context is asked for.
    """
    if asked and asked > architecture.max_length:
        raise ConfigError(
            f"max_length {asked:,} is more than the {architecture.max_length:,} tokens that "
            f"'{source.name}' was made for",
            fix=f"set max_length to at most {architecture.max_length}",
        )
    return asked or min(default, architecture.max_length)
