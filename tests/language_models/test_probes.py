"""The small language and what is asked of models that were taught it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

import numpy as np
import pytest

from fitune.language_models.ngram import NGram
from fitune.language_models.probes import (
    ASKED,
    DISTANCES,
    SENTENCES,
    learn_small_language,
    likeliest,
)
from fitune.language_models.small_language import (
    ADVERBS,
    LONGEST,
    NOUNS,
    PLACES,
    VERBS,
    WORDS,
    encode,
    learned_sentences,
)


def test_sentences_agree_and_withhold_one_place_a_noun() -> None:
    learned = [sentence.words() for sentence in learned_sentences(2_000, seed=0)]
    pairs = set()
    for words in learned:
        the, noun, *adverbs, verb, on, a, place = words
        assert (the, on, a) == ("the", "on", "a") and set(adverbs) <= set(ADVERBS)
        assert len(adverbs) <= LONGEST
        many = noun.endswith("s")
        assert verb in [forms[many] for forms in VERBS]
        pairs.add((noun.removesuffix("s"), place))
    assert len(NOUNS) == len(PLACES)
    withheld = set(zip(NOUNS, PLACES, strict=True))
    assert pairs == {(n, p) for n in NOUNS for p in PLACES} - withheld
    lengths = [len(words) - 6 for words in learned]
    assert min(lengths) == 0 and max(lengths) == LONGEST and np.mean(lengths) < 6


def test_a_wrong_sentence_differs_in_the_verb_alone() -> None:
    for sentence in learned_sentences(50, seed=1):
        right, wrong = sentence.words(), sentence.words(agreeing=False)
        different = [(a, b) for a, b in zip(right, wrong, strict=True) if a != b]
        assert len(different) == 1 and sorted(different[0], key=len) in [
            sorted(forms, key=len) for forms in VERBS
        ]


class Knowing:
    """A model that knows what it is told: the verb's number, the places, or nothing.

    Args:
        reach: words from the noun to the verb over which it remembers the number.
    """

    parameters = 0

    def __init__(self, reach: int, *, withheld: float = 1.0, order: float = 0.0) -> None:
        self.reach, self.withheld, self.order = reach, withheld, order
        self.taught: Sequence[np.ndarray] = ()

    def fit(self, train, validation=()) -> None:
        self.taught = [*train, *validation]

    def log_probabilities(self, sequences):
        return [np.asarray([self._total([WORDS[i] for i in ids])]) for ids in sequences]

    def _total(self, words: list[str]) -> float:
        ordered = words[0] == "the" and words[-3] == "on"
        total = self.order * ordered
        if not ordered:
            return total
        noun, verb, place = words[1], words[-4], words[-1]
        number = verb in [forms[noun.endswith("s")] for forms in VERBS]
        if number and len(words) - 6 <= self.reach:
            total += 1.0
        singular = noun.removesuffix("s")
        if singular in NOUNS and PLACES[NOUNS.index(singular)] == place:
            total += np.log(self.withheld)
        return total


def test_what_is_known_is_measured() -> None:
    model = Knowing(reach=4, withheld=0.25, order=np.log(1000))
    probed = learn_small_language(
        lambda words: model if words == len(WORDS) else None,  # type: ignore[arg-type,return-value]
        seed=0,
        clock=count().__next__,
    )
    assert len(model.taught) == SENTENCES and ASKED >= 100
    assert probed.agreement == {n: (1.0 if n <= 4 else 0.5) for n in DISTANCES}
    assert probed.unseen == pytest.approx(0.25)
    # The withheld place costs a factor of 4, and any order may by chance be a sentence.
    assert probed.scrambled == pytest.approx(3 - np.log10(4), abs=0.4)
    assert probed.seconds == 1


def test_an_ngram_forgets_the_noun_beyond_its_order() -> None:
    probed = learn_small_language(
        lambda words: NGram(words, order=5), seed=0, clock=count().__next__
    )
    assert probed.agreement[1] > 0.6
    # Beyond, both verbs have the same context; which one is likelier was chance.
    assert all(0.35 < probed.agreement[n] < 0.65 for n in (4, 8, 16))
    assert 0 < probed.unseen < 0.9 and probed.scrambled > 5


def test_likeliest_are_in_order_and_true() -> None:
    model = NGram(len(WORDS), order=3)
    model.fit([encode(sentence.words()) for sentence in learned_sentences(500, seed=0)])
    found = likeliest(model, encode(["the", "cat"]).tolist(), 5)
    distribution = model.next_distribution(encode(["the", "cat"]).tolist())
    assert [p for _, p in found] == sorted(distribution, reverse=True)[:5]
    assert all(distribution[token] == p for token, p in found)
