"""An index of documents that stays: a folder of passages, their vectors and their words.

    FOLDER/
      index.json       encoder, chunking and counts
      passages.jsonl   a passage a line: where it stands, and its text
      vectors.npy      float32 [passages, dimension]
      probe.npy        the vector of `PROBE`, by which the encoder is known again
      words/           BM25's matrix

Knows documents, passages and files; knows nothing of how vectors are made or compared. Vectors are
kept by the passage's text: what an update leaves as it was is not embedded again, even where it
moved to another file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fitune.errors import ConfigError, RunError
from fitune.retrieval import Hit, Retriever
from fitune.retrieval.bm25 import Bm25
from fitune.retrieval.chunking import Chunking, cut
from fitune.retrieval.dense import Dense, read_array, read_vectors
from fitune.retrieval.encoder import Encoder, Vectors
from fitune.retrieval.hybrid import Hybrid
from fitune.retrieval.passages import Document, Passage
from fitune.runs import (
    explain_damage,
    read_json,
    read_jsonl,
    replaced_folder,
    write_json,
    write_jsonl,
)

PROBE = "Which passages answer this question?"
"""Another model, pooling or prompt gives it another vector."""

_SAME = 1e-3  # length of the difference; machines and batches differ by about 1e-6

_SPARE = 2  # a passage alone may have a token more at either end than within its document


@dataclass(frozen=True)
class Update:
    """What an update did, in passages.

    Attributes:
        embedded: texts that were embedded, being new.
        kept: passages whose vector was there.
        removed: passages that are there no longer.
    """

    embedded: int
    kept: int
    removed: int


@dataclass(frozen=True)
class Index:
    """An opened index.

    Attributes:
        passages: all of them; hits' numbers point into it.
        chunking: how they were cut.
        words, vectors: the two ways of searching them.
    """

    passages: tuple[Passage, ...]
    chunking: Chunking
    words: Bm25
    vectors: Dense

    def retriever(self, name: str = "hybrid", **options: Any) -> Retriever:
        """``bm25``, ``dense`` or ``hybrid`` over these passages; `options` as `Hybrid.of` takes.

        Raises:
            ConfigError: another name, or options that it does not have.
        """
        if name == "hybrid":
            return Hybrid.of(self.words, self.vectors, **options)
        if name not in ("bm25", "dense") or options:
            raise ConfigError(
                f"an index is searched by bm25, dense or hybrid, and not by '{name}'"
                + (f" with {', '.join(options)}" if options else ""),
                fix="use hybrid, which alone has options",
            )
        return self.words if name == "bm25" else self.vectors

    def found(self, hits: Sequence[Hit]) -> list[Passage]:
        """The passages behind hits."""
        return [self.passages[hit.passage] for hit in hits]


def update_index(
    folder: Path,
    documents: Sequence[Document],
    encoder: Encoder,
    chunking: Chunking | None = None,
    *,
    words: Bm25 | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Index, Update]:
    """Make `folder` an index of exactly these documents, and open it.

    Passages that were there keep their vectors, others are embedded, and those of documents that
    are gone or changed leave. A crash leaves the index as it was. One process at a time.

    Args:
        chunking: default: as the index was made; of a new one `Chunking()`, or less where the
            encoder reads less.
        words: takes the passages' words, which are counted anew each time; default: a `Bm25` with
            the options that the index was made with.
        progress: called with (texts embedded, texts to embed).

    Raises:
        ConfigError: the folder holds something else or was made with another encoder or chunking,
            or the encoder does not read whole passages.
        DataError: the documents hold no text.
        RunError: the index is damaged.
        ResourceError: the disk is full, or may not be written.
    """
    saved = _saved(folder)
    chunking = chunking or (saved.chunking if saved else _default(encoder))
    if chunking.max_tokens > encoder.passage_tokens - _SPARE:
        raise ConfigError(
            f"passages may have {chunking.max_tokens} tokens, and '{encoder.name}' reads "
            f"{encoder.passage_tokens - _SPARE} of one",
            fix="set max_tokens to no more than that, or name an encoder that reads more",
        )
    if saved:
        saved.check(encoder, chunking)
    passages = cut(documents, chunking, encoder.tokens)
    words = words or (Bm25(**saved.words().options) if saved else Bm25())
    words.build([passage.text for passage in passages])
    vectors, update = _vectors(passages, saved, encoder, progress)
    with replaced_folder(folder) as partial:
        write_jsonl(partial / "passages.jsonl", map(asdict, passages))
        np.save(partial / "vectors.npy", vectors)
        np.save(partial / "probe.npy", encoder.passages([PROBE])[0])
        words.save(partial / "words")
        about = {"version": 1, "encoder": encoder.options, "chunking": asdict(chunking)}
        counts = {"documents": len(documents), "passages": len(passages)}
        write_json(partial / "index.json", about | counts)
    return open_index(folder, encoder), update


def open_index(folder: Path, encoder: Encoder | None = None) -> Index:
    """An index as `update_index` left it.

    Args:
        encoder: the one it was made with; default: loaded by the name it then had.

    Raises:
        ConfigError: `folder` is no index, or was made with another encoder.
        ModelError: the encoder is not where it was.
        RunError: the index is damaged.
    """
    saved = _saved(folder)
    if saved is None:
        raise ConfigError(f"there is no index '{folder}'", fix="give a folder that holds one")
    if encoder is None:
        with explain_damage(folder / "index.json"):
            encoder = Encoder(**saved.encoder)
    saved.check(encoder, saved.chunking)
    passages, words = saved.passages(), saved.words()
    vectors = saved.vectors(encoder.dimension)
    if not len(passages) == len(vectors) == words.passages:
        raise RunError(
            f"the index '{folder}' is damaged: it has {len(passages):,} passages, "
            f"{len(vectors):,} vectors and words of {words.passages:,}",
            fix="make it again in another folder",
        )
    return Index(passages, saved.chunking, words, Dense.of_vectors(encoder, vectors))


def _default(encoder: Encoder) -> Chunking:
    usual = Chunking()
    most = min(usual.max_tokens, encoder.passage_tokens - _SPARE)
    return Chunking(most, min(usual.overlap, (most - 1) // 2))


def _vectors(
    passages: Sequence[Passage],
    saved: _Saved | None,
    encoder: Encoder,
    progress: Callable[[int, int], None] | None,
) -> tuple[Vectors, Update]:
    """The vectors of `passages`, those that are known taken over; a text that stands in several
    passages is embedded once."""
    there = [passage.text for passage in saved.passages()] if saved else []
    known = {text: row for row, text in enumerate(there)}
    new = list(dict.fromkeys(p.text for p in passages if p.text not in known))
    embedded, _ = encoder.passages(new, progress)
    row_of_new = {text: row for row, text in enumerate(new)}
    old = saved.vectors(encoder.dimension) if saved else embedded[:0]
    vectors = np.empty((len(passages), encoder.dimension), dtype=np.float32)
    for at, passage in enumerate(passages):
        row = known.get(passage.text)
        vectors[at] = embedded[row_of_new[passage.text]] if row is None else old[row]
    kept = sum(passage.text in known for passage in passages)
    left = {passage.text for passage in passages}
    return vectors, Update(len(new), kept, sum(text not in left for text in there))


@dataclass(frozen=True)
class _Saved:
    """What a folder holds; passages, words and vectors are read when asked for."""

    folder: Path
    encoder: dict[str, Any]
    chunking: Chunking

    def check(self, encoder: Encoder, chunking: Chunking) -> None:
        if chunking != self.chunking:
            raise ConfigError(
                f"the index '{self.folder}' has passages of {_said(self.chunking)}, and "
                f"{_said(chunking)} are asked for",
                fix="ask for the same, or give another folder",
            )
        probe = read_array(self.folder / "probe.npy")
        vector = encoder.passages([PROBE])[0]
        if probe.shape != vector.shape or np.linalg.norm(probe - vector) > _SAME:
            raise ConfigError(
                f"the index '{self.folder}' was made with another encoder ({_named(self.encoder)}) "
                f"than {_named(encoder.options)}",
                fix="give that one, or another folder",
            )

    def passages(self) -> tuple[Passage, ...]:
        records = read_jsonl(self.folder / "passages.jsonl")
        with explain_damage(self.folder / "passages.jsonl"):
            return tuple(
                Passage(**record | {"headings": tuple(record["headings"])}) for record in records
            )

    def words(self) -> Bm25:
        return Bm25.load(self.folder / "words")

    def vectors(self, dimension: int) -> Vectors:
        return read_vectors(self.folder / "vectors.npy", dimension)


def _saved(folder: Path) -> _Saved | None:
    """What `folder` holds; None where there is nothing yet."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return None
    if not (folder / "index.json").is_file():
        raise ConfigError(
            f"'{folder}' holds something else than an index",
            fix="give a folder that is empty, new, or an index",
        )
    about = read_json(folder / "index.json")
    with explain_damage(folder / "index.json"):
        return _Saved(folder, dict(about["encoder"]), Chunking(**about["chunking"]))


def _said(chunking: Chunking) -> str:
    return f"{chunking.max_tokens} tokens with {chunking.overlap} of overlap"


def _named(options: dict[str, Any]) -> str:
    """An encoder's model and what it was told."""
    told = {name: value for name, value in options.items() if name != "model" and value}
    return f"'{options['model']}' with {', '.join(f'{k}={v!r}' for k, v in told.items())}"
