"""Scores over a whole set of answers from counts of n-grams: chrF and BLEU.

Knows n-grams, as sacrebleu makes them; knows nothing of metrics, intervals or models.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fitune.evaluation.metric import Floats, Texts

CHRF_ORDER = 6
CHRF_BETA = 2


def chrf_counts(predictions: Texts, references: Texts) -> Floats:
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


def chrf(sums: Floats, rows: int) -> Floats:
    """chrF (Popović 2015), as sacrebleu's corpus score: n-grams that the answers, or the
    references, have none of are left out of the means."""
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


BLEU_ORDER = 4


def bleu_counts(predictions: Texts, references: Texts) -> Floats:
    """[rows, 2 + 2 × order]: words of the prediction and of the reference, then for each n the
    n-grams that they share and those of the prediction. Words are sacrebleu's default, 13a."""
    from sacrebleu.metrics.helpers import extract_all_word_ngrams
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

    tokenize = Tokenizer13a()

    def counts(prediction: str, reference: str) -> list[int]:
        (said, length), (wanted, other_length) = (
            extract_all_word_ngrams(tokenize(text.rstrip()), 1, BLEU_ORDER)
            for text in (prediction, reference)
        )
        shared, total = [0] * BLEU_ORDER, [0] * BLEU_ORDER
        for ngram, count in said.items():
            total[len(ngram) - 1] += count
            shared[len(ngram) - 1] += min(count, wanted[ngram])
        return [length, other_length, *shared, *total]

    return np.array(list(map(counts, predictions, references)), dtype=np.float64)


def bleu(sums: Floats, rows: int) -> Floats:
    """BLEU (Papineni et al. 2002, section 2.3), as sacrebleu's corpus score.

    An order without a match counts as ½, ¼, … of one (method 3 of Chen and Cherry 2014); 0 where
    no word matches, or no answer is as long as the longest n-grams.
    """
    said, wanted = sums[..., 0], sums[..., 1]
    shared, total = np.split(sums[..., 2:], 2, axis=-1)
    defined = (shared.sum(axis=-1) > 0) & (total > 0).all(axis=-1)
    none = shared == 0
    matched = np.where(none, 0.5 ** np.cumsum(none, axis=-1), shared)
    precision = np.divide(matched, total, out=np.ones_like(matched), where=total > 0)
    longer = np.divide(wanted, said, out=np.ones_like(wanted), where=said > 0)
    brevity = np.exp(np.minimum(0.0, 1 - longer))
    score: Floats = brevity * np.exp(np.log(precision).mean(axis=-1)) * defined
    return score
