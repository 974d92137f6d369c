"""Vocabularies: what is kept, what is unknown, and what comes back."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fitune.errors import ConfigError, DataError, RunError
from fitune.language_models.vocabulary import Vocabulary, build_vocabulary, vocabulary_of

TEXTS = ["The cat isn't on the mat, is it?", "the  mat\tof 3 cats", "été 中文 🙂 <unk> x_1"]


def test_words() -> None:
    made = build_vocabulary(TEXTS, "words")
    text = "The cat isn't <unk> here, été!"
    assert made.decode(made.encode(text)) == "The cat isn't <unk> <unk> , été <unk>"
    assert made.unknowns(text) == ["<unk>", "here", "!"]
    assert made.encode(text).dtype == np.int32
    assert {"🙂", "中文", "x_1", "?", "3"} <= set(made.tokens)
    assert made.tokens.count("<unk>") == 1
    assert not made.lossless


def test_ranks_are_by_count_then_by_the_alphabet() -> None:
    made = build_vocabulary(["b a c c", "d c b"], "words")
    assert made.tokens == ("<unk>", "c", "b", "a", "d")
    assert build_vocabulary(["b a c c", "d c b"], "words", size=3).tokens == ("<unk>", "c", "b")
    once = build_vocabulary(["b a c c", "d c b"], "words", minimum_count=2)
    assert once.tokens == ("<unk>", "c", "b")
    assert once.encode("d b").tolist() == [0, 2]


def test_lowercase() -> None:
    made = build_vocabulary(["A a B"], "words", lowercase=True)
    assert made.tokens == ("<unk>", "a", "b")
    assert made.encode("B A").tolist() == [2, 1]
    letters = build_vocabulary(["A a B"], "characters", lowercase=True)
    assert letters.decode(letters.encode("AB")) == "ab"
    assert not letters.lossless


@given(st.lists(st.text(), min_size=1), st.text())
def test_characters_come_back(texts: list[str], other: str) -> None:
    if not any(texts):
        return
    made = build_vocabulary(texts, "characters")
    for text in texts:
        assert made.decode(made.encode(text)) == text
        assert made.unknowns(text) == []
    known = set("".join(texts))
    wanted = [made.tokens.index(c) if c in known else 0 for c in other]
    assert made.encode(other).tolist() == wanted
    assert Counter(made.unknowns(other)) == Counter(c for c in other if c not in known)


@given(st.text())
def test_subwords_come_back(text: str) -> None:
    text = text.encode("utf-8", "ignore").decode()
    made = subwords()
    assert made.decode(made.encode(text)) == text
    assert made.unknowns(text) == []


_MADE: list[Vocabulary] = []


def subwords() -> Vocabulary:
    if not _MADE:
        _MADE.append(build_vocabulary(TEXTS * 20, "subwords", size=300))
    return _MADE[0]


def test_subwords_are_merged() -> None:
    made = subwords()
    assert 256 < len(made) <= 300
    assert len(made.encode("the mat")) < len("the mat")
    assert made.unknown is None
    assert made.lossless
    assert all(made.tokens)


def test_a_models_tokenizer() -> None:
    from conftest import make_tokenizer

    tokenizer = make_tokenizer(chat=False)
    made = vocabulary_of(tokenizer)
    text = "the card account is lost, été"
    assert made.encode(text).tolist() == tokenizer.encode(text, add_special_tokens=False)
    assert len(made) == len(tokenizer)
    assert made.decode(made.encode(text)) == text
    with pytest.raises(ConfigError, match="not a fast one"):
        vocabulary_of(object())


@pytest.mark.parametrize("lowercase", [False, True])
@pytest.mark.parametrize("kind", ["words", "characters", "subwords"])
def test_a_saved_one_reads_alike(kind: str, lowercase: bool, tmp_path: Path) -> None:
    made = build_vocabulary(TEXTS, kind, lowercase=lowercase)
    made.save(tmp_path / "vocabulary.json")
    read = Vocabulary.load(tmp_path / "vocabulary.json")
    assert read == made
    for text in [*TEXTS, "New Zürich"]:
        np.testing.assert_array_equal(read.encode(text), made.encode(text))


def test_texts_are_read_once_and_may_be_an_iterator() -> None:
    assert build_vocabulary((text for text in ["a b", "b"]), "words").tokens == ("<unk>", "b", "a")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kind": "letters"}, "no tokens of kind 'letters'"),
        ({"size": 1}, "1 words"),
        ({"kind": "subwords", "size": 256}, "256 subwords"),
        ({"minimum_count": 0}, "minimum count is 0"),
    ],
)
def test_what_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        build_vocabulary(TEXTS, **{"kind": "words", **change})


def test_no_text(tmp_path: Path) -> None:
    for texts in ([], ["  ", "\n"]):
        with pytest.raises(DataError, match="no words"):
            build_vocabulary(texts, "words")
    with pytest.raises(RunError):
        Vocabulary.load(tmp_path / "missing.json")
