"""Documents → passages: nothing is lost, and cuts fall where the text parts."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fitune.errors import ConfigError
from fitune.retrieval.chunking import Chunking, cut, words
from fitune.retrieval.encoder import Encoder
from fitune.retrieval.markdown import markdown_headings
from fitune.retrieval.passages import Document, Passage


def document(text: str) -> Document:
    return Document("a.md", text, headings=markdown_headings(text))


def texts(text: str, max_tokens: int, overlap: int = 0) -> list[str]:
    return [p.text for p in cut([document(text)], Chunking(max_tokens, overlap))]


pieces = st.one_of(
    st.sampled_from(["# A\n", "## B\n", "\n\n", "\n", " ", ". ", "One two. ", "。", "x" * 30, "é"]),
    st.text(max_size=6),
    st.lists(st.sampled_from(["word", "of", "it."]), max_size=12).map(" ".join),
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(pieces, max_size=40).map("".join),
    st.integers(1, 30).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, (n - 1) // 2))),
)
def test_nothing_is_lost_and_limits_hold(text: str, limits: tuple[int, int]) -> None:
    max_tokens, overlap = limits
    passages = cut([document(text)], Chunking(max_tokens, overlap))
    covered = [False] * len(text)
    for passage in passages:
        assert passage.text == text[passage.start : passage.end]
        assert passage.text == passage.text.strip() != ""
        assert len(words(passage.text)) <= max_tokens
        covered[passage.start : passage.end] = [True] * len(passage.text)
    assert all(seen or char.isspace() for seen, char in zip(covered, text, strict=True))
    for one, other in pairwise(passages):
        assert one.start < other.start and one.end < other.end
        assert len(words(text[other.start : one.end])) <= overlap


def test_one_passage_where_all_fits() -> None:
    assert texts("A text.\n\nOf two paragraphs.\n", 50) == ["A text.\n\nOf two paragraphs."]
    assert texts("  \n\n", 50) == texts("", 50) == []


def test_paragraphs_are_kept_whole_where_half_a_passage_allows() -> None:
    text = "one two three four.\n\nfive six seven.\n\neight nine ten."
    assert texts(text, 10) == ["one two three four.\n\nfive six seven.", "eight nine ten."]


def test_sentences_come_before_words() -> None:
    text = "One two three. Four five six! Seven eight nine? Ten eleven (twelve)."
    assert texts(text, 9) == [
        "One two three. Four five six!",
        "Seven eight nine?",
        "Ten eleven (twelve).",
    ]
    assert texts("Of version 1.5 and e.g. this. Then more.", 12)[0].endswith("this.")
    assert texts("東京は首都です。京都は古い都です。", 2) == [
        "東京は首都です。",
        "京都は古い都です。",
    ]


def test_lines_come_before_sentences() -> None:
    text = "- one two. Three\n- four. Five six\n- seven"
    assert texts(text, 11) == ["- one two. Three\n- four. Five six", "- seven"]


def test_a_sentence_is_cut_only_if_it_is_longer_than_a_passage() -> None:
    long = " ".join(f"W{i}" for i in range(25)) + "."
    assert texts(f"Short. {long}", 10) == [
        "Short.",
        "W0 W1 W2 W3 W4 W5 W6 W7 W8 W9",
        "W10 W11 W12 W13 W14 W15 W16 W17 W18 W19",
        "W20 W21 W22 W23 W24.",
    ]


def test_passages_overlap_by_whole_sentences_where_they_fit() -> None:
    text = "One two three. Four five. Six seven eight. Nine ten."
    assert texts(text, 8, 3) == [
        "One two three. Four five.",
        "Four five. Six seven eight.",
        "seven eight. Nine ten.",  # the sentence before has four tokens: of it, what fits
    ]
    assert texts("a b c d e f g h i j", 4, 1) == ["a b c d", "d e f g", "g h i j"]


def test_each_passage_goes_on_by_more_than_white_space() -> None:
    assert texts("a b c d。 e.f.g.h.i", 5, 2) == ["a b c d。", "d。 e.f", ".g.h.", "i"]


def test_passages_know_their_headings() -> None:
    text = (
        "Before.\n\n# Manual\n\n## Set up\nPlug it in.\n\n### Windows\nNothing.\n"
        "## Use\n\n# Licence\nFree."
    )
    passages = cut([document(text)], Chunking(50, 5))
    assert [(p.headings, p.text) for p in passages] == [
        ((), "Before."),
        (("Manual", "Set up"), "# Manual\n\n## Set up\nPlug it in."),
        (("Manual", "Set up", "Windows"), "### Windows\nNothing."),
        (("Licence",), "## Use\n\n# Licence\nFree."),  # nothing stands under Use
    ]
    assert passages[2].place == "a.md › Manual › Set up › Windows"


def test_underlined_headings_with_nothing_under_them_stand_with_what_follows() -> None:
    [passage] = cut([document("Manual\n======\n\nUse\n---\nPlug in.")], Chunking())
    assert passage.headings == ("Manual", "Use")


def test_documents_follow_each_other() -> None:
    documents = [Document("a", "One."), Document("b", ""), Document("c", "Two.", title="See")]
    passages = cut(documents, Chunking())
    assert passages == [
        Passage("a", "", (), 0, 4, "One."),
        Passage("c", "See", (), 0, 4, "Two."),
    ]
    assert passages[1].place == "See"


def test_with_a_model_tokenizer_passages_fit_the_model(encoder: Encoder) -> None:
    text = "my card was stolen, please help. the bank transfer is late today! " * 30
    passages = cut([Document("a", text)], Chunking(40, 10), encoder.tokens)
    assert all(len(encoder.tokens(p.text)) <= 40 for p in passages)
    assert len(passages) > 5
    assert encoder.passages([p.text for p in passages])[1] == 0


def test_characters_of_several_tokens(tiny_decoder) -> None:
    byte_level = Encoder(str(tiny_decoder), pooling="last")
    text = "日本語の文章は続く" * 5  # three tokens each
    assert len(byte_level.tokens(text)) > 2 * len(text)
    passages = cut([Document("a", text)], Chunking(2, 0), byte_level.tokens)
    assert "".join(p.text for p in passages) == text


def test_a_very_long_document_is_cut_in_time() -> None:
    text = "A sentence of some words. " * 40_000  # a megabyte
    passages = cut([Document("a", text)], Chunking())
    assert sum(p.end - p.start for p in passages) > len(text) * 0.99


@pytest.mark.parametrize(
    ("limits", "said"),
    [((0, 0), "max_tokens is 0"), ((10, 5), "overlap is 5"), ((10, -1), "overlap is -1")],
)
def test_limits(limits: tuple[int, int], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Chunking(*limits)
