"""What people can see of a language model: what it says next, how far it remembers, and whether it
goes beyond what it read.

Knows language models and the small language; knows nothing of how a model is made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from fitune.language_models import LanguageModel
from fitune.language_models.small_language import (
    WORDS,
    Sentence,
    draw,
    encode,
    learned_sentences,
)

DISTANCES = (1, 2, 4, 8, 16)
"""Words between noun and verb."""

SENTENCES = 3_000
"""Of the small language, to learn from."""

ASKED = 200
"""Sentences of a probe, and of each distance."""


@dataclass(frozen=True)
class Probed:
    """What a model made of the small language.

    Attributes:
        agreement: words between noun and verb → share of sentences that are likelier with the verb
            in the right number than in the wrong one; 0.5 is chance.
        unseen: how much less likely than a place that was seen with a noun one is that was not,
            the geometric mean: 1 where the model makes no difference, 0 where it only knows what it
            read.
        scrambled: log10 of how much likelier an unseen sentence is than its words in any order,
            the mean.
        seconds: that learning took.
    """

    agreement: dict[int, float]
    unseen: float
    scrambled: float
    seconds: float


def learn_small_language(
    make: Callable[[int], LanguageModel], *, seed: int, clock: Callable[[], float]
) -> Probed:
    """A new model, taught the small language and asked.

    Args:
        make: a number of tokens → a model that has learned nothing.
        clock: seconds.
    """
    model = make(len(WORDS))
    sentences = [encode(sentence.words()) for sentence in learned_sentences(SENTENCES, seed=seed)]
    held_out = len(sentences) // 10
    started = clock()
    model.fit(sentences[held_out:], sentences[:held_out])
    seconds = clock() - started
    known = {sentence.tobytes() for sentence in sentences}
    random = np.random.default_rng([seed, 1])
    return Probed(
        agreement={n: _agreement(model, _new(random, known, n)) for n in DISTANCES},
        unseen=_unseen(model, random),
        scrambled=_scrambled(model, random),
        seconds=seconds,
    )


def _new(random: np.random.Generator, known: set[bytes], adverbs: int) -> list[Sentence]:
    """Sentences that were not learned."""
    found: list[Sentence] = []
    while len(found) < ASKED:
        sentence = draw(random, adverbs=adverbs)
        if encode(sentence.words()).tobytes() not in known:
            found.append(sentence)
    return found


def _agreement(model: LanguageModel, sentences: Sequence[Sentence]) -> float:
    right = _totals(model, [s.words() for s in sentences])
    wrong = _totals(model, [s.words(agreeing=False) for s in sentences])
    # Rounding is no knowledge: what differs by less is a tie, which is right half of the time.
    return float(np.where(np.abs(right - wrong) < 1e-6, 0.5, right > wrong).mean())


def _unseen(model: LanguageModel, random: np.random.Generator) -> float:
    """The place is the last word, so that nothing else differs; without adverbs, so that a model
    that looks at five words sees the noun."""
    seen, unseen = [], []
    for _ in range(ASKED):
        sentence = draw(random, adverbs=0).words()
        noun = sentence[1].removesuffix("s")
        places = _places(noun)
        unseen.append([*sentence[:-1], places[0]])
        seen.append([*sentence[:-1], places[1 + int(random.integers(len(places) - 1))]])
    return float(np.exp((_totals(model, unseen) - _totals(model, seen)).mean()))


def _places(noun: str) -> list[str]:
    """The withheld place, then the others."""
    from fitune.language_models.small_language import NOUNS, PLACES

    withheld = NOUNS.index(noun)
    return [PLACES[withheld], *(p for i, p in enumerate(PLACES) if i != withheld)]


def _scrambled(model: LanguageModel, random: np.random.Generator) -> float:
    sentences: list[list[str]] = []
    while len(sentences) < ASKED:
        sentence = draw(random, adverbs=1)
        if sentence.withheld:
            sentences.append(sentence.words())
    orders = [[words[i] for i in random.permutation(len(words))] for words in sentences]
    return float((_totals(model, sentences) - _totals(model, orders)).mean() / np.log(10))


def _totals(model: LanguageModel, sentences: Sequence[list[str]]) -> np.ndarray:
    """Log-probability of each sentence, its end included."""
    found = model.log_probabilities([encode(words) for words in sentences])
    return np.asarray([float(each.sum()) for each in found])


def likeliest(
    model: LanguageModel, prefix: Sequence[int], count: int = 5
) -> list[tuple[int, float]]:
    """The `count` likeliest tokens after `prefix` with their probabilities, likeliest first; the
    end of the sequence is the number after the last token's."""
    probabilities = model.next_distribution(prefix)
    best = np.argsort(-probabilities, kind="stable")[:count]
    return [(int(token), float(probabilities[token])) for token in best]
