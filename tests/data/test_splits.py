"""Splits are disjoint, deterministic, free of file order, and stratified."""

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fitune.config import RowCaps
from fitune.data import splits as module
from fitune.data.rows import Row, Rows
from fitune.data.splits import quotas, split_rows
from fitune.errors import ConfigError, DataError


def rows(sizes: dict[str, int], prefix: str = "") -> Rows:
    return Rows(
        tuple(
            Row(f"{prefix}{label} text {i}", label, source=f"{prefix}f:{label}{i}")
            for label, size in sizes.items()
            for i in range(size)
        )
    )


def keys(some: Rows) -> set[str]:
    return {row.key for row in some}


SIZES = st.dictionaries(st.sampled_from("abcdef"), st.integers(3, 40), min_size=2)
QUICK = settings(max_examples=80, deadline=None)


@QUICK
@given(SIZES, st.integers(0, 5), st.floats(0.05, 0.4), st.floats(0.05, 0.3), st.randoms())
def test_carved_splits_keep_their_promises(sizes, seed, test, validation, shuffle):
    given_rows = rows(sizes)
    fractions = {"test_fraction": test, "validation_fraction": validation, "seed": seed}
    made = split_rows(given_rows, kind="classify", **fractions)
    parts = (made.train, made.validation, made.test)

    # Disjoint, and nothing is lost.
    assert sum(map(len, parts)) == len(given_rows)
    assert keys(parts[0]) | keys(parts[1]) | keys(parts[2]) == keys(given_rows)

    # Stratified within ±1, and every label is in training.
    counts = Counter(made.test.answers)
    assert all(abs(counts[label] - test * size) <= 1 for label, size in sizes.items())
    left = {label: size - counts[label] for label, size in sizes.items()}
    counts = Counter(made.validation.answers)
    assert all(abs(counts[label] - validation * size) <= 1 for label, size in left.items())
    assert set(made.train.labels) == set(sizes)

    # Free of file order.
    other = list(given_rows)
    shuffle.shuffle(other)
    again = split_rows(Rows(tuple(other)), kind="classify", **fractions)
    assert [keys(part) for part in (again.train, again.validation, again.test)] == [
        keys(part) for part in parts
    ]


@QUICK
@given(st.integers(4, 200), st.integers(0, 3))
def test_generate_splits_have_the_sizes_asked_for(count, seed):
    given_rows = Rows(tuple(Row(f"q{i}", f"a{i}") for i in range(count)))
    made = split_rows(given_rows, kind="generate", seed=seed)
    assert len(made.test) == max(1, int(0.2 * count + 0.5))
    assert len(made.validation) == max(1, int(0.1 * (count - len(made.test)) + 0.5))
    assert len(made.train) + len(made.validation) + len(made.test) == count


@QUICK
@given(
    st.dictionaries(st.text("abcdefgh", min_size=1), st.integers(1, 50), min_size=1),
    st.floats(0, 1),
    st.integers(0, 1),
)
def test_quotas_add_up_and_stay_near_proportion(sizes, fraction, minimum):
    everything = sum(sizes.values())
    total = max(minimum * len(sizes), round(fraction * everything))
    share = quotas(sizes, total, minimum)
    assert sum(share.values()) == total
    assert all(minimum <= share[name] <= size for name, size in sizes.items())
    if not minimum:
        ideal = {name: total * size / everything for name, size in sizes.items()}
        assert all(abs(share[name] - ideal[name]) < 1 for name in sizes)


def test_another_seed_gives_another_split():
    given_rows = rows({"a": 50, "b": 50})
    first, second = (split_rows(given_rows, kind="classify", seed=seed) for seed in (0, 1))
    assert keys(first.test) != keys(second.test)


def test_adding_a_row_moves_at_most_the_rows_at_the_border():
    few, more = rows({"a": 50, "b": 50}), rows({"a": 51, "b": 50})
    first, second = (split_rows(some, kind="classify") for some in (few, more))
    assert len(keys(first.test) ^ keys(second.test)) <= 2


def test_rows_with_one_text_fall_into_one_split():
    answers = Rows(tuple(Row(f"q{i // 3}", f"a{i}") for i in range(90)))
    made = split_rows(answers, kind="generate")
    assert not keys(made.train) & keys(made.test)
    assert not keys(made.train) & keys(made.validation)
    assert not keys(made.validation) & keys(made.test)


def test_leaks_of_given_files_leave_the_earlier_split_and_are_counted():
    train = rows({"a": 10, "b": 10})
    test = Rows((train[0], *rows({"a": 2, "b": 2}, "t")))
    validation = Rows((train[0], train[1], *rows({"a": 2, "b": 2}, "v")))
    made = split_rows(train, validation, test, kind="classify")
    assert made.test == test and len(made.validation) == 5 and len(made.train) == 18
    assert not keys(made.train) & (keys(made.test) | keys(made.validation))
    notes = " / ".join(made.notes)
    assert "1 validation row left out because the same text is in test (f:a0 is f:a0)" in notes
    assert "1 training row left out because the same text is in test" in notes
    assert "1 training row left out because the same text is in validation (f:a1" in notes


def test_test_is_carved_before_validation_and_never_holds_its_rows():
    train = rows({"a": 20, "b": 20})
    made = split_rows(train, Rows(train[:10]), None, kind="classify")
    assert len(made.test) == 8
    assert not keys(made.test) & keys(made.validation)
    assert len(made.train) + len(made.test) + len(made.validation) == 40


def test_duplicates_are_dropped_and_conflicts_kept_in_training_and_both_are_said():
    base = rows({"a": 20, "b": 20})
    odd = Row("a text 3", "b", source="f:odd")
    made = split_rows(Rows((*base, base[3], odd)), kind="classify")
    assert len(made.train) + len(made.validation) + len(made.test) == 41
    assert {"a", "b"} == {row.answer for row in made.train if row.key == odd.key}
    notes = " / ".join(made.notes)
    assert "1 exact duplicate left out of the training rows (f:a3 repeats f:a3)" in notes
    assert "1 training text with more than one label (f:a3 says 'a', f:odd says 'b')" in notes


@pytest.mark.parametrize("seed", range(20))
def test_label_with_too_few_rows_stays_in_training(seed):
    made = split_rows(rows({"a": 30, "b": 30, "rare": 2, "once": 1}), kind="classify", seed=seed)
    assert Counter(made.train.answers)["rare"] == 2 and "once" in made.train.labels
    assert "2 labels with fewer than 3 rows in training only ('once', 'rare')" in made.notes


@pytest.mark.parametrize("seed", range(5))
def test_labels_found_in_conflicts_only_never_miss_from_training(seed):
    base = rows({"a": 9, "b": 9})
    extra = tuple(Row(row.text, "c") for row in base[:4])
    made = split_rows(Rows((*base, *extra)), kind="classify", seed=seed)
    assert set(made.train.labels) == {"a", "b", "c"}


def test_carved_validation_has_a_limit(monkeypatch):
    assert module.MAX_CARVED_VALIDATION == 500
    monkeypatch.setattr(module, "MAX_CARVED_VALIDATION", 7)
    made = split_rows(rows({"a": 100, "b": 100}), kind="classify")
    assert len(made.validation) == 7 and len(made.train) == 153
    assert any("7 rows are kept for validation, not 10%" in note for note in made.notes)


def test_caps_are_stratified_nested_counted_and_free_of_order():
    given_rows = rows({"a": 80, "b": 40, "c": 3})
    shuffled = list(given_rows)
    random.Random(0).shuffle(shuffled)

    def capped(some: Rows, most: int) -> module.Splits:
        caps = RowCaps(train=most, validation=3, test=5)
        return split_rows(some, kind="classify", max_rows=caps)

    made = capped(given_rows, 30)
    whole = split_rows(given_rows, kind="classify")
    assert len(made.train) == 30 and len(made.validation) == 3 and len(made.test) == 5
    assert set(made.train.labels) == {"a", "b", "c"}
    assert keys(capped(Rows(tuple(shuffled)), 30).train) == keys(made.train)
    assert f"using 30 of {len(whole.train)} training rows (data.max_rows.train)" in made.notes
    assert f"using 5 of {len(whole.test)} test rows (data.max_rows.test)" in made.notes
    assert not any("max_rows" in note for note in whole.notes)


@pytest.mark.parametrize(
    ("arguments", "error", "parts"),
    [
        ((rows({"a": 30}), None, None), DataError, ["label 'a'", "at least two labels"]),
        (
            (rows({str(i): 1 for i in range(30)}), None, None),
            DataError,
            ["no label has the 3 different rows", "30 labels in 30 rows", "kind: generate"],
        ),
        (
            (rows({"a": 9, "b": 9}), None, rows({"a": 2, "z": 2}, "t")),
            DataError,
            ["1 label of the test rows never seen", "'z'", "tf:z0, tf:z1", "these 2 rows"],
        ),
        (
            (rows({"a": 9, "b": 9}), rows({"y": 1}, "v"), rows({"a": 2}, "t")),
            DataError,
            ["validation rows never seen", "'y'", "vf:y0"],
        ),
        (
            (rows({"a": 2, "b": 2}), rows({"a": 1}, "v"), rows({"a": 2, "b": 2})),
            DataError,
            ["no training rows are left"],
        ),
        (
            (rows({"a": 5, "b": 5}), rows({"a": 1}), rows({"a": 1})),
            DataError,
            ["no validation rows are left", "data.validation"],
        ),
    ],
)
def test_splits_that_cannot_be_learned_from_are_refused(arguments, error, parts):
    with pytest.raises(error) as caught:
        split_rows(*arguments, kind="classify")
    for part in parts:
        assert part in str(caught.value), str(caught.value)


def test_fraction_zero_and_too_few_rows_are_refused():
    some = rows({"a": 20, "b": 20})
    with pytest.raises(DataError, match=r"no test rows are left.*data.test_fraction"):
        split_rows(some, kind="classify", test_fraction=0.0)
    with pytest.raises(DataError, match=r"no validation rows.*data.validation_fraction"):
        split_rows(some, kind="classify", validation_fraction=0.0)
    with pytest.raises(DataError, match="rows are left"):
        split_rows(Rows((Row("q", "a"), Row("r", "b"))), kind="generate")


def test_cap_below_the_number_of_labels_is_refused():
    some = rows(dict.fromkeys("abcde", 10))
    with pytest.raises(ConfigError, match=r"max_rows.train is 4 .* 5 labels; raise it to 5"):
        split_rows(some, kind="classify", max_rows=RowCaps(train=4))
