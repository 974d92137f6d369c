"""Rows that are shown passages of the user's documents.

Knows what was found, what of it is shown, and how a grounding is saved; knows nothing of the model
that is shown it, but what room it has.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from fitune.approaches.base import Prediction, Shown, Work
from fitune.approaches.context import InContext, Room, in_context
from fitune.approaches.lookup import (
    Lookup,
    explained,
    indexed,
    model_source,
    places_of,
    read,
    refuse_unfit,
)
from fitune.data.rows import Rows
from fitune.retrieval import Retriever
from fitune.retrieval.chunking import Tokens
from fitune.retrieval.passages import Document, Passage
from fitune.retrieval.rerank import Reranker
from fitune.runs import explain_damage, read_json, read_jsonl, write_json, write_jsonl

CONTEXT_SHARE = 0.75
"""Of the most tokens of a row: what passages may take of it, where nothing is said. The question
and the instruction have theirs in any case: passages that leave them no room are not shown."""

RERANKED = 30
"""Passages that a cross-encoder looks at: it takes as long for each as an encoder for a query."""


@dataclass(frozen=True)
class Grounded:
    """Rows with passages in their texts, and which.

    Attributes:
        shown: of each row, in the order of their numbers.
    """

    rows: Rows
    shown: tuple[tuple[Shown, ...], ...]

    def told(self, predictions: Sequence[Prediction]) -> list[Prediction]:
        """The answers to these rows, with what was shown for each."""
        return [
            replace(answer, passages=shown)
            for answer, shown in zip(predictions, self.shown, strict=True)
        ]


class Grounding:
    """The passages of the task's documents, and the way they are found.

    Raises:
        ConfigError: the task names no documents, or an option that does not fit the retriever.
        DataError: documents that are missing or hold no text.
        ModelError: the encoder or the cross-encoder is not there.
    """

    def __init__(self, how: Lookup, work: Work, *, use: str) -> None:
        """Reads the documents; `use` is the approach, for messages."""
        refuse_unfit(how, work, use)
        self._documents: tuple[Document, ...] = read(places_of(work), work)
        self._set(how, work)

    def _set(self, how: Lookup, work: Work) -> None:
        self.how, self.work = how, work
        self.passages: tuple[Passage, ...] = ()
        self._retriever: Retriever | None = None
        self._reranker: Reranker | None = None

    def show(self, passages: int) -> None:
        """So many from now on."""
        self.how = replace(self.how, passages=passages)

    def build(self, tokens: Tokens) -> None:
        """Cut the documents and index the passages; nothing where that was done.

        Args:
            tokens: counts those of passages where no encoder reads them.
        """
        if self._retriever is not None:
            return
        self.work.progress("indexing documents", 0, 1)
        with explained(self.how):
            self.passages, self._retriever = indexed(self._documents, self.how, self.work, tokens)
        self._documents = ()
        self._load_reranker()
        self.work.progress("indexing documents", 1, 1)

    def _load_reranker(self) -> None:
        if self.how.rerank:
            source = model_source(self.how.rerank, self.work)
            self._reranker = Reranker(source, device=self.work.device)

    def ground(self, rows: Rows, room: Room, what: str) -> Grounded:
        """Each row with the best passages for what it asks.

        Args:
            what: the rows' name for messages, e.g. ``"training"``.
        """
        found = self._found(rows)
        each = []
        for number, (row, passages) in enumerate(zip(rows, found, strict=True)):
            if number % 50 == 0:
                self.work.progress(f"passages of {what} rows", number, len(rows))
            each.append(in_context(row, passages, room))
        self.work.progress(f"passages of {what} rows", len(rows), len(rows))
        for note in _notes(each, found, room, what):
            self.work.notice(note)
        return Grounded(Rows(tuple(item.row for item in each)), tuple(item.shown for item in each))

    def _found(self, rows: Rows) -> list[list[Shown]]:
        assert self._retriever is not None
        if not len(rows):
            return []
        queries = rows.whole_texts
        wanted = self.how.passages
        if self._reranker is None:
            hits = self._retriever.search(queries, wanted)
        else:
            texts = [passage.text for passage in self.passages]
            wide = self._retriever.search(queries, max(wanted, RERANKED))
            hits = [
                self._reranker.rerank(query, found, texts, wanted)
                for query, found in zip(queries, wide, strict=True)
            ]
        return [
            [
                Shown(passage.place, passage.text, hit.score)
                for hit in found
                for passage in [self.passages[hit.passage]]
            ]
            for found in hits
        ]

    @property
    def parameters(self) -> int:
        """Learned numbers that a search needs."""
        reranker = self._reranker.parameters if self._reranker else 0
        return reranker + (self._retriever.parameters if self._retriever else 0)

    def save(self, folder: Path) -> None:
        """Write what `load` needs, without pickle."""
        assert self._retriever is not None
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "grounding.json", asdict(self.how))
        write_jsonl(folder / "passages.jsonl", map(asdict, self.passages))
        self._retriever.save(folder / "retriever")

    @classmethod
    def load(cls, folder: Path, work: Work) -> Grounding:
        """Read what `save` wrote; the documents are not read again.

        Raises:
            RunError: a file is missing or damaged.
        """
        saved = read_json(folder / "grounding.json")
        made = cls.__new__(cls)
        with explain_damage(folder / "grounding.json"):
            how = Lookup(**saved)
        made._set(how, work)
        made._documents = ()
        made.passages = _read_passages(folder / "passages.jsonl")
        made._retriever = how.kind.load(folder / "retriever")  # type: ignore[attr-defined]
        made._load_reranker()
        return made


def _read_passages(path: Path) -> tuple[Passage, ...]:
    records = read_jsonl(path)
    with explain_damage(path):
        return tuple(Passage(**r | {"headings": tuple(r["headings"])}) for r in records)


def _notes(
    each: Sequence[InContext], found: Sequence[Sequence[Shown]], room: Room, what: str
) -> Iterator[str]:
    """What was shown otherwise than asked for, with counts."""
    rows = f"of {len(each):,} {what} rows"
    nothing = sum(not passages for passages in found)
    unfit = sum(not item.shown for item in each) - nothing
    begun = sum(item.cut for item in each)
    fewer = sum(item.crowded and not item.cut for item in each) - unfit
    limits = f"{room.context:,} tokens (context_tokens), or beside the rest into {room.limit:,}"
    if nothing:
        yield f"for {nothing:,} {rows} no passage was found."
    if unfit:
        yield f"{unfit:,} {rows} show no passage: not a word of one fits into {limits}."
    if begun:
        yield (
            f"{begun:,} {rows} show only the beginning of their best passage: whole, it does not "
            f"fit into {limits}."
        )
    if fewer:
        yield (
            f"{fewer:,} {rows} show fewer passages than were found: more do not fit into {limits}."
        )
