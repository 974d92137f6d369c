"""Citations: read where they are, and nothing else is touched."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fitune.approaches.citations import read_citations


@pytest.mark.parametrize(
    ("answer", "text", "numbers"),
    [
        ("Paris [2]", "Paris", {2}),
        ("Paris [1][3].", "Paris.", {1, 3}),
        ("Paris [1, 2] and Rome [ 3 ]", "Paris and Rome", {1, 2, 3}),
        ("[1] Paris", "Paris", {1}),
        ("Paris", "Paris", set()),
        ("in [1999]", "in [1999]", set()),
        ("Paris [4]", "Paris [4]", set()),  # there are three
        ("Paris [0]", "Paris [0]", set()),
        ("Paris [1, 9]", "Paris [1, 9]", set()),
        ("a[b] []", "a[b] []", set()),
        ("[2]", "", {2}),
    ],
)
def test_by_hand(answer: str, text: str, numbers: set[int]) -> None:
    assert read_citations(answer, 3) == (text, numbers)


def test_without_passages_nothing_is_cited() -> None:
    assert read_citations("Paris [1]", 0) == ("Paris [1]", frozenset())


WORDS = st.lists(st.sampled_from(["sky", "is", "blue,", "x[y]", "[77]"]), min_size=1)


@given(WORDS, st.lists(st.integers(1, 9), max_size=5))
def test_what_was_put_in_comes_out(words: list[str], numbers: list[int]) -> None:
    answer = " ".join(words) + "".join(f" [{number}]" for number in numbers)
    assert read_citations(answer, 9) == (" ".join(words), frozenset(numbers))
