"""A small language in which it is known what is right: for probes that a corpus cannot answer.

Knows its words and its grammar; knows nothing of models. A sentence is

    the NOUN ADVERB* VERB on a PLACE

The verb agrees with the noun in number, over as many adverbs as stand between them, and the adverbs
say nothing of the number (after the long-distance agreement of Linzen et al., arXiv:1611.01368,
section 2). Each noun goes with each place but one, which is withheld: sentences with it are new,
and like those that were learned.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

NOUNS = ("cat", "dog", "bird", "horse", "boy", "girl", "king", "queen")
PLACES = ("table", "desk", "chair", "bench", "bed", "roof", "wall", "hill")
VERBS = (("sits", "sit"), ("stands", "stand"), ("sleeps", "sleep"), ("waits", "wait"))
"""(of one, of many)."""
ADVERBS = (
    *("now", "often", "still", "quietly", "really", "again", "perhaps", "always"),
    *("here", "gladly", "slowly", "then"),
)
LONGEST = 16
"""Adverbs in a sentence at most."""

WORDS = tuple(
    sorted({"the", "on", "a", *NOUNS, *(f"{noun}s" for noun in NOUNS), *PLACES, *ADVERBS})
    + sorted(form for verb in VERBS for form in verb)
)
_ID = {word: index for index, word in enumerate(WORDS)}


@dataclass(frozen=True)
class Sentence:
    """What a sentence is about.

    Attributes:
        noun, verb, place: indices of `NOUNS`, `VERBS` and `PLACES`.
        many: whether the noun is plural.
        adverbs: indices of `ADVERBS`.
    """

    noun: int
    many: bool
    adverbs: tuple[int, ...]
    verb: int
    place: int

    def words(self, *, agreeing: bool = True) -> list[str]:
        """Its words; with the verb of the other number where it should not agree."""
        verb = VERBS[self.verb][self.many == agreeing]
        noun = NOUNS[self.noun] + ("s" if self.many else "")
        adverbs = [ADVERBS[index] for index in self.adverbs]
        return ["the", noun, *adverbs, verb, "on", "a", PLACES[self.place]]

    @property
    def withheld(self) -> bool:
        """Whether no sentence that is learned has this noun in this place."""
        return self.place == self.noun


def encode(words: list[str]) -> np.ndarray:
    """Int32 ids of words of the language."""
    return np.asarray([_ID[word] for word in words], dtype=np.int32)


def draw(random: np.random.Generator, *, adverbs: int | None = None) -> Sentence:
    """Any sentence, one with a withheld place among them.

    Args:
        adverbs: how many; None: any number up to `LONGEST`, n of them 1 / (n + 1) times as often as
            none.
    """
    length = adverbs
    if length is None:
        shares = 1 / np.arange(1, LONGEST + 2)
        length = int(random.choice(LONGEST + 1, p=shares / shares.sum()))
    return Sentence(
        noun=int(random.integers(len(NOUNS))),
        many=bool(random.integers(2)),
        adverbs=tuple(int(index) for index in random.integers(len(ADVERBS), size=length)),
        verb=int(random.integers(len(VERBS))),
        place=int(random.integers(len(PLACES))),
    )


def learned_sentences(count: int, *, seed: int) -> list[Sentence]:
    """Sentences to learn from: none has a withheld place."""
    random = np.random.default_rng([seed, 0])
    found: list[Sentence] = []
    while len(found) < count:
        sentence = draw(random)
        if not sentence.withheld:
            found.append(sentence)
    return found
