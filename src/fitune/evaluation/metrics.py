"""The metrics, by name.

Knows which there are and which fit a kind of task; knows nothing of how each is computed, or of
models, files and intervals.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import replace

from fitune.errors import ConfigError
from fitune.evaluation.labels import confusion_margins, macro_f1, mcc, right
from fitune.evaluation.likelihood import likelihoods, neg_bits_per_byte, neg_perplexity
from fitune.evaluation.metric import (
    Floats,
    Metric,
    Texts,
    check_lengths,
    custom_metric,
    mean_over_rows,
    sum_over_rows,
)
from fitune.evaluation.ngrams import bleu, bleu_counts, chrf, chrf_counts
from fitune.evaluation.words import exact_match, normalise, rouge_l, rouge_n, token_f1

__all__ = [
    "DEFAULT_METRIC",
    "METRICS",
    "Floats",
    "Metric",
    "Texts",
    "check_lengths",
    "custom_metric",
    "find_metric",
    "mean_over_rows",
    "normalise",
    "sum_over_rows",
]

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        mean_over_rows(
            "accuracy",
            ("classify",),
            right,
            "The share of rows whose label is right (for single labels, micro F1 is the same).",
        ),
        replace(
            mean_over_rows(
                "micro_f1",
                ("classify",),
                right,
                "F1 of all labels' decisions counted together: with one label a row, accuracy.",
            ),
            beside=False,  # the same figure twice would look like two
        ),
        sum_over_rows(
            "macro_f1",
            ("classify",),
            confusion_margins,
            macro_f1,
            "The mean over labels of the harmonic mean of precision and recall: rare labels count "
            "as much as common ones.",
        ),
        sum_over_rows(
            "mcc",
            ("classify",),
            confusion_margins,
            mcc,
            "Matthews correlation for any number of labels (Gorodkin 2004): 1 is perfect, 0 is no "
            "better than ignoring the text.",
        ),
        mean_over_rows(
            "exact_match",
            ("generate",),
            exact_match,
            "The share of answers equal to the reference after SQuAD's normalisation.",
        ),
        mean_over_rows(
            "token_f1",
            ("generate",),
            token_f1,
            "The mean F1 of words shared with the reference, normalised as SQuAD 2.0 does.",
        ),
        mean_over_rows(
            "rouge_l",
            ("generate",),
            rouge_l,
            "The mean F1 of the longest common subsequence of words (Lin 2004, section 3.1).",
        ),
        sum_over_rows(
            "chrf",
            ("generate",),
            chrf_counts,
            chrf,
            "chrF2 over character n-grams up to 6, as sacrebleu's corpus score, from 0 to 1 "
            "(Popović 2015); suits languages written without spaces.",
        ),
        mean_over_rows(
            "rouge_1",
            ("generate",),
            rouge_n(1),
            "The mean F1 of words shared with the reference (Lin 2004, section 2).",
        ),
        mean_over_rows(
            "rouge_2",
            ("generate",),
            rouge_n(2),
            "The mean F1 of pairs of neighbouring words shared with the reference (Lin 2004, "
            "section 2); answers of one word score 0.",
        ),
        sum_over_rows(
            "bleu",
            ("generate",),
            bleu_counts,
            bleu,
            "BLEU over n-grams of words up to 4, as sacrebleu's corpus score, from 0 to 1 "
            "(Papineni et al. 2002); for answers of a sentence or more.",
        ),
        sum_over_rows(
            "neg_bits_per_byte",
            ("language-model",),
            likelihoods,
            neg_bits_per_byte,
            "Minus the bits that a byte of text costs, as metrics are higher where better: "
            "comparable between models of different tokens.",
        ),
        sum_over_rows(
            "neg_perplexity",
            ("language-model",),
            likelihoods,
            neg_perplexity,
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


def find_metric(name: str, kind: str, others: Sequence[str] = ()) -> Metric:
    """The metric of that name, for tasks of that kind.

    Args:
        others: names of metrics that are made elsewhere, told in the error.

    Raises:
        ConfigError: no such metric, with near names; or it is not for this kind.
    """
    fitting = [metric.name for metric in METRICS.values() if kind in metric.kinds]
    fitting += others
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
