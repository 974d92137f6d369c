"""How a decoder answers rows: by label likelihood (classify) or greedy generation (generate).

Knows templates and inference; knows nothing of how the decoder came to be (prompted or tuned).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fitune.approaches.base import Prediction, Progress, Work
from fitune.approaches.calibration import Calibration, plain
from fitune.data.encoded import Encoded
from fitune.data.limits import encode_rows
from fitune.data.rows import Row, Rows
from fitune.data.template import ChatTemplate
from fitune.errors import ConfigError, ModelError
from fitune.inference.constrained import JsonConstraint
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
        words: what the model is asked for in place of each label, and shown in examples; empty for
            the labels themselves.
        calibration: from likelihoods to probabilities; None for likelihoods as they are.
        stop: for generate, an answer ends before the first of these strings.
        choices: for generate, the likeliest of these is the answer; empty for free text.
        json_schema: for generate, every answer keeps to it.
    """

    model: Any
    template: ChatTemplate
    labels: tuple[str, ...]
    max_length: int
    max_new_tokens: int
    too_long: str
    work: Work
    examples: tuple[Row, ...] = ()
    words: tuple[str, ...] = ()
    calibration: Calibration | None = None
    stop: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    json_schema: Mapping[str, Any] | None = None

    def answer(
        self,
        rows: Rows,
        progress: Progress,
        *,
        examples: Sequence[Sequence[Row]] | None = None,
        candidates: Sequence[Sequence[int]] | None = None,
    ) -> list[Prediction]:
        """One prediction a row, in order.

        Args:
            examples: for each row its own, in place of `self.examples`. They must fit: only a row
                without any is cut.
            candidates: for each row the labels, by number, that may be answered; None for all.

        Raises:
            DataError: a row is too long and the task refuses such rows.
            ConfigError: answers take all of `max_length`.
        """
        if not len(rows):
            return []
        if not self.labels and not self.choices:
            return self._write(self._prompts(rows, examples), progress)
        likelihoods = self.likelihoods(rows, progress, examples=examples, candidates=candidates)
        if self.labels:
            return self.choose(likelihoods)
        return [Prediction(self.choices[int(at)], stopped=True) for at in likelihoods.argmax(1)]

    def likelihoods(
        self,
        rows: Rows,
        progress: Progress,
        *,
        examples: Sequence[Sequence[Row]] | None = None,
        candidates: Sequence[Sequence[int]] | None = None,
    ) -> np.ndarray:
        """The log-likelihood of each label's words (or of each choice), ``[rows, labels]`` float64;
        minus infinity where it is no candidate. A row's only candidate is certain: it gets 0, and
        the model is not asked. Arguments and errors as of `answer`."""
        prompts = self._prompts(rows, examples)
        only = candidates or [range(len(self.answers))] * len(rows)
        found = np.full((len(rows), len(self.answers)), -np.inf)
        open_ = [row for row, which in enumerate(only) if len(which) > 1]
        for row, which in enumerate(only):
            found[row, which] = 0.0
        found[open_] = score_answers(
            self.model.eval(),
            [prompts[row] for row in open_],
            self.answers,
            pad=self.template.tokenizer.pad_token_id,
            only=[only[row] for row in open_] if candidates else None,
            progress=lambda done, total: progress("answering", done, total),
        )
        return found

    def choose(self, likelihoods: np.ndarray) -> list[Prediction]:
        """The most probable label of each row of `likelihoods`."""
        calibrated = self.calibration or plain(len(self.labels))
        return [
            Prediction(self.labels[int(row.argmax())], tuple(float(p) for p in row))
            for row in calibrated.probabilities(likelihoods)
        ]

    @property
    def room(self) -> int:
        """The most tokens that a prompt may have.

        Raises:
            ConfigError: answers take all of `max_length`.
        """
        answers = self._ended
        room = max(map(len, answers)) if answers else self.max_new_tokens
        if room >= self.max_length:
            raise ConfigError(
                f"an answer may have {room:,} tokens, which leaves none of max_length "
                f"{self.max_length:,} for the question",
                fix="raise max_length, or set max_answer_tokens to less",
            )
        return self.max_length - room

    def prompt(self, row: Row, examples: Sequence[Row]) -> Encoded:
        """The tokens after which the model answers `row`."""
        return self.template.prompt(row, self._spoken(examples))

    @functools.cached_property
    def answers(self) -> list[tuple[int, ...]]:
        """The tokens by which each label (or choice) is known: its words, and the end of the turn
        where another answer goes on from there ("top up", "top up failed").

        So the likelihoods of all are of events that exclude one another: what the model writes
        begins with these words. Reading every answer to its end would ask as well how readily the
        model stops, in one more token for each answer: a third more work for 77 labels.
        """
        said = [self.template.answer(text, ended=False) for text in self._texts]
        goes_on = {words[:end] for words in said for end in range(len(words))}
        return [
            whole if words in goes_on else words
            for words, whole in zip(said, self._ended, strict=True)
        ]

    @functools.cached_property
    def _ended(self) -> list[tuple[int, ...]]:
        return [self.template.answer(text) for text in self._texts]

    @property
    def _texts(self) -> tuple[str, ...]:
        return self.words or self.labels or self.choices

    def _spoken(self, examples: Sequence[Row]) -> list[Row]:
        """Examples with labels in the words that the model is asked for."""
        words = dict(zip(self.labels, self.words, strict=False))
        return [replace(row, answer=words.get(row.answer or "", row.answer)) for row in examples]

    def _prompts(
        self, rows: Rows, examples: Sequence[Sequence[Row]] | None
    ) -> list[tuple[int, ...]]:
        if examples is None:
            shown, own = self._spoken(self.examples), {}
        else:
            shown = []
            own = {row.key: self._spoken(its) for row, its in zip(rows, examples, strict=True)}
        encoded, _, notes = encode_rows(
            lambda row: self.template.prompt(row, own.get(row.key, shown)),
            rows,
            tokenizer=self.template.tokenizer,
            max_length=self.room,
            too_long=self.too_long,
            what="answered",
            progress=None,
        )
        for note in notes:
            self.work.notice(note)
        return [item.tokens for item in encoded]

    def _write(self, prompts: list[tuple[int, ...]], progress: Progress) -> list[Prediction]:
        generated = generate(
            self.model.eval(),
            prompts,
            stop_tokens=self.template.stop_tokens,
            max_new_tokens=self.max_new_tokens,
            pad=self.template.tokenizer.pad_token_id,
            progress=lambda done, total: progress("answering", done, total),
            ends=self._has_stop if self.stop else None,
            constrain=self._constraint,
        )
        answers = [Prediction(self._text(g.tokens), stopped=g.stopped) for g in generated]
        cut = sum(not answer.stopped for answer in answers)
        if cut and self.json_schema is not None:
            self.work.notice(
                f"{cut:,} of {len(answers):,} answers ran into the limit of "
                f"{self.max_new_tokens:,} tokens before their JSON was whole; raise "
                "max_answer_tokens, or bound what the schema allows (maxLength, maxItems, enum)."
            )
        return answers

    @functools.cached_property
    def _constraint(self) -> JsonConstraint | None:
        if self.json_schema is None:
            return None
        return JsonConstraint(self.json_schema, self.template.tokenizer, self.template.stop_tokens)

    def _text(self, tokens: Sequence[int]) -> str:
        text = self._unfinished(tokens) if self.stop else self.template.decode(tokens)
        for stop in self.stop:
            text = text.partition(stop)[0]
        return text.strip()

    def _has_stop(self, tokens: Sequence[int]) -> bool:
        text = self._unfinished(tokens)
        return any(stop in text for stop in self.stop)

    def _unfinished(self, tokens: Sequence[int]) -> str:
        """An answer's text with the white space at its end, which may be what ends it."""
        whole = self.template.tokenizer.decode(tokens, skip_special_tokens=True)
        return whole[len(whole.rstrip()) - len(self.template.decode(tokens)) :]


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
    """The instruction of an untuned model: it must be told which labels there are.

    Args:
        labels: as the model is to say them.
    """
    if not labels:
        return instruction
    first = instruction or "Classify the text."
    return f"{first}\nAnswer with exactly one of these labels: {', '.join(labels)}."


def answer_tokens(work: Work, template: ChatTemplate, train: Rows) -> int:
    """How many tokens an answer may have: the task's word, else from the training answers."""
    if work.task.max_answer_tokens:
        return work.task.max_answer_tokens
    if not len(train):
        return DEFAULT_ANSWER_TOKENS
    sample = train[:2000]
    answers = template.tokenizer(sample.answers, add_special_tokens=False, verbose=False)
    return room_for_answers(list(map(len, answers.input_ids)))


def room_for_answers(lengths: Sequence[int]) -> int:
    """How many tokens an answer may have where training answers have so many: the longest decide,
    with a quarter more, so that a good answer is not cut off."""
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
