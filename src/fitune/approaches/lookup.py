"""How passages are found: the options of a search, checked, and documents indexed by them.

Knows documents, encoders and retrievers; knows nothing of rows or of who is shown what is found.
Where an encoder compares, the index of the documents is kept in the cache, so that other rungs and
later runs embed only what changed.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fitune.approaches.base import Work
from fitune.data.table import expand
from fitune.errors import ConfigError, RunError
from fitune.models.source import ModelSource, cache_folder, resolve_source
from fitune.names import lookup
from fitune.retrieval import RETRIEVERS, Retriever, make_retriever
from fitune.retrieval.bm25 import Bm25
from fitune.retrieval.chunking import Chunking, Tokens, cut
from fitune.retrieval.dense import Dense
from fitune.retrieval.documents import read_documents
from fitune.retrieval.encoder import Encoder
from fitune.retrieval.index import Index, update_index
from fitune.retrieval.passages import Document, Passage
from fitune.runs import explain_os_errors

ENCODER = "minilm-l6"

PASSAGES = 3
"""Shown, where nothing is said."""

PARTS_OF_RETRIEVER = ("build", "search", "save", "load")

OF_ENCODER = ("query_prefix", "passage_prefix")
OF_WORDS = ("stem", "stopwords")
"""Options of a hybrid retriever that are those of its parts."""


@dataclass(frozen=True)
class Lookup:
    """How passages are found.

    Attributes:
        retriever: a name in `RETRIEVERS`, or ``package.module:Class``.
        encoder: a model, for retrievers that have one; None: `ENCODER`.
        options: of the retriever, as its class takes them.
        passage_tokens: most tokens of a passage; None: as `Chunking`, or as the encoder reads.
        rerank: a cross-encoder that puts the first passages into another order.
        passages: how many are shown.
    """

    retriever: str
    encoder: str | None = None
    options: dict[str, Any] | None = None
    passage_tokens: int | None = None
    rerank: str | None = None
    passages: int = PASSAGES

    @property
    def kind(self) -> type:
        kind: type = lookup(self.retriever, RETRIEVERS, "retriever")
        return kind

    @property
    def encodes(self) -> bool:
        return "model" in inspect.signature(self.kind).parameters


def refuse_unfit(how: Lookup, work: Work, use: str) -> None:
    """Refuse what could not be searched, before anything loads.

    Args:
        use: the approach, for messages.

    Raises:
        ConfigError: the task names no documents, or an option that does not fit the retriever.
        ModelError: the encoder or the cross-encoder is not there.
    """
    if not places_of(work):
        raise ConfigError(
            f"approach '{use}' looks answers up in documents, and the task names none",
            fix="set data.documents to a file or a folder",
        )
    if not how.encodes and how.encoder:
        raise ConfigError(
            f"approach '{use}' names an encoder ('{how.encoder}'), and retriever "
            f"'{how.retriever}' has none",
            fix="set retriever: hybrid or dense, or remove the encoder",
        )
    if missing := [name for name in PARTS_OF_RETRIEVER if not hasattr(how.kind, name)]:
        raise ConfigError(
            f"retriever '{how.retriever}' lacks {', '.join(missing)}",
            fix="write it as fitune.retrieval.Retriever says",
        )
    known = {*inspect.signature(how.kind).parameters} - {"model", "device"}
    if wrong := next((name for name in how.options or {} if name not in known), None):
        raise ConfigError(
            f"retriever '{how.retriever}' has no option '{wrong}'",
            fix=f"its options are {', '.join(sorted(known))}",
        )
    if how.encodes:
        model_source(how.encoder or ENCODER, work)
    if how.rerank:
        model_source(how.rerank, work)


@contextlib.contextmanager
def explained(how: Lookup) -> Iterator[None]:
    """Options are free-form: what a class makes of a wrong one is told as the user's mistake.

    Raises:
        ConfigError: instead of TypeError and ValueError.
    """
    try:
        yield
    except (TypeError, ValueError) as error:
        if not how.options:
            raise
        raise ConfigError(
            f"retriever '{how.retriever}' cannot be made with these options ({error})",
            fix=f"see what {how.kind.__name__} takes",
        ) from error


def places_of(work: Work) -> tuple[str, ...]:
    """The files and folders that hold the task's documents."""
    places = work.task.data.documents
    return (places,) if isinstance(places, str) else places or ()


def read(places: Sequence[str], work: Work) -> tuple[Document, ...]:
    """The documents, called by their paths from where the named places stand.

    Raises:
        DataError, ResourceError, MissingExtraError: as `read_documents`.
    """
    documents: list[Document] = []
    for place in places:
        found, notes = read_documents(place)
        for note in notes:
            work.notice(note)
        start = f"{expand(place).parent}/"
        documents += [replace(one, source=one.source.removeprefix(start)) for one in found]
    return tuple(documents)


def model_source(model: str, work: Work) -> ModelSource:
    """
    Raises:
        ModelError: there is no such model.
    """
    task = work.task
    return resolve_source(model, download=task.download, trust_remote_code=task.trust_remote_code)


def indexed(
    documents: Sequence[Document], how: Lookup, work: Work, tokens: Tokens
) -> tuple[tuple[Passage, ...], Retriever]:
    """The passages of `documents`, each text once, and what searches them."""
    options = dict(how.options or {})
    encoder = None
    if how.encodes:
        prefixes = {name: options.pop(name) for name in OF_ENCODER if name in options}
        encoder = Encoder(
            model_source(how.encoder or ENCODER, work), device=work.device, **prefixes
        )
        tokens = encoder.tokens
    chunking = _chunking(how, encoder)
    if how.retriever in ("dense", "hybrid"):
        assert encoder is not None
        words = Bm25(**{name: options.pop(name) for name in OF_WORDS if name in options})
        index = _each_once(_kept_index(documents, encoder, chunking, words, work))
        return index.passages, index.retriever(how.retriever, **options)
    every = cut(documents, chunking, tokens)
    passages = tuple(every[first] for first in _firsts(every))
    retriever = make_retriever(how.retriever, model=encoder, **options)
    retriever.build([passage.text for passage in passages])
    return passages, retriever


def _chunking(how: Lookup, encoder: Encoder | None) -> Chunking:
    """Of about the usual size, or less where the encoder reads less."""
    usual = Chunking()
    # A passage alone may have a token more at either end than within its document.
    most = encoder.passage_tokens - 2 if encoder else None
    if most and how.passage_tokens and how.passage_tokens > most:
        raise ConfigError(
            f"passage_tokens is {how.passage_tokens:,}, and encoder '{encoder.name}' reads "  # type: ignore[union-attr]
            f"{most:,} of a passage",
            fix=f"set passage_tokens to at most {most}, or name an encoder that reads more",
        )
    size = how.passage_tokens or min(usual.max_tokens, most or usual.max_tokens)
    return Chunking(size, min(usual.overlap, (size - 1) // 2))


def _kept_index(
    documents: Sequence[Document], encoder: Encoder, chunking: Chunking, words: Bm25, work: Work
) -> Index:
    """The index of these places in the cache, brought up to date."""
    places = [str(expand(place).absolute()) for place in places_of(work)]
    facts = [places, encoder.options, asdict(chunking)]
    name = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:40]
    folder = cache_folder() / "indexes" / name

    def update() -> Index:
        index, _ = update_index(
            folder / "index",
            documents,
            encoder,
            chunking,
            words=words,
            progress=lambda done, total: work.progress("embedding passages", done, total),
        )
        return index

    with _alone(folder):
        try:
            return update()
        except (ConfigError, RunError):  # another encoder of that name, or damage: made again
            shutil.rmtree(folder / "index", ignore_errors=True)
            return update()


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait until no other process works in `folder`, and keep others waiting."""
    with explain_os_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("w")
    with file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        except (ImportError, OSError):  # no such locks on Windows and some network file systems
            pass
        yield


def _firsts(passages: Sequence[Passage]) -> list[int]:
    """Where each text stands first: shown twice, it would take the place of another."""
    places: dict[str, int] = {}
    for number, passage in enumerate(passages):
        places.setdefault(passage.text, number)
    return list(places.values())


def _each_once(index: Index) -> Index:
    kept = _firsts(index.passages)
    if len(kept) == len(index.passages):
        return index
    passages = tuple(index.passages[number] for number in kept)
    words = Bm25(**index.words.options)
    words.build([passage.text for passage in passages])
    vectors = Dense.of_vectors(index.vectors.encoder, np.array(index.vectors.vectors[kept]))
    return Index(passages, index.chunking, words, vectors)
