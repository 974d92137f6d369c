"""Texts → terms, in many scripts."""

from __future__ import annotations

import re
import string
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fitune.errors import ConfigError, MissingExtraError
from fitune.retrieval.terms import STOPWORDS, stemmer, stop_words, terms


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (
            "The PIN-code of 2 cards; snake_case!",
            ["the", "pin", "code", "of", "2", "cards", "snake_case"],
        ),
        ("", []),
        (" \n\t", []),
        ("?!", []),
        ("Straße CAFÉ", ["strasse", "café"]),
        ("cafe\u0301", ["café"]),  # composed and decomposed are one
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),  # vowel signs are part of a word
        ("Россия и Москва", ["россия", "и", "москва"]),
        ("東京都 2024年", ["東京", "京都", "2024", "年"]),
        ("ありがとう", ["あり", "りが", "がと", "とう"]),
        ("สวัสดี", ["สว", "วั", "ัส", "สด", "ดี"]),
        ("한국어 문서", ["한국어", "문서"]),  # Korean parts its words
        ("GPU上で", ["gpu", "上で"]),
    ],
)
def test_terms(text: str, wanted: list[str]) -> None:
    assert terms(text) == wanted


@given(st.text(alphabet=string.printable, max_size=60))
def test_the_quick_way_for_ascii_equals_the_other(text: str) -> None:
    beyond = terms(text + " é")  # one letter more, and the other way is taken
    assert terms(text) == beyond[:-1] == re.findall(r"\w+", text.lower())


@given(st.text(max_size=30))
def test_the_way_for_scripts_without_marks_equals_the_other(text: str) -> None:
    assert terms(text) == terms(text + " 東")[:-1]


def test_stop_words_by_name_or_as_a_list() -> None:
    assert stop_words("english") == STOPWORDS["english"] and "the" in STOPWORDS["english"]
    assert stop_words(["Der", "die"]) == {"der", "die"}
    with pytest.raises(ConfigError, match=r"no stop words 'klingon'.*english"):
        stop_words("klingon")


def test_without_a_language_words_stay() -> None:
    assert stemmer(None)(["cards", "running"]) == ["cards", "running"]


def test_stems() -> None:
    pytest.importorskip("Stemmer")
    assert stemmer("english")(["cards", "running", "transferred"]) == ["card", "run", "transfer"]
    with pytest.raises(ConfigError, match=r"no stemmer for 'klingon'.*english"):
        stemmer("klingon")


def test_a_missing_stemmer_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "Stemmer", None)
    with pytest.raises(MissingExtraError, match=r"fitune\[rag\]"):
        stemmer("english")
