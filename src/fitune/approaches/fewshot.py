"""A decoder that is shown k training rows with their answers before each question.

Knows how examples are found and made to fit; how they are asked is `prompt`'s matter, which are
worth showing that of `example_selection`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fitune import config
from fitune.approaches.base import Cost, Prediction, Progress, Shown, Work
from fitune.approaches.calibration import Way
from fitune.approaches.example_selection import (
    arranged,
    balanced,
    diverse,
    fitting,
    worth_showing,
)
from fitune.approaches.prompt import Prompt, row_from_json, row_to_json
from fitune.data.rows import Row, Rows
from fitune.errors import DataError
from fitune.models.source import resolve_source
from fitune.names import lookup
from fitune.retrieval import RETRIEVERS, Retriever, make_retriever
from fitune.runs import read_jsonl, write_jsonl

EXAMPLES_SHARE = 0.6
"""Of the context: the most that examples may take that every question is shown, so that the
question always has room."""

SPARE = 2
"""Rows that are looked up for each that is shown, in place of those that are too long."""

RETRIEVER, ENCODER = "hybrid", "minilm-l6"

Near = list[tuple[Row, float]]
"""Rows found for a question and their scores, the most similar first."""


class FewShot(Prompt):
    """Examples that are the same for every question, or those most similar to it."""

    use = "few-shot"
    _options: config.FewShot

    def __init__(self, options: config.FewShot, work: Work) -> None:
        self.nearest = options.select == "nearest"
        self.order = options.order or ("similar-last" if self.nearest else "random")
        self.candidates = options.candidates or ("shown" if self.nearest else "all")
        super().__init__(options, work)
        self._ranked: list[Row] = []
        self.pool = Rows(())  # what nearest can show
        self._retriever: Retriever | None = None

    def predict(self, rows: Rows, progress: Progress) -> list[Prediction]:
        if not self.nearest:
            return super().predict(rows, progress)
        found = self._find(rows)
        fewer = sum(len(near) < self._options.examples for near in found)
        if fewer:
            self.work.notice(
                f"few-shot shows fewer than {self._options.examples} examples to {fewer:,} of "
                f"{len(rows):,} questions: more do not fit into {self.max_length:,} tokens, or "
                "nothing more is similar."
            )
        answers = self._ready().answer(rows, progress, **self._own(rows, found))
        return [
            replace(answer, passages=tuple(_shown(row, score) for row, score in near))
            for answer, near in zip(answers, found, strict=True)
        ]

    def _lists_labels(self) -> bool:
        if self._options.show_labels is None:
            return self.candidates == "all"
        return self._options.show_labels

    # Examples that every question is shown

    def _learn_examples(self, train: Rows) -> None:
        rows = worth_showing(train)
        if not len(rows):
            raise DataError(
                f"of {len(train):,} training rows none has a text and an answer to show",
                fix="remove few-shot from approaches",
            )
        if self.nearest:
            self.pool = rows
            self.work.progress("indexing rows", 0, 1)
            self._retriever = self._empty_retriever()
            self._retriever.build(rows.whole_texts)
            self.work.progress("indexing rows", 1, 1)
        elif self._options.select == "diverse":
            vectors, _ = self._encoder().passages(
                rows.whole_texts, lambda done, of: self.work.progress("reading rows", done, of)
            )
            seed = self.work.task.seed
            self._ranked = diverse(rows, vectors, self._options.examples, seed=seed)
        else:
            by_label = bool(self.work.labels)
            self._ranked = balanced(rows, seed=self.work.task.seed, balance=by_label)

    def _show_examples(self) -> None:
        if self.nearest:
            return
        wanted = self._options.examples
        budget = int(self.max_length * EXAMPLES_SHARE)
        asking = self._asking()
        empty = Row("")
        chosen = fitting(
            self._ranked, wanted, lambda rows: len(asking.prompt(empty, rows)) <= budget
        )
        if not chosen:
            raise DataError(
                f"not one example fits into {budget:,} tokens ({EXAMPLES_SHARE:.0%} of max_length "
                f"{self.max_length:,})",
                fix="raise max_length, or remove few-shot from approaches",
            )
        if len(chosen) < wanted:
            self.work.notice(
                f"few-shot shows {len(chosen)} of {wanted} examples: more do not fit into "
                f"{budget:,} of {self.max_length:,} tokens, or there are no more rows."
            )
        if self.order == "label" or self._options.select == "diverse":
            chosen = arranged(chosen, self.order, seed=self.work.task.seed)
        self.examples = tuple(chosen)  # balanced ones are in random order already

    # Examples of a question's own

    def _find(self, rows: Rows, *, learning: bool = False) -> list[Near]:
        assert self._retriever is not None
        wanted = self._options.examples
        # One more: a training row finds itself first.
        found = self._retriever.search(rows.whole_texts, SPARE * wanted + learning)
        asking = self._asking()
        room = asking.room
        near: list[Near] = []
        for row, hits in zip(rows, found, strict=True):
            scores = {self.pool[hit.passage].content_hash: hit.score for hit in hits}
            ranked = [self.pool[hit.passage] for hit in hits]
            if learning:
                ranked = [other for other in ranked if other.key != row.key]
            fit = fitting(
                ranked,
                wanted,
                lambda examples, row=row: len(asking.prompt(row, examples)) <= room,  # type: ignore[misc]
            )
            near.append([(other, scores[other.content_hash]) for other in fit])
            if len(near) % 100 == 0:
                self.work.progress("finding examples", len(near), len(rows))
        return near

    def _beside(self, rows: Rows, *, learning: bool = False) -> dict[str, Any]:
        return self._own(rows, self._find(rows, learning=learning)) if self.nearest else {}

    def _own(self, rows: Rows, found: Sequence[Near]) -> dict[str, Any]:
        seed = self.work.task.seed
        examples = [
            arranged([other for other, _ in near], self.order, seed=seed, key=row.key)
            for row, near in zip(rows, found, strict=True)
        ]
        if not self.work.labels or self.candidates == "all":
            return {"examples": examples}
        numbers = {label: number for number, label in enumerate(self.work.labels)}
        everything = list(numbers.values())
        candidates = [
            sorted({numbers[row.answer or ""] for row in shown}) or everything for shown in examples
        ]
        return {"examples": examples, "candidates": candidates}

    def _can(self, way: Way) -> bool:
        if self.candidates == "shown":  # few labels compete, with examples of each: no choice
            return way == Way(self._options.normalize or "sum", "none")
        # Nothing is similar to a question without content.
        return not (self.nearest and way.needs_content_free)

    def _empty_retriever(self) -> Retriever:
        name = self._options.retriever or RETRIEVER
        if name == "bm25":
            return make_retriever(name)
        return make_retriever(name, model=self._encoder())

    def _encoder(self) -> Any:
        from fitune.retrieval.encoder import Encoder

        task = self.work.task
        source = resolve_source(
            self._options.encoder or ENCODER,
            download=task.download,
            trust_remote_code=task.trust_remote_code,
        )
        return Encoder(source, device=self.work.device)

    # What it is, for others

    @property
    def cost(self) -> Cost:
        own = super().cost
        if self._retriever is None:
            return own
        parameters = own.parameters + self._retriever.parameters
        return replace(own, parameters=parameters, rows=len(self.pool))

    @property
    def options(self) -> dict[str, Any]:
        resolved: dict[str, Any] = {"order": self.order}
        if self.nearest:
            resolved["retriever"] = self._options.retriever or RETRIEVER
            if self.work.labels:
                resolved["candidates"] = self.candidates
        else:
            resolved["examples_shown"] = [row.source for row in self.examples]
        if self._options.select == "diverse" or resolved.get("retriever") in ("dense", "hybrid"):
            resolved["encoder"] = self._options.encoder or ENCODER
        return super().options | resolved

    def save(self, folder: Path) -> None:
        super().save(folder)
        if self._retriever is not None:
            self._retriever.save(folder / "retriever")
            write_jsonl(folder / "rows.jsonl", [row_to_json(row) for row in self.pool])

    @classmethod
    def load(cls, folder: Path, work: Work) -> FewShot:
        made = super().load(folder, work)
        assert isinstance(made, FewShot)
        if made.nearest:
            made.pool = Rows(tuple(map(row_from_json, read_jsonl(folder / "rows.jsonl"))))
            # The options have checked that it is one of fitune's own.
            kind = lookup(made._options.retriever or RETRIEVER, RETRIEVERS, "retriever")
            made._retriever = kind.load(folder / "retriever")
        return made

    @staticmethod
    def _read_options(saved: dict[str, Any]) -> config.FewShot:
        return config.FewShot.model_validate(saved)


def _shown(row: Row, score: float) -> Shown:
    said = [turn.text for turn in row.turns]
    return Shown(place=row.source, text="\n".join([*said, row.answer or ""]), score=score)
