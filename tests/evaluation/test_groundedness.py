"""Groundedness against counting by hand, and what of an answer is not in what was shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fitune.evaluation.groundedness import k_precision, unsupported

NORMANS = (
    "The Normans gave their name to Normandy, a region in France. In 1066 they conquered England "
    "under William; some 1,500 ships and 2.50 tons of grain crossed. Élodie-Anne O'Hara tells it."
)


@pytest.mark.parametrize(
    ("answer", "passages", "share"),
    [
        ("Normandy", [NORMANS], 1.0),
        ("the region in France!", [NORMANS], 1.0),
        ("a region in Spain", [NORMANS], 2 / 3),
        ("Spain", [NORMANS], 0.0),
        ("in in in in", ["in, and in"], 0.5),
        ("in and out", ["in", "and"], 2 / 3),
        ("", [NORMANS], 0.0),
        ("the", [NORMANS], 0.0),
        ("France", [], 0.0),
    ],
)
def test_k_precision(answer: str, passages: list[str], share: float) -> None:
    assert k_precision(answer, passages) == pytest.approx(share)


@given(st.lists(st.sampled_from("xyz"), max_size=6), st.lists(st.sampled_from("xyz"), max_size=6))
def test_k_precision_strikes_words_out(answer: list[str], passage: list[str]) -> None:
    left, found = list(passage), 0
    for word in answer:
        if word in left:
            left.remove(word)
            found += 1
    share = found / len(answer) if answer else 0.0
    assert k_precision(" ".join(answer), [" ".join(passage)]) == pytest.approx(share)


@pytest.mark.parametrize(
    ("answer", "numbers", "names"),
    [
        ("Normandy", (), ()),
        ("NORMANDY", (), ()),
        ("Spain", (), ("Spain",)),
        ("Spain.", (), ("Spain",)),
        ("It was conquered by William of Normandy in 1066.", (), ()),
        ("It was conquered by Harold Godwinson in 1067.", ("1067",), ("Harold Godwinson",)),
        ("William Rufus", (), ("William Rufus",)),
        ("about 1500 ships and 2.5 tons", (), ()),
        ("about 15 ships, 15 tons, and 2.05", ("15", "2.05"), ()),
        ("The Vikings came. Later they left Iceland.", (), ("The Vikings", "Iceland")),
        ("Answers differ. Historians say so.", (), ()),
        ("I think that I know.", (), ()),
        ("William's ships, as Elodie Anne O’Hara says", (), ()),
        ("die Leute in Sankt-Gallen", (), ("Leute", "Sankt-Gallen")),
        ("They were Guillaume, Harold and Guillaume", (), ("Guillaume", "Harold")),
        ("", (), ()),
    ],
)
def test_unsupported(answer: str, numbers: tuple[str, ...], names: tuple[str, ...]) -> None:
    found = unsupported(answer, [NORMANS])
    assert (found.numbers, found.names) == (numbers, names)
    assert bool(found) == bool(numbers or names)


def test_what_the_question_says_is_no_invention() -> None:
    assert not unsupported(
        "Harold Godwinson fell in 1066.", [NORMANS, "When did harold godwinson fall?"]
    )


@given(st.text(max_size=60))
def test_a_text_is_supported_by_itself(text: str) -> None:
    assert not unsupported(text, [text])
    assert unsupported(text, []).numbers or not any(c.isdecimal() for c in text)
