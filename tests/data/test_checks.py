"""Each check finds what was planted, and nothing in clean rows."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fitune.data import checks
from fitune.data.checks import CHECKS, near_copies, run_checks
from fitune.data.rows import Row, Rows, Splits, Turn

WORDS = [f"{a}{b}{c}" for a in "bdfgklmn" for b in "aeiou" for c in "prstvxz"]


def texts(count: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=15)) for _ in range(count)]


def rows(some: list[str], name: str, labels: str = "xy") -> Rows:
    return Rows(
        tuple(
            Row(text, labels[i % len(labels)], source=f"{name}:{i}") for i, text in enumerate(some)
        )
    )


def clean() -> Splits:
    return Splits(
        rows(texts(60, 1), "train"), rows(texts(20, 2), "validation"), rows(texts(20, 3), "test")
    )


@pytest.mark.parametrize("kind", ["classify", "generate"])
def test_clean_rows_give_facts_only(kind):
    found = run_checks(clean(), kind)
    assert {finding.level for finding in found} == {"info"}
    assert {finding.check for finding in found} <= set(CHECKS)


def test_near_copies_are_those_that_brute_force_finds():
    rng = random.Random(0)
    base = texts(150, 4)
    changed = []
    for text in base:
        words = text.split()
        for at in rng.sample(range(len(words)), rng.choice([0, 1, 2, 4])):
            words[at] = rng.choice(WORDS)
        changed.append(" ".join(words))

    def grams(text: str) -> set[str]:
        return {text[i : i + 5] for i in range(len(text) - 4)}

    def similarity(a: str, b: str) -> float:
        return len(grams(a) & grams(b)) / len(grams(a) | grams(b))

    truth = {i: max(similarity(text, other) for other in base) for i, text in enumerate(changed)}
    found = near_copies(rows(base, "a"), rows(changed, "b"))
    assert {i for i, _, _ in found} == {i for i, s in truth.items() if s >= checks.NEAR}
    assert 20 < len(found) < 150  # some are, some are not
    for i, j, measured in found:
        assert measured == pytest.approx(similarity(changed[i], base[j]))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=40), max_size=6))
def test_any_text_is_a_near_copy_of_itself(some):
    these = rows(some, "a")
    assert [i for i, _, _ in near_copies(these, these)] == list(range(len(some)))


def test_leaks_are_counted_and_named():
    splits = clean()
    copy = Row(splits.train[7].text.upper() + " !", "x", source="copy")
    near = Row(splits.train[9].text + "s", "x", source="near")
    test = Rows((*splits.test, copy, near))
    same, close = checks.leakage(Splits(splits.train, splits.validation, test), "classify")
    assert (same.level, same.rows) == ("warning", ("copy",)) and "train:7" in same.message
    assert (close.level, close.rows) == ("warning", ("near",)) and "train:9" in close.message
    assert "1 of 22 test rows (4.5%)" in same.message and "nearly" in close.message
    many = Splits(splits.train, splits.validation, Rows((*splits.test, *splits.train[:5])))
    assert checks.leakage(many, "classify")[0].level == "error"
    assert run_checks(many, "classify")[0].level == "error"


def test_system_prompt_shared_by_all_is_no_leak():
    prompt = (Turn("system", "You are a helpful assistant who answers in rhyme. " * 10),)
    train, test = (
        Rows(tuple(Row(text, "a", prompt) for text in texts(20, seed))) for seed in (5, 6)
    )
    assert checks.leakage(Splits(train, test, test), "generate") == []


def test_conflicts_across_splits():
    splits = clean()
    odd = Row(splits.train[4].text.title() + ".", "y", source="odd")
    (finding,) = checks.conflicts(
        Splits(splits.train, splits.validation, Rows((*splits.test, odd))), "classify"
    )
    assert finding.rows == ("train:4", "odd") and "'x'" in finding.message


def test_labels_spelled_in_two_ways():
    labels = (
        ["Card lost"] * 30 + ["card_lost"] * 5 + ["cardd_lost"] + ["grade_1"] * 30 + ["grade_2"]
    )
    train = Rows(
        tuple(
            Row(text, label, source=label)
            for text, label in zip(texts(len(labels), 7), labels, strict=True)
        )
    )
    found = checks.label_names(Splits(train, train, train), "classify")
    assert [finding.rows[0] for finding in found] == ["card_lost"]
    train = Rows((*(Row(f"{i}", "payment", source="a") for i in range(40)), Row("x", "paymant")))
    (finding,) = checks.label_names(Splits(train, train, train), "classify")
    assert "'payment' (120 rows) and 'paymant' (3)" in finding.message


def test_balance():
    train = rows(texts(40, 8), "train", "x" * 19 + "y")
    facts, few, untested = checks.balance(Splits(train, train, Rows(train[:5])), "classify")
    assert "'x', has 38 of 40 training rows (95%)" in facts.message
    assert few.level == "warning" and few.rows == ("train:19", "train:39")
    assert "1 labels have no test row" in untested.message
    assert checks.balance(clean(), "generate") == []


def test_lengths():
    splits = clean()
    assert "half have at most 15 words" in checks.lengths(splits, "classify")[0].message
    short = Rows((Row("one two", "a"),))
    *_, finding = checks.lengths(Splits(splits.train, short, short), "classify")
    assert finding.level == "warning" and "median 2 words against 15" in finding.message


def test_nearly_empty_rows_and_repeated_answers():
    train = Rows((Row("?!", "a", source="f:1"), Row("same", "same", source="f:2"), Row("7", "b")))
    test = Rows((Row("fine", "a"),))
    blank, copied = checks.nearly_empty(Splits(train, test, test), "generate")
    assert blank.rows == ("f:1",) and copied.rows == ("f:2",)
    assert [f.rows for f in checks.nearly_empty(Splits(train, test, test), "classify")] == [
        ("f:1",)
    ]
