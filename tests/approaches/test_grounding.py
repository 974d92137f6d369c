"""Rows that are shown passages: which, from where, and that they come back the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fitune.approaches import grounding
from fitune.approaches.context import Room, token_starts
from fitune.approaches.grounding import Grounding
from fitune.approaches.lookup import Lookup
from fitune.data.rows import Row, Rows, Turn
from fitune.errors import ConfigError, DataError, FituneError, ModelError, RunError
from fitune.models.load import load_tokenizer
from fitune.models.source import resolve_source
from fitune.retrieval.encoder import Encoder
from fitune.retrieval.index import PROBE

Make = Callable[..., Any]
CARDS = "# Cards\n\nA stolen card is replaced in five days.\n\n# Fees\n\nThe fee is two pounds."
ROWS = Rows((Row("when is a stolen card replaced"), Row("what is the fee"), Row("zebra")))


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "cards.md").write_text(CARDS)
    (folder / "more.jsonl").write_text(
        json.dumps({"text": "The bank is old.", "title": "Bank"})
        + "\n"
        + 2 * (json.dumps({"text": "The fee is two pounds."}) + "\n")
    )
    return folder


@pytest.fixture
def room(tiny_decoder: Path) -> Room:
    tokenizer = load_tokenizer(resolve_source(str(tiny_decoder)))
    return Room(tokenizer, lambda row: len(tokenizer(row.text).input_ids), 400, 1000)


@pytest.fixture
def build(make_work: Make, room: Room, tiny_encoder: Path) -> Make:
    def made(place: Any, retriever: str = "bm25", *, work: Any = None, **how: Any) -> Grounding:
        if retriever != "bm25" and ":" not in retriever:
            how.setdefault("encoder", str(tiny_encoder))
        data = {"train": "unused.csv", "documents": place}
        made = Grounding(Lookup(retriever, **how), work or make_work(data=data), use="rag")
        made.build(lambda text: token_starts(room.tokenizer, text))
        return made

    return made


def shown(made: Grounding, room: Room, rows: Rows = ROWS) -> list[list[tuple[str, str]]]:
    grounded = made.ground(rows, room, "test")
    for row, passages in zip(grounded.rows, grounded.shown, strict=True):
        assert all(f"[{n}] {p.text}" in row.text for n, p in enumerate(passages, start=1))
    return [[(p.place, p.text) for p in passages] for passages in grounded.shown]


def test_what_is_shown_says_where_it_stands(docs: Path, build: Make, room: Room) -> None:
    stolen, fee, zebra = shown(build(str(docs), passages=1), room)
    assert stolen == [("Cards › Cards", "# Cards\n\nA stolen card is replaced in five days.")]
    # The same words stand in two records, and are shown once, from where they stand first.
    assert fee == [("docs/more.jsonl:2", "The fee is two pounds.")]
    assert zebra == []
    first, second = shown(build([str(docs / "cards.md")], passages=2), room)[1]
    assert first == ("Cards › Fees", "# Fees\n\nThe fee is two pounds.")
    assert second[0] == "Cards › Cards"


@pytest.mark.parametrize("retriever", ["bm25", "dense", "hybrid"])
def test_a_text_that_stands_twice_takes_one_place(
    retriever: str, docs: Path, build: Make, room: Room
) -> None:
    once = build(str(docs), retriever, passages=9)
    assert len(once.passages) == 4
    for its in shown(once, room)[:2]:
        assert len(set(its)) == len(its) == (4 if retriever != "bm25" else len(its))
    # The other records change nothing: scores are those of a corpus without them.
    (docs / "more.jsonl").write_text(
        "\n".join(dict.fromkeys((docs / "more.jsonl").read_text().splitlines()))
    )
    assert build(str(docs), retriever, passages=9).ground(ROWS, room, "") == once.ground(
        ROWS, room, ""
    )


@pytest.mark.parametrize("retriever", ["bm25", "dense", "hybrid"])
def test_saved_it_shows_the_same_without_documents_or_cache(
    retriever: str,
    docs: Path,
    build: Make,
    room: Room,
    make_work: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FITUNE_CACHE", str(tmp_path / "cache"))
    made = build(str(docs), retriever)
    before = made.ground(ROWS, room, "test")
    made.save(tmp_path / "saved")
    for path in docs.iterdir():
        path.unlink()
    monkeypatch.setenv("FITUNE_CACHE", str(tmp_path / "other"))
    read = Grounding.load(tmp_path / "saved", make_work())
    assert read.ground(ROWS, room, "test") == before
    assert read.parameters == made.parameters
    assert (made.parameters > 0) == (retriever != "bm25")


def test_only_what_changed_is_embedded_again(
    docs: Path, build: Make, room: Room, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FITUNE_CACHE", str(tmp_path / "cache"))
    embedded: list[str] = []
    encode = Encoder.passages

    def counting(self: Encoder, texts: Any, progress: Any = None) -> Any:
        embedded.extend(texts)
        return encode(self, texts, progress)

    monkeypatch.setattr(Encoder, "passages", counting)
    places = [str(docs / "cards.md"), str(docs / "more.jsonl")]
    first = shown(build(places, "dense"), room)
    assert "The bank is old." in embedded
    embedded.clear()
    assert shown(build(places, "hybrid", passages=9), room)[0]
    assert not [text for text in embedded if text != PROBE]
    (docs / "more.jsonl").write_text('{"text": "The bank is new."}\n')
    again = shown(build(places, "dense"), room)
    assert [text for text in embedded if text != PROBE] == ["The bank is new."]
    assert first != again


def test_an_index_of_another_encoder_or_damaged_is_made_again(
    docs: Path,
    build: Make,
    room: Room,
    tiny_encoder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import shutil

    from safetensors.numpy import load_file, save_file

    monkeypatch.setenv("FITUNE_CACHE", str(tmp_path / "cache"))
    encoder = tmp_path / "encoder"
    shutil.copytree(tiny_encoder, encoder)
    before = build(str(docs), "dense", encoder=str(encoder)).ground(ROWS, room, "test")
    arrays = load_file(encoder / "model.safetensors")
    save_file({n: np.roll(a, 1, axis=0) for n, a in arrays.items()}, encoder / "model.safetensors")
    other = build(str(docs), "dense", encoder=str(encoder)).ground(ROWS, room, "test")
    assert other != before
    (file,) = (tmp_path / "cache").glob("indexes/*/index/passages.jsonl")
    file.write_text("{}\n")
    assert build(str(docs), "dense", encoder=str(encoder)).ground(ROWS, room, "test") == other


def test_earlier_turns_are_looked_up_too(docs: Path, build: Make, room: Room) -> None:
    row = Row("zebra", history=(Turn("user", "stolen card"), Turn("assistant", "ok")))
    [[first]] = shown(build(str(docs), passages=1), room, Rows((row,)))
    assert "five days" in first[1]


def test_a_cross_encoder_has_the_last_word(
    docs: Path, build: Make, room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Longest:
        """Prefers long passages."""

        parameters = 7

        def __init__(self, source: Any, *, device: str) -> None:
            self.name = source.name

        def rerank(self, query: str, hits: Any, texts: Any, k: int) -> Any:
            return sorted(hits, key=lambda hit: -len(texts[hit.passage]))[:k]

    monkeypatch.setattr(grounding, "Reranker", Longest)
    plain = shown(build(str(docs), passages=1), room)
    made = build(str(docs), passages=1, rerank="minilm-l6")
    assert shown(made, room)[1] != plain[1]
    assert made.parameters == 7


def test_options_reach_the_retriever(docs: Path, build: Make, room: Room) -> None:
    [[first]] = shown(build(str(docs), passages=1), room, Rows((Row("fee"),)))
    assert "fee" in first[1]
    stopped = build(str(docs), passages=1, options={"stopwords": ["fee"]})
    assert shown(stopped, room, Rows((Row("fee"),))) == [[]]
    weighted = build(str(docs), "hybrid", options={"weight": 0.0, "stopwords": ["is"]})
    words = build(str(docs), options={"stopwords": ["is"]})
    assert shown(weighted, room, ROWS[:2])[0][0] == shown(words, room, ROWS[:2])[0][0]
    small = build(str(docs), passage_tokens=8)
    assert len(small.passages) > len(stopped.passages)


def test_qdrant_in_a_folder(docs: Path, build: Make, room: Room, tmp_path: Path) -> None:
    pytest.importorskip("qdrant_client")
    place = {"location": str(tmp_path / "qdrant")}
    made = build(str(docs), "qdrant", options=place)
    dense = build(str(docs), "dense")
    assert shown(made, room) == shown(dense, room)
    made.save(tmp_path / "saved")
    made._retriever.close()  # type: ignore[union-attr]
    read = Grounding.load(tmp_path / "saved", made.work)
    assert shown(read, room) == shown(dense, room)
    read._retriever.close()  # type: ignore[union-attr]


OWN = """
from fitune.retrieval import Hit


class Last:
    parameters = 0

    def build(self, passages):
        self.count = len(passages)

    def search(self, queries, k):
        return [[Hit(self.count - 1, 1.0)] for _ in queries]

    def save(self, folder):
        folder.mkdir()
        (folder / "count").write_text(str(self.count))

    @classmethod
    def load(cls, folder):
        made = cls()
        made.count = int((folder / "count").read_text())
        return made
"""


def test_a_retriever_of_ones_own(
    docs: Path, build: Make, room: Room, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_retriever.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    made = build(str(docs), "own_retriever:Last")
    assert [[place for place, _ in its] for its in shown(made, room)] == [["docs/more.jsonl:2"]] * 3
    made.save(tmp_path / "saved")
    assert shown(Grounding.load(tmp_path / "saved", made.work), room) == shown(made, room)


def test_what_was_not_shown_is_said(docs: Path, build: Make, make_work: Make, room: Room) -> None:
    notices: list[str] = []
    data = {"train": "unused.csv", "documents": str(docs)}
    made = build(str(docs), work=make_work(data=data, notices=notices))
    made.ground(ROWS, room, "test")
    assert notices == ["for 1 of 3 test rows no passage was found."]
    notices.clear()
    made.ground(ROWS, Room(room.tokenizer, room.length, 12, 1000), "test")
    assert notices == [
        "for 1 of 3 test rows no passage was found.",
        "2 of 3 test rows show only the beginning of their best passage: whole, it does not fit "
        "into 12 tokens (context_tokens), or beside the rest into 1,000.",
    ]
    notices.clear()
    made.ground(ROWS[:2], Room(room.tokenizer, room.length, 1, 1000), "test")
    assert "2 of 2 test rows show no passage: not a word of one fits" in notices[0]
    notices.clear()
    one = len(room.tokenizer("[1] # Cards\n\nA stolen card is replaced in five days.").input_ids)
    made.ground(ROWS[:1], Room(room.tokenizer, room.length, one + 3, 1000), "test")
    assert "1 of 1 test rows show fewer passages than were found" in notices[0]


@pytest.mark.parametrize(
    ("place", "how", "error", "said"),
    [
        (None, {}, ConfigError, "'rag' looks answers up in documents, and the task names none"),
        ((), {}, ConfigError, "the task names none"),
        ("nowhere", {}, DataError, "no file or folder nowhere"),
        (["DOCS", "nowhere"], {}, DataError, "no file or folder nowhere"),
        ("EMPTY", {}, DataError, "holds no documents"),
        ("DOCS", {"retriever": "bm52"}, ConfigError, "no retriever 'bm52'; did you mean 'bm25'"),
        ("DOCS", {"encoder": "minilm-l6"}, ConfigError, "retriever 'bm25' has none"),
        ("DOCS", {"options": {"weight": 1}}, ConfigError, "'bm25' has no option 'weight'"),
        ("DOCS", {"retriever": "dense", "options": {"model": "a"}}, ConfigError, "option 'model'"),
        ("DOCS", {"retriever": "dense", "encoder": "no-such"}, ModelError, "no model 'no-such'"),
        ("DOCS", {"rerank": "no-such"}, ModelError, "no model 'no-such'"),
        ("DOCS", {"retriever": "pathlib:Path"}, ConfigError, "'pathlib:Path' lacks build, search"),
    ],
)
def test_mistakes_show_before_anything_loads(
    place: Any,
    how: dict[str, Any],
    error: type[FituneError],
    said: str,
    docs: Path,
    make_work: Make,
    tmp_path: Path,
) -> None:
    (tmp_path / "empty").mkdir()
    names = {"DOCS": str(docs), "EMPTY": str(tmp_path / "empty")}
    if isinstance(place, list):
        place = [names.get(name, name) for name in place]
    elif isinstance(place, str):
        place = names.get(place, place)
    work = make_work(data={"train": "unused.csv", "documents": place})
    with pytest.raises(error) as caught:
        Grounding(Lookup(**{"retriever": "bm25", **how}), work, use="rag")
    assert said in str(caught.value)


def test_mistakes_in_values_are_sentences_too(docs: Path, build: Make) -> None:
    with pytest.raises(ConfigError, match="k1 is -1"):
        build(str(docs), options={"k1": -1})
    with pytest.raises(ConfigError, match=r"passage_tokens is 63, and encoder .* reads 60"):
        build(str(docs), "dense", passage_tokens=63)
    with pytest.raises(ConfigError, match=r"retriever 'bm25' cannot be made .* options"):
        build(str(docs), options={"b": "much"})


def test_damaged_files_are_said(docs: Path, build: Make, make_work: Make, tmp_path: Path) -> None:
    build(str(docs)).save(tmp_path / "saved")
    (tmp_path / "saved" / "passages.jsonl").write_text('{"no": 1}\n')
    with pytest.raises(RunError, match=r"passages\.jsonl"):
        Grounding.load(tmp_path / "saved", make_work())
