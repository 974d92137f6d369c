"""A text → the terms that BM25 compares.

Knows scripts, stop words and stemmers; knows nothing of passages or scores.
"""

from __future__ import annotations

import functools
import importlib
import re
import unicodedata
from collections.abc import Callable, Sequence

from fitune.errors import ConfigError, MissingExtraError

_ENGLISH = (
    *("a", "an", "and", "are", "as", "at", "be", "but", "by", "for", "if", "in", "into", "is"),
    *("it", "no", "not", "of", "on", "or", "such", "that", "the", "their", "then", "there"),
    *("these", "they", "this", "to", "was", "will", "with"),
)

STOPWORDS: dict[str, frozenset[str]] = {"english": frozenset(_ENGLISH)}
"""Name → words that say nothing of what a text is about: those that Lucene leaves out of English
(`EnglishAnalyzer`, 9.0)."""

_ASCII = "".join(
    chr(code).lower() if chr(code).isalnum() or chr(code) == "_" else " " for code in range(128)
)
# Scripts that part no words: Thai, Lao, Burmese, Khmer, kana and Han.
_UNPARTED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff"


def terms(text: str) -> list[str]:
    """Words and numbers without regard to case, in order.

    Scripts that write words together give every two characters that follow each other, as Lucene's
    `CJKAnalyzer` does: without a dictionary, no cut between words is better than this.
    """
    if text.isascii():
        return text.translate(_ASCII).split()  # a third quicker than what it equals below
    text = unicodedata.normalize("NFKC", text).casefold()
    words, beyond = _patterns()
    if not beyond.search(text):
        return re.findall(r"\w+", text)
    found = []
    for match in words.finditer(text):
        word = match[0]
        if match.lastgroup == "unparted" and len(word) > 1:
            found += [word[i : i + 2] for i in range(len(word) - 1)]
        else:
            found.append(word)
    return found


@functools.cache
def _patterns() -> tuple[re.Pattern[str], re.Pattern[str]]:
    """A word of any script, and a character for which `\\w+` is not enough: of a script that parts
    no words, or a mark, such as a vowel of Hindi, at which `\\w+` would end a word."""
    marks = "".join(
        chr(code)
        for code in range(0x300, 0x10000)
        if unicodedata.category(chr(code)) in ("Mn", "Mc")
    )
    words = rf"(?P<unparted>[{_UNPARTED}]+)|(?:(?![{_UNPARTED}])[\w{marks}])+"
    return re.compile(words), re.compile(f"[{_UNPARTED}{marks}]")


def stop_words(named: str | Sequence[str]) -> frozenset[str]:
    """
    Raises:
        ConfigError: no list of that name.
    """
    if not isinstance(named, str):
        return frozenset(word.casefold() for word in named)
    if named not in STOPWORDS:
        raise ConfigError(
            f"there are no stop words '{named}'",
            fix=f"name {', '.join(STOPWORDS)}, or give the words as a list",
        )
    return STOPWORDS[named]


def stemmer(language: str | None) -> Callable[[list[str]], list[str]]:
    """Words → their stems, by Snowball's rules for `language`; None leaves them as they are.

    Raises:
        ConfigError: Snowball has no such language.
        MissingExtraError: PyStemmer is not installed.
    """
    if language is None:
        return list
    try:
        snowball = importlib.import_module("Stemmer")  # which has no types to import
    except ImportError as error:
        raise MissingExtraError("PyStemmer", extra="rag", purpose="stemming") from error
    if language not in snowball.algorithms():
        raise ConfigError(
            f"there is no stemmer for '{language}'",
            fix=f"use one of {', '.join(snowball.algorithms())}",
        )
    stems: Callable[[list[str]], list[str]] = snowball.Stemmer(language).stemWords
    return stems
