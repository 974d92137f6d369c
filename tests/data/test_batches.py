"""Order and batches, against their definitions worked out by brute force."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from fitune.data.batches import Order, label_batch, micro_batches, token_batch
from fitune.data.template import Encoded, Reason

lengths = st.lists(st.integers(1, 50), min_size=1, max_size=200)
encoded = st.lists(
    st.tuples(st.integers(1, 99), st.sampled_from(list(Reason))), min_size=1, max_size=9
).map(lambda pairs: Encoded(tuple(t for t, _ in pairs), tuple(r for _, r in pairs)))


@given(lengths, st.integers(1, 9), st.integers(0, 2**32), st.integers(0, 5))
def test_an_epoch_visits_every_row_once(
    lengths: list[int], batch_size: int, seed: int, epoch: int
) -> None:
    order = Order(tuple(lengths), batch_size, seed)
    batches = order.epoch(epoch)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    assert len(batches) == len(order)
    sizes = sorted(map(len, batches))
    assert sizes[1:] == [batch_size] * (len(batches) - 1) and 0 < sizes[0] <= batch_size


@given(lengths, st.integers(1, 9), st.integers(0, 2**32))
def test_the_order_is_a_function_of_seed_and_epoch(
    lengths: list[int], batch_size: int, seed: int
) -> None:
    order = Order(tuple(lengths), batch_size, seed)
    order.epoch(0)  # epochs asked before have no influence
    assert order.epoch(1) == Order(tuple(lengths), batch_size, seed).epoch(1)


def test_epochs_and_seeds_differ() -> None:
    lengths = tuple(1 + i % 40 for i in range(300))
    orders = [Order(lengths, 8, seed).epoch(epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert all(a != b for i, a in enumerate(orders) for b in orders[:i])
    # Rows meet other rows, too: not only the batches' order is drawn again.
    assert {frozenset(batch) for batch in orders[0]} != {frozenset(batch) for batch in orders[1]}


def test_the_order_stays_what_it_is() -> None:
    """Old runs resume only if the order never changes."""
    order = Order((5, 1, 4, 2, 3, 9, 7), 2, 0)
    assert order.epoch(0) == [[4, 2], [0, 6], [1, 3], [5]]
    assert order.epoch(1) == [[4, 2], [5], [1, 3], [0, 6]]


def test_rows_of_like_length_meet_but_the_course_is_not_one_of_length() -> None:
    import numpy as np

    random = np.random.default_rng(0)
    lengths = tuple(int(n) for n in random.integers(1, 500, 2048))
    batches = Order(lengths, 16, 0).epoch(0)
    padded = sum(len(b) * max(lengths[i] for i in b) for b in batches)
    assert sum(lengths) / padded > 0.9
    means = [np.mean([lengths[i] for i in batch]) for batch in batches]
    assert abs(np.corrcoef(means, range(len(means)))[0, 1]) < 0.25


@given(lengths, st.integers(1, 120), st.randoms(use_true_random=False))
def test_micro_batches_cover_the_batch_within_the_budget(
    lengths: list[int], budget: int, random: object
) -> None:
    rows = list(range(0, len(lengths), 2)) or [0]
    random.shuffle(rows)  # type: ignore[attr-defined]
    parts = micro_batches(rows, lengths, budget)
    assert sorted(row for part in parts for row in part) == sorted(rows)
    for part in parts:
        padded = len(part) * max(lengths[row] for row in part)
        assert padded <= budget or len(part) == 1
    # None of the parts could have taken the next one's first row.
    for part, after in pairwise(parts):
        assert (len(part) + 1) * lengths[after[0]] > budget
    assert micro_batches([], lengths, budget) == []


LEARNED = (Reason.ANSWER, Reason.END, Reason.DOCUMENT, Reason.DOCUMENT_END)


@given(st.lists(encoded, min_size=1, max_size=5))
def test_targets_are_the_learned_tokens_seen_from_the_token_before(items: list[Encoded]) -> None:
    batch = token_batch(items, range(7, 7 + len(items)), pad=0)
    width = max(map(len, items))
    expected = []
    for i, item in enumerate(items):
        assert batch.input_ids[i].tolist() == [*item.tokens, *[0] * (width - len(item))]
        assert batch.attention_mask[i].tolist() == [1] * len(item) + [0] * (width - len(item))
        for at in range(1, len(item)):  # nothing stands before the first token
            if item.reasons[at] in LEARNED:
                expected.append((i * width + at - 1, item.tokens[at]))
    assert batch.positions is not None
    assert list(zip(batch.positions.tolist(), batch.targets.tolist(), strict=True)) == expected
    assert batch.learned == len(expected)
    assert batch.tokens == sum(map(len, items))
    assert batch.rows == tuple(range(7, 7 + len(items)))
    # The next token of each position is the target: the row itself says so.
    flat = batch.input_ids.flatten()
    assert all(flat[p + 1] == t for p, t in expected)


@given(st.lists(encoded, min_size=1, max_size=5))
def test_label_batches(items: list[Encoded]) -> None:
    labels = [len(item) % 3 for item in items]
    batch = label_batch(items, labels, range(len(items)), pad=5)
    assert batch.positions is None
    assert batch.targets.tolist() == labels and batch.learned == len(items)
    assert int(batch.attention_mask.sum()) == batch.tokens == sum(map(len, items))
    padding = batch.input_ids[batch.attention_mask == 0]
    assert (padding == 5).all()


@given(st.lists(encoded, min_size=1, max_size=3))
def test_moving_a_batch_changes_nothing(items: list[Encoded]) -> None:
    for batch in (token_batch(items, [0], 0), label_batch(items, [0], [0], 0)):
        moved = batch.to("cpu")
        assert moved.input_ids.equal(batch.input_ids) and moved.targets.equal(batch.targets)
        assert moved.tokens == batch.tokens and moved.rows == batch.rows
        assert (moved.positions is None) == (batch.positions is None)
