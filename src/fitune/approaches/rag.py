"""A decoder that is shown passages of the user's documents with each question.

Knows what such a decoder is told, and reads its citations; finding passages is `grounding`'s
matter, asking is `prompt`'s.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from fitune import config
from fitune.approaches.base import Cost, Prediction, Progress, Work
from fitune.approaches.citations import ASKED, read_citations
from fitune.approaches.context import Room, token_starts
from fitune.approaches.decoder import answer_tokens
from fitune.approaches.grounding import CONTEXT_SHARE, Grounding
from fitune.approaches.lookup import PASSAGES, Lookup
from fitune.approaches.prompt import Prompt
from fitune.approaches.prompt_search import ENOUGH, MOST, MOST_WRITTEN, sample
from fitune.data.rows import Rows
from fitune.errors import ConfigError
from fitune.runs import read_json, write_json

INSTRUCTION = {
    "classify": "Use the passages.",
    "generate": "Answer the question from the passages, in as few words as possible.",
}
"""Where the task has none, by its kind."""

TRIED = (1, 3)
"""Numbers of passages that are tried: a small model is led astray by passages that do not answer
(Shi et al., arXiv:2302.00093), and a larger one finds more answers in three."""


class Reader(Prompt):
    """A prompt whose rows are shown passages before they are asked, those that instructions and
    calibrations are tried on as well.

    Attributes:
        show: gives rows their passages.
    """

    show: Callable[[Rows], Rows]

    def room(self, context: int) -> Room:
        """What passages of so many tokens must fit into."""
        asking = self._asking()
        return Room(
            self.template.tokenizer,
            lambda row: len(asking.prompt(row, self.examples)),
            context,
            asking.room,
        )

    def _ask(self, rows: Rows) -> Any:
        return super()._ask(self.show(rows))

    def _answers(self, rows: Rows) -> list[Prediction]:
        return super()._answers(self.show(rows))

    def answers(self, rows: Rows) -> list[Prediction]:
        """To rows held out, for choosing."""
        return self._answers(rows)


class Rag:
    """Retrieval-augmented generation (Lewis et al., arXiv:2005.11401) with a model that was not
    trained for it: passages stand in the prompt (Ram et al., arXiv:2302.00083)."""

    use = "rag"

    def __init__(self, options: config.Rag, work: Work, *, saved: Path | None = None) -> None:
        """`saved` is what `save` wrote; the documents are then not read again."""
        _refuse_unfit(options, work)
        self._options = options
        self.work = work
        asked = _asked(options, work)
        if saved:
            reader = Reader.load(saved / "reader", asked)
            assert isinstance(reader, Reader)
            self.reader = reader
            self.grounding = Grounding.load(saved / "grounding", work)
        else:
            self.reader = Reader(_asking(options), asked)
            self.grounding = Grounding(_lookup(options), work, use=self.use)
        self.context_tokens = options.context_tokens or int(CONTEXT_SHARE * self.reader.max_length)

    def fit(self, train: Rows, validation: Rows) -> None:
        tokenizer = self.reader.template.tokenizer
        self.grounding.build(lambda text: token_starts(tokenizer, text))
        self.reader.show = lambda rows: self.grounding.ground(rows, self._room(), "tried").rows
        if self._options.passages is None and len(validation) >= ENOUGH:
            self._choose_passages(train, validation)
        self.reader.fit(train, validation)

    def _choose_passages(self, train: Rows, validation: Rows) -> None:
        """As many as serve best with the first instruction, the fewest of equals."""
        reader, work = self.reader, self.reader.work
        reader.max_new_tokens = answer_tokens(work, reader.template, train)
        room = self._room()
        most = MOST if work.labels else MOST_WRITTEN
        some = sample(validation, most, lambda row: room.length(row) <= room.limit)
        if not len(some):
            return
        scores = {}
        for passages in TRIED:
            self.grounding.show(passages)
            scores[passages] = work.score(reader.answers(some), some)
        chosen = max(scores, key=scores.__getitem__)
        self.grounding.show(chosen)
        said = ", ".join(f"{score:.3f} with {passages}" for passages, score in scores.items())
        work.notice(f"passages: {chosen} is kept ({said}, on validation rows).")

    def predict(self, rows: Rows, progress: Progress) -> list[Prediction]:
        if not len(rows):
            return []
        grounded = self.grounding.ground(rows, self._room(), "answered")
        answers = grounded.told(self.reader.predict(grounded.rows, progress))
        return [_cited(answer) for answer in answers] if self._options.cite else answers

    def _room(self) -> Room:
        return self.reader.room(self.context_tokens)

    @property
    def cost(self) -> Cost:
        read = self.reader.cost
        return replace(read, parameters=read.parameters + self.grounding.parameters)

    @property
    def options(self) -> dict[str, Any]:
        resolved = {"context_tokens": self.context_tokens, "passages": self.grounding.how.passages}
        return self._options.model_dump() | self.reader.options | resolved

    def save(self, folder: Path) -> None:
        write_json(folder / "rag.json", self._options.model_dump())
        (folder / "reader").mkdir(exist_ok=True)
        self.reader.save(folder / "reader")
        self.grounding.save(folder / "grounding")

    @classmethod
    def load(cls, folder: Path, work: Work) -> Rag:
        return cls(config.Rag.model_validate(read_json(folder / "rag.json")), work, saved=folder)


def _refuse_unfit(options: config.Rag, work: Work) -> None:
    if work.labels and (options.cite or options.not_found is not None):
        name = "cite" if options.cite else "not_found"
        raise ConfigError(
            f"{name} is about answers that are written, and the task's kind is classify",
            fix=f"remove {name}, or set kind: generate",
        )


def _asking(options: config.Rag) -> config.Prompt:
    """How the reader asks: as the options say, of passages."""
    shared = options.model_dump(include={*config.Prompt.model_fields} - {"use"})
    instructions = tuple(_told(text, options) for text in options.instructions)
    return config.Prompt.model_validate(shared | {"instructions": instructions})


def _asked(options: config.Rag, work: Work) -> Work:
    """The reader's work: its instruction tells of passages, and its answers may cite them."""
    instruction = _told(work.task.instruction or INSTRUCTION[work.task.kind], options)
    task = work.task.model_copy(update={"instruction": instruction})

    def score(predictions: list[Prediction], rows: Rows) -> float:
        most = options.passages or max(TRIED)
        texts = [read_citations(answer.text, most)[0] for answer in predictions]
        bare = [replace(a, text=text) for a, text in zip(predictions, texts, strict=True)]
        return work.score(bare, rows)

    return replace(work, task=task, score=score if options.cite else work.score)


def _told(instruction: str, options: config.Rag) -> str:
    told = [instruction]
    if options.not_found is not None:
        told.append(f"If the passages do not answer it, answer: {options.not_found}")
    if options.cite:
        told.append(ASKED)
    return " ".join(told)


def _lookup(options: config.Rag) -> Lookup:
    return Lookup(
        options.retriever,
        options.encoder,
        options.retriever_options,
        options.passage_tokens,
        options.rerank,
        options.passages or PASSAGES,
    )


def _cited(answer: Prediction) -> Prediction:
    shown = answer.passages or ()
    text, numbers = read_citations(answer.text, len(shown))
    passages = (replace(passage, cited=i in numbers) for i, passage in enumerate(shown, start=1))
    return replace(answer, text=text, passages=tuple(passages))
