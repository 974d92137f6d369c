"""The ARPA format: read back, by KenLM too, and written by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from fitune.errors import ConfigError, DataError
from fitune.language_models.arpa import read_arpa, write_arpa
from fitune.language_models.ngram import NGram
from fitune.language_models.vocabulary import Vocabulary, build_vocabulary

TEXTS = [
    "the cat sat on the mat", "the dog sat on the cat", "a dog ran", "the mat is on a dog", "cat",
    "the old cat ran and the old dog sat", "on the mat a cat and a dog sat", "and the end",
] * 3  # fmt: skip
UNSEEN = ["the cat ran on the old mat", "zebra", "a zebra sat on the zebra", ""]


def fitted(kind: str, order: int, smoothing: str = "kneser-ney") -> tuple[NGram, Vocabulary]:
    vocabulary = build_vocabulary(TEXTS, kind, minimum_count=4)
    model = NGram(len(vocabulary), order=order, smoothing=smoothing)
    model.fit(vocabulary.encode_all(TEXTS))
    return model, vocabulary


@pytest.mark.parametrize("smoothing", ["kneser-ney", "absolute"])
@pytest.mark.parametrize(("kind", "order"), [("words", 1), ("words", 3), ("characters", 5)])
def test_a_written_model_is_read_back(
    kind: str, order: int, smoothing: str, tmp_path: Path
) -> None:
    model, vocabulary = fitted(kind, order, smoothing)
    write_arpa(model, vocabulary.tokens, tmp_path / "model.arpa")
    read, tokens = read_arpa(tmp_path / "model.arpa")
    assert tokens == vocabulary.tokens
    assert read.order == order
    sequences = vocabulary.encode_all(TEXTS + UNSEEN)
    for found, wanted in zip(
        read.log_probabilities(sequences), model.log_probabilities(sequences), strict=True
    ):
        np.testing.assert_allclose(found, wanted, rtol=1e-7)


@pytest.mark.parametrize("order", [2, 3, 5])
def test_kenlm_scores_it_alike(order: int, tmp_path: Path) -> None:
    kenlm = pytest.importorskip("kenlm")
    model, vocabulary = fitted("words", order)
    write_arpa(model, vocabulary.tokens, tmp_path / "model.arpa")
    other = kenlm.Model(str(tmp_path / "model.arpa"))
    assert other.order == order
    for text in TEXTS + UNSEEN:
        logs = model.log_probabilities([vocabulary.encode(text)])[0] / math.log(10)
        wanted = [log for log, _, _ in other.full_scores(text)]
        np.testing.assert_allclose(logs, wanted, atol=1e-5)  # KenLM keeps 32 bits


BY_HAND = """
\\data\\
ngram 1=4
ngram 2=3

\\1-grams:
-1.0\t<unk>
-99\t<s>\t-0.5
-0.5\tb\t-0.25
-0.4\t</s>

\\2-grams:
-0.1\t<s> b
-0.2 b b
-0.3\tb </s>

\\end\\
"""


def test_a_model_written_by_hand(tmp_path: Path) -> None:
    (tmp_path / "hand.arpa").write_text(BY_HAND)
    model, tokens = read_arpa(tmp_path / "hand.arpa")
    assert tokens == ("<unk>", "b")
    logs = model.log_probabilities([np.array([1, 1, 0], np.int32)])[0] / math.log(10)
    np.testing.assert_allclose(logs, [-0.1, -0.2, -0.25 - 1.0, -0.4])


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("\\end\\", "", "no \\\\end"),
        ("-0.2 b b", "-0.2 b", "is no 2-gram"),
        ("-0.2 b b", "much b b", "is no 2-gram"),
        ("-0.2 b b", "-0.2 c b", "'c' in 2-grams"),
        ("-0.2 b b", "-0.2 <s> b", "2-gram twice"),
        ("-99\t<s>", "-99\ts", "no <s>"),
        ("\\2-grams:", "\\3-grams:", "2-grams: should be"),
        (BY_HAND, "", "no \\\\end"),
    ],
)
def test_what_is_refused(old: str, new: str, said: str, tmp_path: Path) -> None:
    assert old in BY_HAND
    (tmp_path / "hand.arpa").write_text(BY_HAND.replace(old, new))
    with pytest.raises(DataError, match=said):
        read_arpa(tmp_path / "hand.arpa")


def test_a_context_must_be_there(tmp_path: Path) -> None:
    longer = "\\3-grams:\n-0.1 b </s> b\n\n\\end\\"
    text = BY_HAND.replace("-0.3\tb </s>\n", "").replace("\\end\\", longer)
    (tmp_path / "hand.arpa").write_text(text)
    with pytest.raises(DataError, match="3-gram whose first 2 tokens are no 2-gram"):
        read_arpa(tmp_path / "hand.arpa")


def test_other_refusals(tmp_path: Path) -> None:
    model, vocabulary = fitted("words", 2)
    with pytest.raises(ConfigError, match="vocabulary has 1 tokens"):
        write_arpa(model, ["a"], tmp_path / "a.arpa")
    marked = ("<s>", *vocabulary.tokens[1:])
    with pytest.raises(DataError, match="'<s>'"):
        write_arpa(model, marked, tmp_path / "a.arpa")
    assert not (tmp_path / "a.arpa").exists()
    with pytest.raises(DataError, match="no file"):
        read_arpa(tmp_path / "a.arpa")
    (tmp_path / "b.arpa").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="cannot be read"):
        read_arpa(tmp_path / "b.arpa")
