"""Metrics against scikit-learn, sacrebleu, published examples and brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fitune.errors import ConfigError, DataError
from fitune.evaluation.likelihood import Likelihood
from fitune.evaluation.metrics import (
    DEFAULT_METRIC,
    METRICS,
    custom_metric,
    find_metric,
    normalise,
)

labels = st.sampled_from(["a", "b", "c", "d", "ü"])
pairs = st.lists(st.tuples(labels, labels), min_size=1, max_size=40)
texts = st.text(alphabet="abc é.!中 the", max_size=30)
text_pairs = st.lists(st.tuples(texts, texts), min_size=1, max_size=8)


def columns(rows: list[tuple[str, str]]) -> tuple[list[str], list[str]]:
    return [p for p, _ in rows], [r for _, r in rows]


@settings(deadline=None)
@given(pairs)
@pytest.mark.filterwarnings("ignore")  # scikit-learn warns where a label is never predicted
def test_classification_metrics_equal_scikit_learn(rows: list[tuple[str, str]]) -> None:
    from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

    predictions, references = columns(rows)
    truth = {
        "accuracy": accuracy_score(references, predictions),
        "micro_f1": f1_score(references, predictions, average="micro", zero_division=0),
        "macro_f1": f1_score(references, predictions, average="macro", zero_division=0),
        "mcc": matthews_corrcoef(references, predictions),
    }
    for name, value in truth.items():
        assert METRICS[name].function(predictions, references) == pytest.approx(value, abs=1e-12)


@settings(deadline=None)
@given(text_pairs)
def test_chrf_equals_sacrebleu(rows: list[tuple[str, str]]) -> None:
    import sacrebleu

    predictions, references = columns(rows)
    truth = sacrebleu.corpus_chrf(predictions, [references]).score / 100
    assert METRICS["chrf"].function(predictions, references) == pytest.approx(truth, abs=1e-12)


WORDY = st.lists(
    st.sampled_from(["the", "The", "cat", "sat", "a", "mat,", ".", "3,000", "U.S.", "naïve", "猫"]),
    max_size=9,
).map(" ".join)


@settings(deadline=None)
@given(st.lists(st.tuples(WORDY, WORDY), min_size=1, max_size=6))
def test_bleu_equals_sacrebleu(rows: list[tuple[str, str]]) -> None:
    import sacrebleu

    predictions, references = columns(rows)
    truth = sacrebleu.corpus_bleu(predictions, [references], force=True).score / 100
    assert METRICS["bleu"].function(predictions, references) == pytest.approx(truth, abs=1e-12)


def test_bleu_smooths_and_is_brief_as_sacrebleu_does() -> None:
    """Each case of its own, since chance may miss them; the second has no four words in a row."""
    import sacrebleu

    for said, wanted in (
        (["a b c d e f"], ["a b c x e f"]),
        (["a b c x d e"], ["a b c d e f g h"]),
        (["a b c"], ["a b c d"]),
        (["x y z w"], ["a b c d"]),
        ([""], ["a b c d"]),
        (["a b c d e", "f"], ["a b c d e", ""]),
    ):
        truth = sacrebleu.corpus_bleu(said, [wanted], force=True).score / 100
        assert METRICS["bleu"].function(said, wanted) == pytest.approx(truth, abs=1e-12)
    assert METRICS["bleu"].function(["a b c d e f"], ["a b c x e f"]) > 0.2


def counted_f1(prediction: str, reference: str, n: int) -> float:
    """ROUGE-N by the book: each n-gram of the one struck out of a list of the other's."""
    said, wanted = (
        "".join(c if c.isalnum() else " " for c in text.lower()).split()
        for text in (prediction, reference)
    )
    mine = [said[i : i + n] for i in range(len(said) - n + 1)]
    left = theirs = [wanted[i : i + n] for i in range(len(wanted) - n + 1)]
    left, shared = list(left), 0
    for ngram in mine:
        if ngram in left:
            left.remove(ngram)
            shared += 1
    if not shared:
        return float(not said and not wanted)
    precision, recall = shared / len(mine), shared / len(theirs)
    return 2 * precision * recall / (precision + recall)


@pytest.mark.parametrize(("name", "n"), [("rouge_1", 1), ("rouge_2", 2)])
@settings(deadline=None)
@given(rows=st.lists(st.tuples(WORDY, WORDY), min_size=1, max_size=6))
def test_rouge_n_equals_brute_force(name: str, n: int, rows: list[tuple[str, str]]) -> None:
    truth = np.mean([counted_f1(*row, n) for row in rows])
    assert METRICS[name].function(*columns(rows)) == pytest.approx(truth, abs=1e-12)


ASCII = st.text("ab c_.,7'\n-", max_size=20)


@settings(deadline=None)
@given(ASCII, ASCII)
def test_rouge_equals_rouge_score(prediction: str, reference: str) -> None:
    scorer = pytest.importorskip("rouge_score.rouge_scorer", reason="rouge-score is not installed")
    names = {"rouge1": "rouge_1", "rouge2": "rouge_2", "rougeL": "rouge_l"}
    theirs = scorer.RougeScorer(list(names)).score(reference, prediction)
    if not any(c.isalnum() for c in prediction + reference):
        return  # two texts without words: theirs is 0, ours 1, as an empty answer may be right
    for name, mine in names.items():
        assert METRICS[mine].function([prediction], [reference]) == pytest.approx(
            theirs[name].fmeasure
        )


@settings(deadline=None)
@given(text_pairs)
def test_rouge_l_equals_the_textbook_table(rows: list[tuple[str, str]]) -> None:
    import re

    def f1(prediction: str, reference: str) -> float:
        x, y = (re.findall(r"\w+", t.lower()) for t in (prediction, reference))
        if not x and not y:
            return 1.0
        table = [[0] * (len(y) + 1) for _ in range(len(x) + 1)]
        for i in range(len(x)):
            for j in range(len(y)):
                longest = max(table[i][j + 1], table[i + 1][j])
                table[i + 1][j + 1] = table[i][j] + 1 if x[i] == y[j] else longest
        common = table[-1][-1]
        if common == 0:
            return 0.0
        precision, recall = common / len(x), common / len(y)
        return 2 * precision * recall / (precision + recall)

    predictions, references = columns(rows)
    truth = np.mean([f1(*row) for row in rows])
    assert METRICS["rouge_l"].function(predictions, references) == pytest.approx(truth)


def test_rouge_l_example_of_lin_2004() -> None:
    # Section 3.1: "police killed the gunman" against "police kill the gunman" shares 3 of 4 words,
    # against "the gunman kill police" 2 of 4.
    rouge_l = METRICS["rouge_l"].function
    assert rouge_l(["police kill the gunman"], ["police killed the gunman"]) == 0.75
    assert rouge_l(["the gunman kill police"], ["police killed the gunman"]) == 0.5


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The  Cat.", "cat"),
        ("an apple, a day", "apple day"),
        ("Another theatre", "another theatre"),
        ("U.S.A.", "usa"),
        ("...", ""),
        ("\tÉtude\n", "étude"),
    ],
)
def test_squad_normalisation(text: str, normal: str) -> None:
    assert normalise(text) == normal


@pytest.mark.parametrize(
    ("prediction", "reference", "exact", "f1"),
    [
        ("The Norman Conquest", "norman conquest!", 1.0, 1.0),
        ("in 1066 AD", "1066", 0.0, 0.5),
        ("Paris", "London", 0.0, 0.0),
        ("cat cat", "cat dog", 0.0, 0.5),
        ("", "", 1.0, 1.0),
        ("the", "...", 1.0, 1.0),
        ("", "word", 0.0, 0.0),
    ],
)
def test_squad_scores(prediction: str, reference: str, exact: float, f1: float) -> None:
    assert METRICS["exact_match"].function([prediction], [reference]) == exact
    assert METRICS["token_f1"].function([prediction], [reference]) == pytest.approx(f1)


@settings(deadline=None)
@given(text_pairs)
def test_every_metric_is_bounded_perfect_on_itself_and_consistent(
    rows: list[tuple[str, str]],
) -> None:
    predictions, references = columns(rows)
    of_answers = [m for m in METRICS.values() if m.kinds != ("language-model",)]
    for metric in of_answers:
        value = metric.function(predictions, references)
        assert -1 <= value <= 1 and not np.isnan(value), metric.name
        if metric.per_row is not None:
            scores = metric.per_row(predictions, references)
            assert scores.dtype == np.float64 and scores.shape == (len(rows),)
            assert value == pytest.approx(scores.mean())
    words = [f"word{i} is one of many" for i in range(len(rows) + 1)]  # BLEU wants four words
    for metric in of_answers:
        assert metric.function(words, words) == pytest.approx(1.0), metric.name


def test_language_models_are_judged_over_all_text_and_not_by_the_document() -> None:
    costs = [Likelihood(12.0, 4, 20), Likelihood(3.0, 6, 10)]
    said, nothing = [str(cost) for cost in costs], ["", ""]
    assert METRICS["neg_perplexity"].function(said, nothing) == pytest.approx(-np.exp(1.5))
    bits = METRICS["neg_bits_per_byte"].function(said, nothing)
    assert bits == pytest.approx(-15 / 30 / np.log(2))
    # A model that finds each of 256 bytes as likely takes eight bits a byte.
    plain = str(Likelihood(5 * np.log(256), 1, 5))
    assert METRICS["neg_bits_per_byte"].function([plain], [""]) == pytest.approx(-8)
    assert [Likelihood.read(text) for text in said] == costs
    with pytest.raises(ConfigError, match="does not say how likely a document is"):
        METRICS["neg_perplexity"].function(["hello"], [""])


def test_the_table_is_whole() -> None:
    assert set(METRICS) == {
        "accuracy", "micro_f1", "macro_f1", "mcc", "exact_match", "token_f1", "rouge_l", "chrf",
        "rouge_1", "rouge_2", "bleu", "neg_bits_per_byte", "neg_perplexity",
    }  # fmt: skip
    assert all(name == metric.name for name, metric in METRICS.items())
    for kind, name in DEFAULT_METRIC.items():
        assert find_metric(name, kind) is METRICS[name]


def test_what_says_the_same_twice_is_not_told_beside() -> None:
    assert [name for name, metric in METRICS.items() if not metric.beside] == ["micro_f1"]


def test_unknown_names_suggest_near_ones() -> None:
    with pytest.raises(ConfigError, match=r"no metric 'acuracy'; did you mean 'accuracy'\?"):
        find_metric("acuracy", "classify")
    with pytest.raises(ConfigError, match="exact_match, token_f1, rouge_l, chrf"):
        find_metric("zzz", "generate")
    with pytest.raises(ConfigError, match="'accuracy' does not fit tasks of kind 'generate'"):
        find_metric("accuracy", "generate")


@pytest.mark.parametrize("name", METRICS)
def test_rows_that_do_not_match_are_refused(name: str) -> None:
    with pytest.raises(DataError, match="differ in length: 2, 1"):
        METRICS[name].function(["a", "b"], ["a"])
    with pytest.raises(DataError, match="no rows"):
        METRICS[name].function([], [])


def test_custom_metrics() -> None:
    def starts_alike(predictions: list[str], references: list[str]) -> float:
        same = sum(p[:1] == r[:1] for p, r in zip(predictions, references, strict=True))
        return same / len(references)

    metric = custom_metric("my.module:starts_alike", starts_alike)
    assert metric.function(["ab", "c"], ["ax", "d"]) == 0.5
    assert metric.kinds == ("classify", "generate")
    with pytest.raises(DataError):
        metric.function([], [])
    for bad in (float("nan"), None, "high"):
        broken = custom_metric("broken", lambda p, r, bad=bad: bad)  # type: ignore[misc]
        with pytest.raises(ConfigError, match=r"'broken' gave .* not a finite number"):
            broken.function(["a"], ["a"])
