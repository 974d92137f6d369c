"""What every retriever promises, and how names become retrievers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fitune.errors import ConfigError, DataError, FituneError
from fitune.retrieval import RETRIEVERS, Retriever, make_retriever
from fitune.retrieval.encoder import Encoder
from fitune.retrieval.hybrid import Hybrid


@pytest.fixture(params=RETRIEVERS)
def name(request: pytest.FixtureRequest) -> str:
    if request.param == "qdrant":
        pytest.importorskip("qdrant_client")
    return request.param


def made(name: str, encoder: Encoder, texts: list[str]) -> Retriever:
    retriever = make_retriever(name, model=encoder)
    retriever.build(texts)
    return retriever


def test_the_passage_itself_is_found_first(
    name: str, encoder: Encoder, passages: list[str]
) -> None:
    with_words = [i for i, text in enumerate(passages) if text != "!!!"]
    found = made(name, encoder, passages).search([passages[i] for i in with_words], 3)
    first = [hits[0].passage for hits in found]
    assert first == [1 if i == 4 else i for i in with_words]  # of duplicates, the earlier


def test_scores_fall_and_passages_stand_once(
    name: str, encoder: Encoder, passages: list[str]
) -> None:
    for hits in made(name, encoder, passages).search(["my card is late", "bank fee"], 5):
        assert len({hit.passage for hit in hits}) == len(hits) > 0
        scores = [hit.score for hit in hits]
        assert scores == sorted(scores, reverse=True)


def test_a_query_is_answered_alike_alone_and_among_others(
    name: str, encoder: Encoder, passages: list[str]
) -> None:
    retriever = made(name, encoder, passages)
    queries = ["stolen card", "", "how do I change it?", "fee"]
    together = retriever.search(queries, 4)
    for query, hits in zip(queries, together, strict=True):
        [alone] = retriever.search([query], 4)
        assert [h.passage for h in alone] == [h.passage for h in hits]
        assert [h.score for h in alone] == pytest.approx([h.score for h in hits], abs=1e-6)


def test_edges(name: str, encoder: Encoder, passages: list[str]) -> None:
    retriever = made(name, encoder, passages)
    assert retriever.search([], 3) == []
    assert retriever.search(["", " \n"], 3) == [[], []]
    assert len(retriever.search(["card"], 100)[0]) <= len(passages)
    unknown = retriever.search(["xyzzy"], 3)[0]
    assert (unknown == []) == (name == "bm25")  # vectors are always near something
    one = made(name, encoder, ["my card"])
    assert [hit.passage for hit in one.search(["card"], 5)[0]] == [0]


def test_what_cannot_be_asked(name: str, encoder: Encoder, passages: list[str]) -> None:
    retriever = make_retriever(name, model=encoder)
    with pytest.raises(ConfigError, match="call build"):
        retriever.search(["card"], 1)
    with pytest.raises(DataError, match="no passages"):
        retriever.build([])
    with pytest.raises(DataError, match="passage 1 of 2 is blank"):
        retriever.build(["card", " \n"])
    retriever.build(passages)
    with pytest.raises(ConfigError, match="k is 0"):
        retriever.search(["card"], 0)


def test_saved_and_loaded(name: str, encoder: Encoder, passages: list[str], tmp_path: Path) -> None:
    options = {"location": str(tmp_path / "database")} if name == "qdrant" else {}
    retriever: Any = make_retriever(name, model=encoder, **options)
    retriever.build(passages)
    queries = ["stolen card", "late transfer", "盗まれ"]
    every = len(passages)  # of equal passages at the k-th place, Qdrant picks one as it likes
    before = retriever.search(queries, every)
    retriever.save(tmp_path / "saved")
    if name == "qdrant":
        retriever.close()
    after = type(retriever).load(tmp_path / "saved")
    for hits, wanted in zip(after.search(queries, every), before, strict=True):
        assert [hit.passage for hit in hits] == [hit.passage for hit in wanted]
        # Qdrant scales vectors to length one again as it reads them.
        assert [h.score for h in hits] == pytest.approx([h.score for h in wanted], abs=1e-6)
    assert after.parameters == retriever.parameters
    if name == "qdrant":
        after.close()


def test_names_and_options() -> None:
    with pytest.raises(ConfigError, match=r"no retriever 'bm52'.*did you mean 'bm25'"):
        make_retriever("bm52")
    with pytest.raises(ConfigError, match=r"'bm25' has no option 'steem'.*did you mean 'stem'"):
        make_retriever("bm25", steem="english")
    assert make_retriever("bm25", model="not read", b=0.5).parameters == 0
    own = make_retriever("fitune.retrieval.bm25:Bm25")
    own.build(["a card"])
    assert own.search(["card"], 1)[0][0].passage == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"fusion": "sum"}, "no fusion 'sum'"),
        ({"weight": 1.5}, "weight is 1.5"),
        ({"depth": 0}, "depth is 0"),
    ],
)
def test_hybrid_options(options: dict, said: str, encoder: Encoder) -> None:
    with pytest.raises(FituneError, match=said):
        Hybrid(model=encoder, **options)


def test_the_weight_of_a_hybrid_says_whom_it_follows(encoder: Encoder, passages: list[str]) -> None:
    query = ["late card fee"]
    for weight, alone in ((0.0, "bm25"), (1.0, "dense")):
        both = Hybrid(model=encoder, weight=weight)
        both.build(passages)
        [hits] = both.search(query, 3)
        [wanted] = made(alone, encoder, passages).search(query, 3)
        assert [h.passage for h in hits] == [h.passage for h in wanted]


def test_a_hybrid_fuses_no_more_than_its_depth(encoder: Encoder, passages: list[str]) -> None:
    shallow = Hybrid(model=encoder, depth=1)
    shallow.build(passages)
    assert len(shallow.search(["late card fee"], 1)[0]) == 1
    deep = Hybrid(model=encoder, depth=8)
    deep.build(passages)
    [[first]] = shallow.search(["late card fee"], 1)
    assert deep.search(["late card fee"], 8)[0] != [first]
