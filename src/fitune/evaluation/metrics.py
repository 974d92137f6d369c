"""The metrics: from predictions and references to one number, higher is better.

Knows strings and counts; knows nothing of models, files or intervals. Every metric here is a sum of
per-row statistics followed by a formula (accuracy: one column and a mean; macro F1: the margins of
the confusion matrix; chrF: n-gram counts). That is why one bootstrap serves them all, at the price
of a matrix product instead of 10,000 evaluations.
"""

from __future__ import annotations

import difflib
import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fitune.errors import ConfigError, DataError, FituneError
from fitune.evaluation.likelihood import Likelihood

Texts = Sequence[str]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Metric:
    """One way of judging answers. Higher is better, always.

    Attributes:
        name: as written in a task file.
        kinds: the task kinds it fits.
        description: one sentence for people.
        function: (predictions, references) → the metric. Raises DataError when the two differ in
            length or are empty.
        per_row: (predictions, references) → float64 [rows] whose mean is the metric; None where the
            metric is not a mean over rows.
        statistics: (predictions, references) → float64 [rows, d], to be summed over rows; None only
            for a user's own function.
        formula: (sums float64 [..., d], rows) → float64 [...]: the metric from the summed
            statistics of so many rows.
    """

    name: str
    kinds: tuple[str, ...]
    description: str
    function: Callable[[Texts, Texts], float]
    per_row: Callable[[Texts, Texts], Floats] | None = None
    statistics: Callable[[Texts, Texts], Floats] | None = None
    formula: Callable[[Floats, int], Floats] | None = None


def mean_over_rows(
    name: str, kinds: tuple[str, ...], per_row: Callable[[Texts, Texts], Floats], description: str
) -> Metric:
    """A metric that is the mean of one score a row."""
    return sum_over_rows(
        name,
        kinds,
        lambda predictions, references: per_row(predictions, references)[:, None],
        lambda sums, rows: sums[..., 0] / rows,
        description,
        per_row,
    )


def sum_over_rows(
    name: str,
    kinds: tuple[str, ...],
    statistics: Callable[[Texts, Texts], Floats],
    formula: Callable[[Floats, int], Floats],
    description: str,
    per_row: Callable[[Texts, Texts], Floats] | None = None,
) -> Metric:
    """A metric that is a formula of statistics summed over rows."""

    def function(predictions: Texts, references: Texts) -> float:
        rows = check_lengths(predictions, references)
        return float(formula(statistics(predictions, references).sum(axis=0), rows))

    return Metric(name, kinds, description, function, per_row, statistics, formula)


def custom_metric(
    name: str, function: Callable[[Texts, Texts], float], kinds: tuple[str, ...] = ()
) -> Metric:
    """A user's own function (predictions, references) → float, higher is better.

    Its intervals cost one call a resample, so 1,000 resamples are drawn instead of 10,000.
    """

    def checked(predictions: Texts, references: Texts) -> float:
        check_lengths(predictions, references)
        try:
            value = function(predictions, references)
        except FituneError:
            raise
        except Exception as error:
            raise ConfigError(
                f"the metric '{name}' failed ({type(error).__name__}: {error})",
                fix="let it return a float for any (predictions, references)",
            ) from error
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = float("nan")
        if not np.isfinite(number):
            raise ConfigError(
                f"the metric '{name}' gave {value!r}, which is not a finite number",
                fix="let it return a float for any rows",
            )
        return number

    return Metric(name, kinds or ("classify", "generate"), f"The function {name}.", checked)


def check_lengths(*columns: Texts) -> int:
    """The common length of all columns; DataError when they differ or hold no row."""
    lengths = [len(column) for column in columns]
    if len(set(lengths)) != 1:
        raise DataError(
            f"predictions and references differ in length: {', '.join(map(str, lengths))}",
            fix="give one prediction for each reference, in the same order",
        )
    if lengths[0] == 0:
        raise DataError("there are no rows to score", fix="give at least one row with an answer")
    return lengths[0]


def find_metric(name: str, kind: str) -> Metric:
    """The metric of that name, for tasks of that kind. ConfigError otherwise, with near names."""
    fitting = [metric.name for metric in METRICS.values() if kind in metric.kinds]
    if name not in METRICS:
        near = difflib.get_close_matches(name, fitting, n=2, cutoff=0.5)
        hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
        raise ConfigError(
            f"there is no metric '{name}'",
            fix=f"{hint}For {kind} use one of: {', '.join(fitting)}",
        )
    if kind not in METRICS[name].kinds:
        raise ConfigError(
            f"the metric '{name}' does not fit tasks of kind '{kind}'",
            fix=f"use one of: {', '.join(fitting)}",
        )
    return METRICS[name]


# ── classify ─────────────────────────────────────────────────────────────────────────────────────


def _right(predictions: Texts, references: Texts) -> Floats:
    return np.fromiter(map(str.__eq__, predictions, references), np.float64, len(references))


def _confusion_margins(predictions: Texts, references: Texts) -> Floats:
    """[rows, 3 × labels]: right, predicted and true, one column a label that occurs at all."""
    labels = {label: i for i, label in enumerate(sorted({*predictions, *references}))}
    predicted = np.array([labels[p] for p in predictions])
    true = np.array([labels[r] for r in references])
    rows = np.arange(len(true))
    margins = np.zeros((len(true), 3, len(labels)))
    margins[rows, 0, true] = predicted == true
    margins[rows, 1, predicted] = 1
    margins[rows, 2, true] = 1
    return margins.reshape(len(true), -1)


def _macro_f1(sums: Floats, rows: int) -> Floats:
    right, predicted, true = np.split(sums, 3, axis=-1)
    occurs = predicted + true  # zero for a label that is absent from this resample: left out
    f1 = np.divide(2 * right, occurs, out=np.zeros_like(occurs), where=occurs > 0)
    mean: Floats = f1.sum(axis=-1) / (occurs > 0).sum(axis=-1)
    return mean


def _mcc(sums: Floats, rows: int) -> Floats:
    right, predicted, true = np.split(sums, 3, axis=-1)
    covariance = right.sum(axis=-1) * rows - (predicted * true).sum(axis=-1)
    # whole numbers, so exactly 0 when one side names a single label: then 0, as scikit-learn
    spread = np.sqrt(rows**2 - (predicted**2).sum(axis=-1)) * np.sqrt(
        rows**2 - (true**2).sum(axis=-1)
    )
    return np.divide(covariance, spread, out=np.zeros_like(covariance), where=spread > 0)


# ── generate ─────────────────────────────────────────────────────────────────────────────────────

_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalise(text: str) -> str:
    """SQuAD's answer normalisation (Rajpurkar et al. 2016, section 6.1): lower case, without ASCII
    punctuation, without the articles a, an, the, and with single spaces."""
    bare = re.sub(r"\b(a|an|the)\b", " ", text.lower().translate(_PUNCTUATION))
    return " ".join(bare.split())


def _exact_match(predictions: Texts, references: Texts) -> Floats:
    return _right([normalise(p) for p in predictions], [normalise(r) for r in references])


def _token_f1(predictions: Texts, references: Texts) -> Floats:
    def f1(prediction: str, reference: str) -> float:
        said, wanted = normalise(prediction).split(), normalise(reference).split()
        if not said or not wanted:
            return float(said == wanted)
        shared = sum((Counter(said) & Counter(wanted)).values())
        return 2 * shared / (len(said) + len(wanted))

    return np.array(list(map(f1, predictions, references)), dtype=np.float64)


def _rouge_l(predictions: Texts, references: Texts) -> Floats:
    from rapidfuzz.distance import LCSseq

    def f1(prediction: str, reference: str) -> float:
        said = re.findall(r"\w+", prediction.lower())
        wanted = re.findall(r"\w+", reference.lower())
        if not said or not wanted:
            return float(said == wanted)
        return 2 * LCSseq.similarity(said, wanted) / (len(said) + len(wanted))

    return np.array(list(map(f1, predictions, references)), dtype=np.float64)


CHRF_ORDER = 6
CHRF_BETA = 2


def _ngram_counts(predictions: Texts, references: Texts) -> Floats:
    """[rows, 3 × order]: n-grams of the prediction, of the reference, and shared, for each n."""
    from sacrebleu.metrics.helpers import extract_all_char_ngrams

    def counts(prediction: str, reference: str) -> list[list[int]]:
        said: Any = extract_all_char_ngrams(prediction, CHRF_ORDER)
        wanted: Any = extract_all_char_ngrams(reference, CHRF_ORDER)
        return [
            # a reference too short for this n says nothing about it
            [s.total() if w else 0 for s, w in zip(said, wanted, strict=True)],
            [w.total() for w in wanted],
            [(s & w).total() for s, w in zip(said, wanted, strict=True)],
        ]

    table = np.array(list(map(counts, predictions, references)), dtype=np.float64)
    return table.reshape(len(references), -1)


def _chrf(sums: Floats, rows: int) -> Floats:
    said, wanted, shared = np.split(sums, 3, axis=-1)
    usable = (said > 0) & (wanted > 0)
    orders = np.maximum(usable.sum(axis=-1), 1)

    def mean_share(of: Floats) -> Floats:
        share = np.divide(shared, of, out=np.zeros_like(shared), where=usable)
        mean: Floats = share.sum(axis=-1) / orders
        return mean

    precision, recall = mean_share(said), mean_share(wanted)
    weighted = CHRF_BETA**2 * precision + recall
    return np.divide(
        (1 + CHRF_BETA**2) * precision * recall,
        weighted,
        out=np.zeros_like(weighted),
        where=weighted > 0,
    )


# ── language-model ───────────────────────────────────────────────────────────────────────────────


def _likelihoods(predictions: Texts, references: Texts) -> Floats:
    """[rows, 3]: nats, tokens and bytes."""
    found = (Likelihood.read(prediction) for prediction in predictions)
    return np.array([[f.nats, f.tokens, f.bytes] for f in found], dtype=np.float64)


def _neg_perplexity(sums: Floats, rows: int) -> Floats:
    return -np.exp(sums[..., 0] / np.maximum(sums[..., 1], 1))


def _neg_bits_per_byte(sums: Floats, rows: int) -> Floats:
    return -sums[..., 0] / (np.maximum(sums[..., 2], 1) * np.log(2))


# ── all of them ──────────────────────────────────────────────────────────────────────────────────

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        mean_over_rows(
            "accuracy",
            ("classify",),
            _right,
            "The share of rows whose label is right (for single labels, micro F1 is the same).",
        ),
        sum_over_rows(
            "macro_f1",
            ("classify",),
            _confusion_margins,
            _macro_f1,
            "The mean over labels of the harmonic mean of precision and recall: rare labels count "
            "as much as common ones.",
        ),
        sum_over_rows(
            "mcc",
            ("classify",),
            _confusion_margins,
            _mcc,
            "Matthews correlation for any number of labels (Gorodkin 2004): 1 is perfect, 0 is no "
            "better than ignoring the text.",
        ),
        mean_over_rows(
            "exact_match",
            ("generate",),
            _exact_match,
            "The share of answers equal to the reference after SQuAD's normalisation.",
        ),
        mean_over_rows(
            "token_f1",
            ("generate",),
            _token_f1,
            "The mean F1 of words shared with the reference, normalised as SQuAD 2.0 does.",
        ),
        mean_over_rows(
            "rouge_l",
            ("generate",),
            _rouge_l,
            "The mean F1 of the longest common subsequence of words (Lin 2004, section 3.1).",
        ),
        sum_over_rows(
            "chrf",
            ("generate",),
            _ngram_counts,
            _chrf,
            "chrF2 over character n-grams up to 6, as sacrebleu's corpus score, from 0 to 1 "
            "(Popović 2015); suits languages written without spaces.",
        ),
        sum_over_rows(
            "neg_bits_per_byte",
            ("language-model",),
            _likelihoods,
            _neg_bits_per_byte,
            "Minus the bits that a byte of text costs, as metrics are higher where better: "
            "comparable between models of different tokens.",
        ),
        sum_over_rows(
            "neg_perplexity",
            ("language-model",),
            _likelihoods,
            _neg_perplexity,
            "Minus the perplexity per token, e to the mean nats: comparable only between models "
            "of the same tokens.",
        ),
    )
}
"""Every metric fitune knows, by name."""

DEFAULT_METRIC: dict[str, str] = {
    "classify": "accuracy",
    "generate": "token_f1",
    "language-model": "neg_bits_per_byte",
}
"""The metric of a task that names none, by kind."""
