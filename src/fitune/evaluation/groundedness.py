"""Whether an answer says only what the passages say that its model was shown.

Knows texts; knows nothing of models, retrieval or files. What it counts are words: an answer made
of the passages' words may still be wrong, and one in other words may be right. So these figures
show where to look, and do not judge.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from fitune.evaluation.words import normalise

_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_SENTENCE = re.compile(r"[^.!?:\n]*(?:[.!?:](?=\S)[^.!?:\n]*)*")
_WORD = re.compile(r"[^\W\d_]+(?:['’.-][^\W\d_]+)*")


@dataclass(frozen=True)
class Unsupported:
    """What an answer says that is not in what its model was shown, in order, each once.

    Attributes:
        numbers: as written in the answer.
        names: runs of capitalised words, as written.
    """

    numbers: tuple[str, ...]
    names: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.numbers or self.names)


def k_precision(answer: str, passages: Sequence[str]) -> float:
    """The share of the answer's words that occur in the passages, each counted at most as often as
    it occurs there; words are normalised as SQuAD does (Adlakha et al. 2023, arXiv:2307.16877,
    section 4.2). An answer without words scores 0."""
    said = Counter(normalise(answer).split())
    shown = Counter(normalise("\n".join(passages)).split())
    return (said & shown).total() / said.total() if said else 0.0


def unsupported(answer: str, shown: Sequence[str]) -> Unsupported:
    """Numbers and names of an answer that occur nowhere in `shown`: passages and the question.

    Numbers are the same where their digits are: 1,066 and 1066, 2.50 and 2.5. A name is a run of
    capitalised words; where one word alone begins a sentence that goes on in small letters it is
    taken for an ordinary word, so that names in such a place, and names in scripts without
    capitals, are not seen. A name is in `shown` if each of its words is, in any case.
    """
    text = "\n".join(shown)
    known_numbers = {_digits(number) for number in _NUMBER.findall(text)}
    known_words = {_plain(word) for found in _WORD.findall(text) for word in _parts(found)}
    numbers = [n for n in _NUMBER.findall(answer) if _digits(n) not in known_numbers]
    names = [
        name
        for sentence in _SENTENCE.findall(answer)
        for name in _names(sentence)
        if any(_plain(word) not in known_words for word in _parts(name))
    ]
    return Unsupported(tuple(dict.fromkeys(numbers)), tuple(dict.fromkeys(names)))


def _names(sentence: str) -> list[str]:
    """Runs of capitalised words."""
    runs: list[list[re.Match[str]]] = []
    words = list(_WORD.finditer(sentence))
    for before, word in zip([None, *words], words, strict=False):
        if not word[0][0].isupper() or word[0] in ("I", "A"):
            continue
        neighbour = before is not None and sentence[before.end() : word.start()].isspace()
        if neighbour and runs and runs[-1][-1] is before:
            runs[-1].append(word)
        else:
            runs.append([word])
    first_is_ordinary = any(word[0][0].islower() for word in words)
    if runs and len(runs[0]) == 1 and runs[0][0] is words[0] and first_is_ordinary:
        del runs[0]
    return [sentence[run[0].start() : run[-1].end()] for run in runs]


def _parts(name: str) -> list[str]:
    """The words of a name, hyphens apart and without a possessive s."""
    words = re.split(r"[\s-]+", name)
    return [re.sub(r"['’]s$", "", word) for word in words if word]


def _plain(word: str) -> str:
    """Small letters without accents and full stops: Zürich and ZURICH, U.S. and US."""
    letters = unicodedata.normalize("NFKD", word.casefold())
    return "".join(c for c in letters if not unicodedata.combining(c) and c not in ".’'")


def _digits(number: str) -> str:
    """A number without what may be written in another way: commas, zeros at its ends."""
    whole, _, fraction = number.replace(",", "").partition(".")
    fraction = fraction.rstrip("0")
    return f"{whole.lstrip('0') or '0'}.{fraction}" if fraction else whole.lstrip("0") or "0"
