"""Passage numbers in an answer: asked for, read, and taken out of it.

Knows texts; knows nothing of models or of what the passages say.
"""

from __future__ import annotations

import re

ASKED = "After it, name the passage that says so by its number, such as [1]."
"""Added to an instruction."""

_NUMBERS = re.compile(r"\s*\[\s*(\d{1,4}(?:\s*[,;]\s*\d{1,4})*)\s*\]")
"""``[2]``, ``[1, 3]``, and the white space before it."""


def read_citations(answer: str, passages: int) -> tuple[str, frozenset[int]]:
    """An answer without its citations, and the numbers it names.

    A bracket is a citation if every number in it is that of a passage, from 1 to `passages`; others
    stay where they are: they are a part of the answer, or a source that it made up.
    """
    cited: set[int] = set()

    def take(match: re.Match[str]) -> str:
        numbers = {int(number) for number in re.findall(r"\d+", match[1])}
        if not all(1 <= number <= passages for number in numbers):
            return match[0]
        cited.update(numbers)
        return ""

    return _NUMBERS.sub(take, answer).strip(), frozenset(cited)
