"""How many words an answer shares with its reference, row by row.

Knows words; knows nothing of metrics, intervals or models.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable

import numpy as np

from fitune.evaluation.labels import right
from fitune.evaluation.metric import Floats, Texts

_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalise(text: str) -> str:
    """SQuAD's answer normalisation (Rajpurkar et al. 2016, section 6.1): lower case, without ASCII
    punctuation, without the articles a, an, the, and with single spaces."""
    bare = re.sub(r"\b(a|an|the)\b", " ", text.lower().translate(_PUNCTUATION))
    return " ".join(bare.split())


def exact_match(predictions: Texts, references: Texts) -> Floats:
    """1 where both are the same after `normalise`, else 0: float64 [rows]."""
    return right([normalise(p) for p in predictions], [normalise(r) for r in references])


def token_f1(predictions: Texts, references: Texts) -> Floats:
    """F1 of the normalised words, each counted as often as both have it: float64 [rows]."""

    def f1(prediction: str, reference: str) -> float:
        said, wanted = normalise(prediction).split(), normalise(reference).split()
        if not said or not wanted:
            return float(said == wanted)
        shared = sum((Counter(said) & Counter(wanted)).values())
        return 2 * shared / (len(said) + len(wanted))

    return np.array(list(map(f1, predictions, references)), dtype=np.float64)


def _words(text: str) -> list[str]:
    """Lower-cased runs of letters and digits of any script; of ASCII text the same as
    rouge-score's tokenizer without stemming."""
    return re.findall(r"[^\W_]+", text.lower())


def rouge_n(n: int) -> Callable[[Texts, Texts], Floats]:
    """F1 of runs of n words that answer and reference share (Lin 2004, section 2), each counted
    as often as both have it. 0 where neither has n words, unless both have none at all."""

    def f1(prediction: str, reference: str) -> float:
        said, wanted = _words(prediction), _words(reference)
        if not said or not wanted:
            return float(said == wanted)
        mine, theirs = (
            Counter(zip(*(words[i:] for i in range(n)), strict=False)) for words in (said, wanted)
        )
        both = mine.total() + theirs.total()
        return 2 * (mine & theirs).total() / both if both else 0.0

    def per_row(predictions: Texts, references: Texts) -> Floats:
        return np.array(list(map(f1, predictions, references)), dtype=np.float64)

    return per_row


def rouge_l(predictions: Texts, references: Texts) -> Floats:
    """F1 of the longest common subsequence of words (Lin 2004, section 3.1)."""
    from rapidfuzz.distance import LCSseq

    def f1(prediction: str, reference: str) -> float:
        said, wanted = _words(prediction), _words(reference)
        if not said or not wanted:
            return float(said == wanted)
        return 2 * LCSseq.similarity(said, wanted) / (len(said) + len(wanted))

    return np.array(list(map(f1, predictions, references)), dtype=np.float64)
