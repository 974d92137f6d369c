"""Qdrant, in its local mode, against exact search."""

from __future__ import annotations

import gc
import sys
from pathlib import Path

import pytest

from fitune.errors import ConfigError, MissingExtraError, ResourceError
from fitune.retrieval.dense import Dense
from fitune.retrieval.encoder import Encoder
from fitune.retrieval.qdrant import Qdrant


@pytest.fixture(autouse=True)
def client() -> None:
    pytest.importorskip("qdrant_client")


def test_it_finds_what_exact_search_finds(encoder: Encoder, passages: list[str]) -> None:
    mine, exact = Qdrant(model=encoder), Dense(model=encoder)
    queries = ["stolen card", "late transfer", "", "fee"]
    found = []
    for retriever in (mine, exact):
        retriever.build(passages)
        found.append(retriever.search(queries, len(passages)))
    for hits, wanted in zip(*found, strict=True):
        assert [h.passage for h in hits] == [h.passage for h in wanted]
        assert [h.score for h in hits] == pytest.approx([h.score for h in wanted], abs=1e-6)


def test_a_collection_that_is_there_is_not_lost(encoder: Encoder, tmp_path: Path) -> None:
    location = str(tmp_path / "database")
    first = Qdrant(model=encoder, location=location)
    first.build(["my card"])
    with pytest.raises(ConfigError, match="there is a collection 'fitune'"):
        first.build(["a fee"])
    assert len(first.search(["card"], 5)[0]) == 1
    first.close()
    second = Qdrant(model=encoder, location=location, replace=True)
    second.build(["a fee", "the bank"])
    assert len(second.search(["card"], 5)[0]) == 2
    second.close()


def test_many_passages_go_in_parts(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    from fitune.retrieval import qdrant

    monkeypatch.setattr(qdrant, "_AT_ONCE", 2)
    made = Qdrant(model=encoder)
    made.build(["card", "bank", "fee", "pin", "cash"])
    hits = made.search(["card", "bank", "fee", "pin", "cash"], 1)
    assert [found[0].passage for found in hits] == [0, 1, 2, 3, 4]


def test_memory_cannot_be_saved(encoder: Encoder, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="in memory cannot be saved"):
        Qdrant(model=encoder).save(tmp_path)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_folder_open_elsewhere(encoder: Encoder, tmp_path: Path) -> None:
    first = Qdrant(model=encoder, location=str(tmp_path / "database"))
    with pytest.raises(ResourceError, match="already accessed by another instance"):
        Qdrant(model=encoder, location=str(tmp_path / "database"))
    gc.collect()  # the client that was refused leaves its lock file open: here, not in another test
    first.close()


def test_a_server_that_is_not_there(encoder: Encoder) -> None:
    made = Qdrant(model=encoder, location="http://127.0.0.1:9")
    with pytest.raises(ResourceError, match=r"Qdrant at http://127\.0\.0\.1:9 cannot do this"):
        made.build(["card"])


def test_its_package_is_an_extra(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "qdrant_client", None)
    with pytest.raises(MissingExtraError, match=r"fitune\[qdrant\]"):
        Qdrant(model=encoder)
