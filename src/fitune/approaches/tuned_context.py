"""What the rows of a model that is fine-tuned are shown besides their own text.

Knows options of fine-tuning and a grounding; knows nothing of training. Rows are shown passages in
the same way when they are learned and when they are answered (Lin et al., RA-DIT, arXiv:2310.01352,
section 2.3): a model that learned without passages was never taught to read them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fitune import config
from fitune.approaches.base import Prediction, Progress, Work
from fitune.approaches.context import Room, token_starts
from fitune.approaches.grounding import CONTEXT_SHARE, Grounding
from fitune.approaches.lookup import PASSAGES, Lookup
from fitune.data.rows import Row, Rows
from fitune.data.template import ChatTemplate
from fitune.errors import ConfigError


class TunedContext:
    """Passages for rows, or nothing where the options ask for none."""

    def __init__(self, options: config.Finetuned, work: Work, *, new: bool) -> None:
        """Reads the documents if it is `new`.

        Raises:
            ConfigError: options without `context`, or a kind of task without questions.
            as `Grounding`.
        """
        self._options, self._work = options, work
        self._grounding: Grounding | None = None
        if options.context is None:
            for name in ("passages", "context_tokens"):
                if (value := getattr(options, name)) is not None:
                    raise ConfigError(
                        f"{name} is {value:,}, but finetuned has no context",
                        fix=f"set context: hybrid, or remove {name}",
                    )
        elif work.task.kind == "language-model":
            raise ConfigError(
                f"context is '{options.context}', and documents of kind language-model ask nothing "
                "that could be looked up",
                fix="remove context",
            )
        elif new:
            how = Lookup(options.context, passages=options.passages or PASSAGES)
            self._grounding = Grounding(how, work, use="finetuned")

    def resolved(self, options: config.Finetuned) -> config.Finetuned:
        """`options`, whose `max_length` is known, with the numbers of passages and tokens."""
        if options.context is not None:
            assert options.max_length
            self._options = options = options.model_copy(
                update={
                    "passages": options.passages or PASSAGES,
                    "context_tokens": options.context_tokens
                    or max(1, int(CONTEXT_SHARE * options.max_length)),
                }
            )
        return options

    def learned(self, rows: Rows, tuner: Any, what: str) -> Rows:
        """`rows` as they are learned from; their answers must fit beside the passages."""
        if self._grounding is None:
            return rows
        room = self._room(tuner, learned=True)
        self._grounding.build(lambda text: token_starts(tuner.tokenizer, text))
        return self._grounding.ground(rows, room, what).rows

    def predict(self, rows: Rows, tuner: Any, progress: Progress) -> list[Prediction]:
        """The tuner's answers to `rows`, with what was shown for each."""
        if self._grounding is None:
            predictions: list[Prediction] = tuner.predict(rows, progress)
            return predictions
        grounded = self._grounding.ground(rows, self._room(tuner, learned=False), "answered")
        return grounded.told(tuner.predict(grounded.rows, progress))

    def _room(self, tuner: Any, *, learned: bool) -> Room:
        """What the model can be shown; for rows that are answered it must not depend on their
        references."""
        template, options = tuner.template, self._options
        assert options.max_length and options.context_tokens
        writes = isinstance(template, ChatTemplate)
        labels = self._work.labels
        answers = [len(template.answer(label)) for label in labels] if writes else [0]

        def length(row: Row) -> int:
            if not writes:
                return len(template.encode(row))
            asked = len(template.prompt(row)) + max(answers, default=tuner.max_new_tokens)
            return max(asked, len(template.encode(row))) if learned else asked

        return Room(tuner.tokenizer, length, options.context_tokens, options.max_length)

    @property
    def parameters(self) -> int:
        """Learned numbers that a search needs."""
        return self._grounding.parameters if self._grounding else 0

    def save(self, folder: Path) -> None:
        if self._grounding:
            self._grounding.save(folder)

    def load(self, folder: Path) -> None:
        if self._options.context is not None:
            self._grounding = Grounding.load(folder, self._work)
