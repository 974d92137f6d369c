"""A decoder with an instruction and no examples: what the model can do untouched.

Knows how a decoder is loaded and asked; learns nothing but how long answers are, which of several
instructions serves best, and which labels it would say whatever is asked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fitune import config
from fitune.approaches.asking_options import refuse_unfit, schema_of, words_of
from fitune.approaches.base import Cost, Prediction, Progress, Work
from fitune.approaches.calibration import PLAIN, Calibration, Way, ways
from fitune.approaches.decoder import (
    Answerer,
    answer_tokens,
    context_length,
    label_instruction,
    require_decoder,
)
from fitune.approaches.prompt_search import (
    ENOUGH,
    MOST,
    MOST_WRITTEN,
    Tried,
    best,
    sample,
    try_ways,
)
from fitune.data.rows import Row, Rows, Turn
from fitune.data.template import ChatTemplate
from fitune.errors import DataError, Interrupted
from fitune.models.architecture import describe
from fitune.models.load import load_decoder, load_tokenizer
from fitune.models.source import resolve_source
from fitune.runs import read_json, write_json


class Prompt:
    """Label likelihood for classify, greedy decoding for generate; shows `examples` first."""

    use = "prompt"

    def __init__(self, options: config.Prompt | config.FewShot, work: Work) -> None:
        refuse_unfit(options, work)
        self.schema = schema_of(options.json_schema)
        self._options = options.model_copy(update={"json_schema": self.schema})
        self.work = work
        self.source = resolve_source(
            options.model,
            download=work.task.download,
            trust_remote_code=work.task.trust_remote_code,
        )
        self.architecture = describe(self.source)
        require_decoder(self.source, self.architecture, self.use)
        self.max_length = context_length(
            options.max_length, self.architecture, self.architecture.max_length, self.source
        )
        self.words = words_of(work.labels, options.label_words)
        self.instructions: list[str | None] = [*options.instructions]
        if work.task.instruction or not self.instructions:
            self.instructions.insert(0, work.task.instruction)
        self.max_new_tokens = 0
        self.examples: tuple[Row, ...] = ()
        self.calibration: Calibration | None = None
        self._tokenizer = load_tokenizer(self.source)
        self._model: Any = None
        self._kept: Answerer | None = None
        self._instruct(self.instructions[0])

    def fit(self, train: Rows, validation: Rows) -> None:
        """
        Raises:
            DataError: `calibrate: batch` without training rows but those shown as examples.
            Interrupted: asked to stop.
        """
        self.max_new_tokens = answer_tokens(self.work, self.template, train)
        self._learn_examples(train)
        tried = []
        for instruction in self.instructions:
            self._instruct(instruction)
            self._show_examples()
            tried.append(self._try(train, validation))
        chosen = best(tried)
        if chosen.instruction != self.instruction:
            self._instruct(chosen.instruction)
            self._show_examples()
        self.calibration = chosen.calibration
        self._kept = None
        self._tell(tried, chosen)

    def predict(self, rows: Rows, progress: Progress) -> list[Prediction]:
        return self._ready().answer(rows, progress, **self._beside(rows))

    # How a row is asked

    def _instruct(self, instruction: str | None) -> None:
        self.instruction = instruction
        words = self.words if self._lists_labels() else ()
        self.template = ChatTemplate(
            self._tokenizer,
            instruction=label_instruction(instruction, words),
            chat_template=self.work.task.chat_template,
        )

    def _ready(self) -> Answerer:
        """As it was chosen; kept, since a schema takes half a second to get ready."""
        if self._kept is None:
            self._kept = self._answerer()
        return self._kept

    def _answerer(self) -> Answerer:
        if self._model is None:
            self._model = self._load()
        return self._asking(self._model)

    def _asking(self, model: Any = None) -> Answerer:
        """Without a model, it tells what fits."""
        return Answerer(
            model=model,
            template=self.template,
            labels=self.work.labels,
            max_length=self.max_length,
            max_new_tokens=self.max_new_tokens,
            too_long=self.work.task.data.too_long,
            work=self.work,
            examples=self.examples,
            words=self.words,
            calibration=self.calibration,
            stop=self._options.stop,
            choices=self._options.choices,
            json_schema=self.schema,
        )

    def _load(self) -> Any:
        import torch

        dtype = torch.bfloat16 if self.work.dtype == "bf16" else torch.float32
        return load_decoder(self.source, dtype=dtype, device=self.work.device)

    def _lists_labels(self) -> bool:
        return self._options.show_labels is not False

    def _learn_examples(self, train: Rows) -> None:
        """Whatever is to be known of the training rows before examples are chosen: nothing."""

    def _show_examples(self) -> None:
        """Set `examples`, such that they fit beside the instruction: none."""

    def _beside(self, rows: Rows, *, learning: bool = False) -> dict[str, Any]:
        """What an answerer is given beside the rows: nothing of each row's own.

        Args:
            learning: whether they may be training rows, which are not to be shown their answers.
        """
        return {}

    # What is chosen on rows held out

    def _open_ways(self, validation: Rows) -> list[Way]:
        """Those that the options leave open, and that there are rows enough to choose among."""
        options = self._options
        open_ways = [way for way in ways(options.normalize, options.calibrate) if self._can(way)]
        return open_ways if len(validation) >= ENOUGH else open_ways[:1]

    def _can(self, way: Way) -> bool:
        return True

    def _try(self, train: Rows, validation: Rows) -> Tried:
        one = len(self.instructions) == 1
        if not self.work.labels:
            some = Rows(()) if one else sample(validation, MOST_WRITTEN, self._fitting())
            if not len(some):
                return Tried(self.instruction)
            return Tried(self.instruction, score=self.work.score(self._answers(some), some))
        fits = self._fitting()
        open_ways = self._open_ways(validation)
        shown = {row.content_hash for row in self.examples}
        averaged = any(way.needs_unlabelled for way in open_ways)
        others = (row for row in train if row.content_hash not in shown)
        unlabelled = sample(others, MOST if averaged else 0, fits)
        if averaged and not len(unlabelled):
            raise DataError(
                f"calibrate: batch averages over training rows, and of {len(train):,} none is left "
                "that fits and is no example",
                fix="give more training rows, or set calibrate: contextual or none",
            )
        some = sample(validation, 0 if one and len(open_ways) == 1 else MOST, fits)
        chosen, scores = try_ways(
            open_ways,
            self._ask,
            self._choose,
            self.work.score,
            lengths=list(map(len, self._asking().answers)),
            unlabelled=unlabelled,
            validation=some,
        )
        return Tried(self.instruction, chosen, scores.get(chosen.way), scores.get(PLAIN))

    def _fitting(self) -> Callable[[Row], bool]:
        """Whether a row fits into the context."""
        asking = self._asking()
        room = asking.room
        return lambda row: len(asking.prompt(row, self.examples)) <= room

    def _ask(self, rows: Rows) -> np.ndarray:
        beside = self._beside(rows, learning=True)
        return self._answerer().likelihoods(rows, self._choosing, **beside)

    def _choose(self, likelihoods: np.ndarray, calibration: Calibration) -> list[Prediction]:
        return replace(self._asking(), calibration=calibration).choose(likelihoods)

    def _answers(self, rows: Rows) -> list[Prediction]:
        beside = self._beside(rows, learning=True)
        return self._answerer().answer(rows, self._choosing, **beside)

    def _choosing(self, label: str, done: int, total: int) -> None:
        place = self.instructions.index(self.instruction) + 1
        which = f" {place} of {len(self.instructions)}" if len(self.instructions) > 1 else ""
        self.work.progress(f"trying prompt{which}", done, total)
        if self.work.stop_requested():
            raise Interrupted("")

    def _tell(self, tried: list[Tried], chosen: Tried) -> None:
        """What was chosen, and what it did beside what was not."""
        scores = [item.score for item in tried if item.score is not None]
        if len(tried) > 1:
            listed = ", ".join(f"{score:.3f}" for score in scores) or "no validation rows to try on"
            place = tried.index(chosen) + 1
            self.work.notice(f"instruction {place} of {len(tried)} is kept ({listed}).")
        way = chosen.calibration.way if chosen.calibration else None
        if way and way != PLAIN and chosen.score is not None and chosen.plain is not None:
            self.work.notice(
                f"likelihoods are read with normalize: {way.normalize} and calibrate: "
                f"{way.calibrate} (validation: {chosen.score:.3f}; as they are: "
                f"{chosen.plain:.3f})."
            )

    # What it is, for others

    @property
    def cost(self) -> Cost:
        return Cost(self.architecture.parameters, trainable_parameters=0, rows=len(self.examples))

    @property
    def options(self) -> dict[str, Any]:
        resolved: dict[str, Any] = {
            "max_length": self.max_length,
            "max_new_tokens": self.max_new_tokens,
            "dtype": self.work.dtype,
            "instruction": self.template.instruction,
        }
        if self.calibration is not None:
            way = self.calibration.way
            resolved |= {"normalize": way.normalize, "calibrate": way.calibrate}
            resolved["show_labels"] = self._lists_labels()
            resolved["label_words"] = dict(zip(self.work.labels, self.words, strict=True))
        return self._options.model_dump() | resolved

    def save(self, folder: Path) -> None:
        write_json(
            folder / "prompt.json",
            {
                "options": self._options.model_dump(),
                "instruction": self.instruction,
                "calibration": self.calibration.to_json() if self.calibration else None,
                "max_new_tokens": self.max_new_tokens,
                "examples": [row_to_json(row) for row in self.examples],
            },
        )

    @classmethod
    def load(cls, folder: Path, work: Work) -> Prompt:
        saved = read_json(folder / "prompt.json")
        made = cls(cls._read_options(saved["options"]), work)
        made._instruct(saved["instruction"])
        if saved["calibration"]:
            made.calibration = Calibration.from_json(saved["calibration"])
        made.max_new_tokens = saved["max_new_tokens"]
        made.examples = tuple(map(row_from_json, saved["examples"]))
        return made

    @staticmethod
    def _read_options(saved: dict[str, Any]) -> config.Prompt | config.FewShot:
        return config.Prompt.model_validate(saved)


def row_to_json(row: Row) -> dict[str, Any]:
    return {
        "history": [[turn.role, turn.text] for turn in row.history],
        "text": row.text,
        "answer": row.answer,
        "source": row.source,
    }


def row_from_json(record: dict[str, Any]) -> Row:
    return Row(
        text=record["text"],
        answer=record["answer"],
        history=tuple(Turn(role, text) for role, text in record["history"]),
        source=record["source"],
    )
