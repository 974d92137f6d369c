"""The index that stays: what an update embeds, and that a crash or a mix-up does no harm."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from fitune.errors import ConfigError, DataError, FituneError, RunError
from fitune.retrieval import index
from fitune.retrieval.bm25 import Bm25
from fitune.retrieval.chunking import Chunking
from fitune.retrieval.encoder import Encoder
from fitune.retrieval.index import Update, open_index, update_index
from fitune.retrieval.passages import Document

CHUNKING = Chunking(12, 0)
CARDS = Document("cards.md", "my card was stolen. please help me.\n\nmy new card is late today.")
FEES = Document("fees.md", "a cash machine fee is new.")
QUERIES = ["stolen card", "cash fee", "late"]


@dataclass
class Counting:
    """An encoder that notes what it embeds."""

    encoder: Encoder
    embedded: list[str] = field(default_factory=list)

    def passages(self, texts, progress=None):
        self.embedded += [text for text in texts if text != index.PROBE]
        return self.encoder.passages(texts, progress)

    def __getattr__(self, name: str):
        return getattr(self.encoder, name)


def answers(opened: index.Index) -> list:
    return [opened.retriever(name).search(QUERIES, 5) for name in ("bm25", "dense", "hybrid")]


def test_opened_again_it_answers_as_before(encoder: Encoder, tmp_path: Path) -> None:
    made, update = update_index(tmp_path / "index", [CARDS, FEES], encoder, CHUNKING)
    assert update == Update(embedded=3, kept=0, removed=0)
    again = open_index(tmp_path / "index", encoder)
    assert answers(again) == answers(made)
    assert again.passages == made.passages
    [hits] = again.retriever("bm25").search(["stolen"], 1)
    assert again.found(hits)[0].document == "cards.md"
    alone = open_index(tmp_path / "index")  # loads the encoder by the name it had
    assert answers(alone) == answers(made)


def test_it_answers_as_retrievers_of_its_passages(encoder: Encoder, tmp_path: Path) -> None:
    from fitune.retrieval import make_retriever

    made, _ = update_index(tmp_path / "index", [CARDS, FEES], encoder, CHUNKING)
    for name in ("bm25", "dense", "hybrid"):
        fresh = make_retriever(name, model=encoder)
        fresh.build([passage.text for passage in made.passages])
        for hits, wanted in zip(
            made.retriever(name).search(QUERIES, 3), fresh.search(QUERIES, 3), strict=True
        ):
            assert [h.passage for h in hits] == [h.passage for h in wanted]
            assert [h.score for h in hits] == pytest.approx([h.score for h in wanted], abs=1e-5)


def test_only_what_is_new_is_embedded(encoder: Encoder, tmp_path: Path) -> None:
    folder = tmp_path / "index"
    update_index(folder, [CARDS, FEES], encoder, CHUNKING)
    counting = Counting(encoder)
    changed = Document("cards.md", CARDS.text.replace("late today", "here now"))
    more = Document("more.md", "change my pin.")
    made, update = update_index(folder, [changed, more, FEES], counting)  # type: ignore[arg-type]
    assert counting.embedded == ["my new card is here now.", "change my pin."]
    assert update == Update(embedded=2, kept=2, removed=1)
    fresh, _ = update_index(tmp_path / "fresh", [changed, more, FEES], encoder, CHUNKING)
    assert made.passages == fresh.passages
    np.testing.assert_allclose(made.vectors.vectors, fresh.vectors.vectors, atol=1e-5)


def test_unchanged_moved_and_repeated_texts_keep_their_vectors(
    encoder: Encoder, tmp_path: Path
) -> None:
    folder = tmp_path / "index"
    _, first = update_index(folder, [FEES, Document("copy.md", FEES.text)], encoder, CHUNKING)
    assert first == Update(embedded=1, kept=0, removed=0)  # two passages of one text
    moved = Document("elsewhere.md", FEES.text)
    made, update = update_index(folder, [moved], encoder)
    assert update == Update(embedded=0, kept=1, removed=0)
    assert [p.document for p in made.passages] == ["elsewhere.md"]


def test_what_is_deleted_is_found_no_more(encoder: Encoder, tmp_path: Path) -> None:
    folder = tmp_path / "index"
    update_index(folder, [CARDS, FEES], encoder, CHUNKING)
    made, update = update_index(folder, [FEES], encoder)
    assert update == Update(embedded=0, kept=1, removed=2)
    assert made.retriever("bm25").search(["stolen"], 5) == [[]]


def test_words_keep_their_options(encoder: Encoder, tmp_path: Path) -> None:
    folder = tmp_path / "index"
    update_index(folder, [CARDS], encoder, CHUNKING, words=Bm25(stopwords=["my"], b=0.5))
    made, _ = update_index(folder, [CARDS, FEES], encoder)
    assert made.words.options == Bm25(stopwords=["my"], b=0.5).options


def test_another_encoder_or_chunking_is_refused(
    encoder: Encoder, tiny_encoder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "index"
    update_index(folder, [CARDS], encoder, CHUNKING)
    before = answers(open_index(folder, encoder))
    for other in (
        Encoder(str(tiny_encoder), passage_prefix="the "),
        Encoder(str(tiny_encoder), pooling="cls"),
    ):
        with pytest.raises(ConfigError, match="made with another encoder"):
            update_index(folder, [CARDS], other)
        with pytest.raises(ConfigError, match="made with another encoder"):
            open_index(folder, other)
    with pytest.raises(ConfigError, match="of 12 tokens with 0 of overlap, and 20 tokens"):
        update_index(folder, [CARDS], encoder, Chunking(20, 0))
    assert answers(open_index(folder, encoder)) == before
    # A query's prompt is not in the index.
    open_index(folder, Encoder(str(tiny_encoder), query_prefix="what "))


def test_passages_longer_than_the_encoder_reads_are_refused(
    encoder: Encoder, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"may have 100 tokens, and .* reads 60 of one"):
        update_index(tmp_path / "index", [CARDS], encoder, Chunking(100, 0))
    made, _ = update_index(tmp_path / "index", [CARDS], encoder)
    assert made.chunking == Chunking(60, 29)


def test_folders_that_are_no_index(encoder: Encoder, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="holds something else"):
        update_index(tmp_path, [CARDS], encoder, CHUNKING)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    with pytest.raises(ConfigError, match="there is no index"):
        open_index(tmp_path / "none", encoder)
    with pytest.raises(DataError, match="no passages"):
        update_index(tmp_path / "new", [Document("a", " \n")], encoder, CHUNKING)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["index.json", "passages.jsonl", "vectors.npy", "probe.npy"])
@pytest.mark.parametrize("content", [None, b"", b"\x93NUMPY", b"{}\n{}\n"])
def test_damage_is_named(
    name: str, content: bytes | None, encoder: Encoder, tmp_path: Path
) -> None:
    folder = tmp_path / "index"
    update_index(folder, [CARDS], encoder, CHUNKING)
    (folder / name).unlink() if content is None else (folder / name).write_bytes(content)
    with pytest.raises(FituneError):
        open_index(folder, encoder)


def test_parts_that_do_not_belong_together(encoder: Encoder, tmp_path: Path) -> None:
    folder = tmp_path / "index"
    update_index(folder, [CARDS], encoder, CHUNKING)
    lines = (folder / "passages.jsonl").read_text().splitlines(keepends=True)
    (folder / "passages.jsonl").write_text("".join(lines[:-1]))
    with pytest.raises(RunError, match="1 passages, 2 vectors"):
        open_index(folder, encoder)


def test_a_failed_update_leaves_the_index_as_it_was(
    encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "index"
    update_index(folder, [CARDS], encoder, CHUNKING)
    before = answers(open_index(folder, encoder))

    def full(self: Bm25, folder: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Bm25, "save", full)
    with pytest.raises(FituneError, match="disk is full"):
        update_index(folder, [CARDS, FEES], encoder)
    monkeypatch.undo()
    assert answers(open_index(folder, encoder)) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index"]


def test_options_of_its_retrievers(encoder: Encoder, tmp_path: Path) -> None:
    made, _ = update_index(tmp_path / "index", [CARDS], encoder, CHUNKING)
    assert made.retriever("hybrid", weight=0.0, fusion="min-max").search(["stolen"], 1)[0]
    with pytest.raises(ConfigError, match="not by 'qdrant'"):
        made.retriever("qdrant")
    with pytest.raises(ConfigError, match="not by 'bm25' with weight"):
        made.retriever("bm25", weight=0.0)


def test_nothing_in_it_is_a_pickle(encoder: Encoder, tmp_path: Path) -> None:
    update_index(tmp_path / "index", [CARDS], encoder, CHUNKING)
    files = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file())
    assert files == [
        *("index/index.json", "index/passages.jsonl", "index/probe.npy", "index/vectors.npy"),
        *("index/words/bm25.json", "index/words/bm25.safetensors"),
    ]
    about = json.loads((tmp_path / "index" / "index.json").read_text())
    assert about["version"] == 1 and about["passages"] == 2 and about["documents"] == 1


def test_importing_the_room_loads_nothing_heavy() -> None:
    code = (
        "import fitune.retrieval, fitune.retrieval.index, fitune.retrieval.documents, "
        "fitune.retrieval.hybrid, sys; "
        "print(*{'torch', 'transformers', 'scipy', 'sklearn', 'pypdf'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    assert done.stdout.strip() == ""
