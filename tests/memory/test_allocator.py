"""The replay against published figures of the real allocator, and against a plainer one."""

from __future__ import annotations

import itertools
import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fitune.memory.allocator import (
    MIB,
    Block,
    CachingAllocator,
    Event,
    events_of,
    replay,
    rounded,
    segment_size,
)


def sizes(segment: list[Block]) -> list[tuple[int, bool]]:
    return [(block.size, block.in_use) for block in segment]


def reserved_mib(memory: CachingAllocator) -> float:
    return memory.reserved / MIB


def born(memory: CachingAllocator, *requests: int) -> list[int]:
    """Allocate them all; the storages' names."""
    first = max(memory._blocks, default=-1) + 1
    names = list(range(first, first + len(requests)))
    assert all(memory.allocate(name, size) for name, size in zip(names, requests, strict=True))
    return names


def freed(memory: CachingAllocator, *storages: int) -> None:
    for storage in storages:
        memory.free(storage)


# Published figures of the real one.


def test_snapshot_of_a_small_product() -> None:
    """https://discuss.pytorch.org/t/178671: the segments after ``y = X @ W + b`` on a GPU."""
    memory = CachingAllocator()
    born(memory, 40_000, 40, 4_000)  # W, b and X
    (product,) = born(memory, 40)
    born(memory, 40)  # the sum
    freed(memory, product)
    born(memory, 8_519_680)  # cuBLAS's workspace
    small, large = memory.segments()
    assert sizes(small) == [
        (40_448, True),
        (512, True),
        (4_096, True),
        (512, False),
        (512, True),
        (2_051_072, False),
    ]
    assert sizes(large) == [(8_519_680, True), (12_451_840, False)]


def test_pooling_net_over_two_batches() -> None:
    """https://discuss.pytorch.org/t/138814: what a convolution and two poolings reserved on a GPU,
    with ``empty_cache()`` after each batch: 296, 5014, 1644 and 5688 MiB; allocated: 294, then 465.
    """
    batch, channels = 512, 28
    frames = batch * 3 * 224 * 224 * 4
    convolved, pooled, pooled_twice = (batch * channels * side**2 * 4 for side in (222, 111, 56))
    memory = CachingAllocator()

    def forward(x: int) -> int:
        """The prediction's storage. The kept positions of each pooling are int64."""
        (a,) = born(memory, convolved)
        b, positions = born(memory, pooled, 2 * pooled)
        freed(memory, positions, a)
        c, positions = born(memory, pooled_twice, 2 * pooled_twice)
        freed(memory, positions, b)
        return c

    born(memory, channels * 27 * 4, channels * 4)
    (x,) = born(memory, frames)
    assert reserved_mib(memory) == 296 and memory.allocated // MIB == 294
    prediction = forward(x)
    assert reserved_mib(memory) == 5014 and memory.allocated // MIB == 465
    memory.empty_cache()
    assert reserved_mib(memory) == 1644
    (next_x,) = born(memory, frames)
    freed(memory, x)
    next_prediction = forward(next_x)
    freed(memory, prediction)
    assert reserved_mib(memory) == 5688 and memory.allocated // MIB == 465
    assert next_prediction != prediction


# https://docs.pytorch.org/devlogs/eager/2026-06-01-cuda-caching-allocator/ (E. Yang).


def test_small_then_large_requests_reserve_twice() -> None:
    memory = CachingAllocator()
    small = born(memory, *[16 * MIB] * 8)
    assert reserved_mib(memory) == 128
    freed(memory, *small)
    assert reserved_mib(memory) == 128
    born(memory, *[32 * MIB] * 4)
    assert reserved_mib(memory) == 256
    assert [len(segment) for segment in memory.segments()] == [1] * 12


def test_large_then_small_requests_share_segments() -> None:
    memory = CachingAllocator()
    freed(memory, *born(memory, *[32 * MIB] * 4))
    born(memory, *[16 * MIB] * 8)
    assert reserved_mib(memory) == 128
    assert [sizes(s) for s in memory.segments()] == [[(16 * MIB, True), (16 * MIB, True)]] * 4


def test_a_block_between_two_free_ones_keeps_them_apart() -> None:
    memory = CachingAllocator()
    freed(memory, *born(memory, 32 * MIB))
    first, second = born(memory, 16 * MIB, 16 * MIB)
    freed(memory, first)
    assert [sizes(s) for s in memory.segments()] == [[(16 * MIB, False), (16 * MIB, True)]]
    freed(memory, second)
    assert [sizes(s) for s in memory.segments()] == [[(32 * MIB, False)]]


def test_expandable_segments_grow_by_pages_and_order_does_not_matter() -> None:
    memory = CachingAllocator(expandable_segments=True)
    mapped, names = [], []
    for _ in range(8):
        names += born(memory, 16 * MIB)
        mapped.append(reserved_mib(memory))
    assert mapped == [20, 40, 60, 80, 80, 100, 120, 140]
    freed(memory, *names)
    born(memory, *[32 * MIB] * 4)
    assert reserved_mib(memory) == 140


def test_expandable_segments_cannot_move_a_block_in_use() -> None:
    memory = CachingAllocator(expandable_segments=True)
    a, b, c, d = born(memory, *[16 * MIB] * 4)
    freed(memory, a, c)
    (big,) = born(memory, 32 * MIB)  # three free blocks of 16 MiB: one more page after the last
    assert reserved_mib(memory) == 100
    freed(memory, big, b, d)
    born(memory, 32 * MIB)
    assert reserved_mib(memory) == 100


# Worked by hand.


@pytest.mark.parametrize(
    ("size", "block", "segment"),
    [
        (1, 512, 2 * MIB),
        (512, 512, 2 * MIB),
        (513, 1024, 2 * MIB),
        (MIB, MIB, 2 * MIB),
        (MIB + 1, MIB + 512, 20 * MIB),
        (10 * MIB - 512, 10 * MIB - 512, 20 * MIB),
        (10 * MIB - 511, 10 * MIB, 10 * MIB),
        (10 * MIB + 1, 10 * MIB + 512, 12 * MIB),
        (123 * MIB, 123 * MIB, 124 * MIB),
    ],
)
def test_rounding_and_segments(size: int, block: int, segment: int) -> None:
    memory = CachingAllocator()
    born(memory, size)
    assert rounded(size) == block
    assert segment_size(block) == segment == memory.reserved
    assert memory.live == size


@pytest.mark.parametrize(
    ("size", "kept"),
    [(19 * MIB, 20 * MIB), (19 * MIB - 512, 19 * MIB - 512), (19 * MIB + 512, 20 * MIB)],
)
def test_a_large_block_is_cut_only_if_more_than_1_mib_is_left(size: int, kept: int) -> None:
    memory = CachingAllocator()
    born(memory, size)
    assert (memory.allocated, memory.reserved) == (kept, 20 * MIB)


def test_a_small_block_is_cut_down_to_the_last_512_bytes() -> None:
    memory = CachingAllocator()
    born(memory, *[MIB - 512] * 2, 512)
    assert [sizes(s) for s in memory.segments()] == [
        [(MIB - 512, True), (MIB - 512, True), (512, True), (512, False)]
    ]
    born(memory, 512)
    assert memory.allocated == memory.reserved == 2 * MIB


def test_best_fit_then_lowest_address() -> None:
    memory = CachingAllocator()
    names = born(memory, *[n * 512 for n in (4, 1, 2, 1, 2, 1)])
    freed(memory, names[0], names[2], names[4])  # free: 4, 2 and 2 blocks of 512, and the rest
    (name,) = born(memory, 700)
    (segment,) = memory.segments()
    taken = next(block for block in segment if block.requested == 700)
    assert name in memory._blocks and taken.address == 5 * 512


def test_small_and_large_requests_never_share() -> None:
    memory = CachingAllocator()
    freed(memory, *born(memory, 50 * MIB))
    born(memory, 512)
    assert memory.reserved == 52 * MIB


def test_a_full_device_takes_back_free_segments_first() -> None:
    events = [
        Event(0, 30 * MIB, True),
        Event(1, 512, True),
        Event(0, 0, False),
        Event(2, 40 * MIB, True),  # 30 + 2 + 40 do not fit into 50: the 30 go back
        Event(3, 10 * MIB, True),
    ]
    run = replay(events, limit=50 * MIB)
    assert (run.retries, run.reserved, run.reserved_peak) == (2, 42 * MIB, 42 * MIB)
    assert run.failed_at == 4
    assert replay(events, limit=52 * MIB).failed_at is None
    assert replay(events).reserved_peak == 72 * MIB


@pytest.mark.parametrize("kept", [0, 1])
def test_a_segment_partly_in_use_is_not_given_back(kept: int) -> None:
    memory = CachingAllocator(limit=40 * MIB)
    keep, other = born(memory, 2 * MIB, 2 * MIB)
    freed(memory, (keep, other)[kept])
    assert not memory.allocate(9, 30 * MIB)
    freed(memory, (other, keep)[kept])
    assert memory.allocate(10, 30 * MIB)


def test_expandable_pages_partly_in_use_are_not_given_back() -> None:
    memory = CachingAllocator(expandable_segments=True)
    a, b, c = born(memory, 30 * MIB, 60 * MIB, 10 * MIB)
    freed(memory, b)  # 30 to 90 of 100 MiB: whole pages are 40 to 80
    memory.empty_cache()
    assert reserved_mib(memory) == 60
    born(memory, 55 * MIB)  # the gap is filled again, at the lowest address
    assert reserved_mib(memory) == 100
    (small, large) = memory.segments()
    assert [b.size // MIB for b in large[:4]] == [30, 55, 5, 10] and len(small) == 1
    assert a != c


def test_growing_block_is_left_to_those_that_need_it() -> None:
    memory = CachingAllocator(expandable_segments=True)
    a, _ = born(memory, 10 * MIB, 4 * MIB)  # 6 MiB are left of the page, and can grow
    freed(memory, a)  # 10 MiB are free before
    (name,) = born(memory, 3 * MIB)
    block = memory._blocks[name]
    assert block is not None and block.before is None  # of the 10, though 6 would fit tighter


def test_nothing_is_taken_for_nothing() -> None:
    run = replay([Event(0, 0, True), Event(0, 0, False)])
    assert (run.live_peak, run.allocated_peak, run.reserved_peak) == (0, 0, 0)


@pytest.mark.parametrize(
    "events",
    [[Event(0, 8, True), Event(0, 8, True)], [Event(3, 8, False)]],
    ids=["born twice", "dies unborn"],
)
def test_wrong_events(events: list[Event]) -> None:
    with pytest.raises(ValueError, match="storage"):
        replay(events)


def test_events_of_spans() -> None:
    spans = [(10, 1, None), (20, 2, 2), (30, 3, 5), (40, 5, 6)]
    assert events_of(spans) == [
        Event(0, 10, True),
        Event(1, 20, True),
        Event(1, 20, False),
        Event(2, 30, True),
        Event(3, 40, True),  # born before what lives through this moment dies
        Event(2, 30, False),
        Event(3, 40, False),
    ]
    run = replay(events_of(spans))
    assert run.live_peak == 80 and run.live == 10


# Against a plainer one, and invariants.


class Plain:
    """The same rules by brute force: segments are lists of ``[size, owner]``, searched whole."""

    def __init__(self) -> None:
        self.segments: list[tuple[bool, list[list[int | None]]]] = []

    def allocate(self, owner: int, size: int) -> None:
        size = max(512, (size + 511) // 512 * 512)
        small = size <= 2**20
        fits = [
            (block[0], index, place)
            for index, (kind, segment) in enumerate(self.segments)
            for place, block in enumerate(segment)
            if kind is small and block[1] is None and block[0] >= size  # type: ignore[operator]
        ]
        if not fits:
            if small:
                total = 2 * 2**20
            elif size < 10 * 2**20:
                total = 20 * 2**20
            else:
                total = (size + 2**21 - 1) // 2**21 * 2**21
            self.segments.append((small, [[total, None]]))
            fits = [(total, len(self.segments) - 1, 0)]
        _, index, place = min(fits)  # type: ignore[type-var]
        segment = self.segments[index][1]
        rest = segment[place][0] - size  # type: ignore[operator]
        if rest >= 512 if small else rest > 2**20:
            segment[place : place + 1] = [[size, owner], [rest, None]]
        else:
            segment[place][1] = owner

    def free(self, owner: int) -> None:
        for _, segment in self.segments:
            for block in segment:
                if block[1] == owner:
                    block[1] = None
            merged: list[list[int | None]] = []
            for block in segment:
                if merged and merged[-1][1] is None and block[1] is None:
                    merged[-1][0] += block[0]  # type: ignore[operator]
                else:
                    merged.append(block)
            segment[:] = merged

    def layout(self) -> list[list[tuple[int | None, bool]]]:
        return [[(size, owner is not None) for size, owner in s] for _, s in self.segments]


REQUESTS = st.one_of(
    st.integers(1, 4096),
    st.integers(2**18, 2**20 + 2048),
    st.integers(2**20, 12 * 2**20),
    st.sampled_from([2**20, 10 * 2**20, 19 * 2**20, 20 * 2**20, 32 * 2**20]),
)
STEPS = st.lists(st.tuples(st.booleans(), REQUESTS, st.integers(0, 10**6)), max_size=60)


def played(steps: list[tuple[bool, int, int]]) -> list[Event]:
    """Events: each step allocates, or frees one of what lives."""
    events, alive = [], []
    for index, (allocate, size, choice) in enumerate(steps):
        if allocate or not alive:
            events.append(Event(index, size, True))
            alive.append(index)
        else:
            events.append(Event(alive.pop(choice % len(alive)), 0, False))
    return events


@given(STEPS)
def test_equals_the_plain_one(steps: list[tuple[bool, int, int]]) -> None:
    memory, plain = CachingAllocator(), Plain()
    for event in played(steps):
        if event.allocate:
            assert memory.allocate(event.storage, event.bytes)
            plain.allocate(event.storage, event.bytes)
        else:
            memory.free(event.storage)
            plain.free(event.storage)
        assert [sizes(segment) for segment in memory.segments()] == plain.layout()


@given(STEPS, st.booleans(), st.one_of(st.none(), st.integers(1, 60).map(lambda n: n * MIB)))
def test_invariants(
    steps: list[tuple[bool, int, int]], expandable: bool, limit: int | None
) -> None:
    memory = CachingAllocator(limit=limit, expandable_segments=expandable)
    alive: dict[int, int] = {}
    most = [0, 0, 0]
    for event in played(steps):
        if event.allocate:
            if memory.allocate(event.storage, event.bytes):
                alive[event.storage] = event.bytes
        elif event.storage in alive:
            memory.free(event.storage)
            del alive[event.storage]
        now = [memory.live, memory.allocated, memory.reserved]
        most = [max(pair) for pair in zip(most, now, strict=True)]
        if event.storage % 5 == 0:
            memory.empty_cache()
        assert memory.live == sum(alive.values()) <= memory.allocated <= memory.reserved
        assert memory.reserved % (2 * MIB) == 0
        assert limit is None or memory.reserved <= limit
        blocks = [block for segment in memory.segments() for block in segment]
        for before, after in itertools.pairwise(blocks):
            assert before.address + before.size <= after.address
            free = not before.in_use and not after.in_use and before.after is after
            assert not (free and before.mapped == after.mapped)  # neighbours are united
        assert memory.reserved == sum(b.size for b in blocks if b.mapped)
        assert memory.allocated == sum(b.size for b in blocks if b.in_use)
    assert [memory.live_peak, memory.allocated_peak] == most[:2]
    if limit is None:  # otherwise a request that failed may have taken more in between
        assert memory.reserved_peak == most[2]
    for storage in alive:
        memory.free(storage)
    assert (memory.live, memory.allocated) == (0, 0)
    memory.empty_cache()
    assert memory.reserved == 0


@given(STEPS, st.booleans())
def test_a_limit_of_what_it_took_changes_nothing(
    steps: list[tuple[bool, int, int]], expandable: bool
) -> None:
    events = played(steps)
    free = replay(events, expandable_segments=expandable)
    bound = replay(events, expandable_segments=expandable, limit=free.reserved_peak)
    assert bound == free and free.failed_at is None and free.retries == 0
    if free.live_peak:
        tight = replay(events, expandable_segments=expandable, limit=free.live_peak - 1)
        assert tight.failed_at is not None


def test_a_hundred_thousand_events_take_a_moment() -> None:
    rng = random.Random(0)
    events, alive = [], []
    for index in range(100_000):
        if len(alive) < 500 or rng.random() < 0.5:
            events.append(Event(index, int(2 ** rng.uniform(6, 28)), True))
            alive.append(index)
        else:
            events.append(Event(alive.pop(rng.randrange(len(alive))), 0, False))
    start = time.process_time()
    run = replay(events)
    assert time.process_time() - start < 3  # 0.5 s on a quiet core
    assert run.fragmentation == run.reserved_peak - run.allocated_peak > 0
