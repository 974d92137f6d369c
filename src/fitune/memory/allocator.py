"""What torch's CUDA caching allocator takes from the device for a sequence of allocations.

Knows blocks, segments and the rules by which the allocator of torch 2.13 hands them out; knows
nothing of tensors, models or GPUs: it runs anywhere. Three kinds of bytes, as
`torch.cuda.memory_stats` tells them apart:

- *live*: what was asked for (``requested_bytes``);
- *allocated*: the blocks handed out for it, rounded (``allocated_bytes``);
- *reserved*: the segments taken from the device, free blocks in them included
  (``reserved_bytes``). A process needs this, plus what `fitune.memory.cuda` names.

The rules, of ``c10/cuda/CUDACachingAllocator.cpp`` with its default settings: a request is rounded
to 512 bytes; up to 1 MiB it belongs to the small pool, whose segments are 2 MiB, above to the large
pool, whose segments are 20 MiB below 10 MiB and else the request rounded to 2 MiB. The smallest
free block of the pool that fits serves it, of equal ones that of the lowest address; what is left
of the block becomes a free block if it is at least 512 bytes (small) or more than 1 MiB (large).
A freed block unites with free neighbours of its segment. Where the device has no room for another
segment, all without a block in use go back to it, and it is asked once more.

Not modelled: more than one stream (each has blocks of its own), CUDA graphs' private pools, options
that are off by default, and the addresses the driver chooses: segments are taken to follow each
other in the order of their birth, which decides only between free blocks of equal size.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

MIB = 1 << 20

ROUNDING = 512  # bytes: requests are multiples of it
LARGEST_SMALL_REQUEST = MIB  # rounded bytes up to which the small pool serves
SMALL_SEGMENT = 2 * MIB  # of the small pool; the page by which it grows when segments expand
LARGE_SEGMENT = 20 * MIB  # of the large pool below OWN_SEGMENT; its page when segments expand
OWN_SEGMENT = 10 * MIB  # from here on a request that no free block serves has one of its own size
SEGMENT_ROUNDING = 2 * MIB  # which is a multiple of this


class Event(NamedTuple):
    """A storage, named by any number until it dies, is born with so many bytes, or dies."""

    storage: int
    bytes: int
    allocate: bool


@dataclass(frozen=True)
class Replay:
    """What a sequence of events took, all in bytes.

    Attributes:
        live_peak, allocated_peak, reserved_peak: the most at any moment, each for itself.
        live, allocated, reserved: after the last event.
        retries: how often free segments had to be given back to make room.
        failed_at: the index of the event without room, where the replay ends; None: all fitted.
    """

    live_peak: int
    allocated_peak: int
    reserved_peak: int
    live: int
    allocated: int
    reserved: int
    retries: int
    failed_at: int | None

    @property
    def fragmentation(self) -> int:
        """Bytes reserved at the most beyond those allocated at the most."""
        return self.reserved_peak - self.allocated_peak


def replay(
    events: Iterable[Event], *, limit: int | None = None, expandable_segments: bool = False
) -> Replay:
    """Let the allocator serve `events` in order.

    Args:
        limit: bytes of the device that segments may take; None: any number.
        expandable_segments: ``PYTORCH_ALLOC_CONF=expandable_segments:True``.

    Raises:
        ValueError: a storage is born twice, or dies unborn.
    """
    memory = CachingAllocator(limit=limit, expandable_segments=expandable_segments)
    failed_at = None
    for index, (storage, size, allocate) in enumerate(events):
        if not allocate:
            memory.free(storage)
        elif not memory.allocate(storage, size):
            failed_at = index
            break
    peaks = memory.live_peak, memory.allocated_peak, memory.reserved_peak
    return Replay(*peaks, memory.live, memory.allocated, memory.reserved, memory.retries, failed_at)


def events_of(spans: Iterable[tuple[int, int, int | None]]) -> list[Event]:
    """Births and deaths in order, of storages given by ``(bytes, start, end)``.

    Args:
        spans: a storage, named by its index, lives from `start` to `end`, both moments included
            (None: for ever). What dies at a moment dies after what is born then.
    """
    dated = []
    for storage, (size, start, end) in enumerate(spans):
        dated.append((start, 0, Event(storage, size, True)))
        if end is not None:
            dated.append((end, 1, Event(storage, size, False)))
    dated.sort(key=lambda item: item[:2])
    return [event for _, _, event in dated]


def rounded(size: int) -> int:
    """Bytes of the smallest block that serves a request of `size` bytes."""
    return _up(size, ROUNDING)


def segment_size(size: int) -> int:
    """Bytes of the segment taken for `size` rounded bytes that no free block serves."""
    if size <= LARGEST_SMALL_REQUEST:
        return SMALL_SEGMENT
    return LARGE_SEGMENT if size < OWN_SEGMENT else _up(size, SEGMENT_ROUNDING)


def _up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


class Block:
    """A stretch of a segment: in use, free, or (in an expandable segment) without memory.

    Attributes:
        address, size: bytes.
        requested: bytes asked for, while in use.
        in_use: handed out.
        mapped: backed by memory; False only for the unused part of an expandable segment.
        before, after: the neighbours in the segment.
    """

    __slots__ = ("address", "after", "before", "in_use", "mapped", "pool", "requested", "size")

    def __init__(self, pool: _Pool, address: int, size: int, *, mapped: bool = True) -> None:
        self.pool = pool
        self.address = address
        self.size = size
        self.requested = 0
        self.in_use = False
        self.mapped = mapped
        self.before: Block | None = None
        self.after: Block | None = None

    def cut(self, size: int) -> Block:
        """Keep the first `size` bytes; the rest becomes the new block after it."""
        rest = Block(self.pool, self.address + size, self.size - size, mapped=self.mapped)
        self.size = size
        rest.before, rest.after = self, self.after
        if rest.after is not None:
            rest.after.before = rest
        self.after = rest
        return rest

    def unite(self) -> None:
        """Take in the neighbours that are as free, and as mapped, as this block."""
        for other in (self.before, self.after):
            if other is None or other.in_use or other.mapped is not self.mapped:
                continue
            self.pool.remove(other)
            self.size += other.size
            if other is self.before:
                self.address, self.before = other.address, other.before
            else:
                self.after = other.after
        if self.before is not None:
            self.before.after = self
        if self.after is not None:
            self.after.before = self

    def from_here(self) -> Iterator[Block]:
        """This block and those after it in the segment."""
        block: Block | None = self
        while block is not None:
            yield block
            block = block.after


class _Pool:
    """The blocks not in use that serve requests of one kind.

    Attributes:
        free: (size, address, block), sorted: the first that fits is the best fit.
        unmapped: (address, 0, block), sorted.
        page: bytes by which an expandable segment grows.
        smallest_rest: bytes from which on what is left of a block becomes a block.
    """

    def __init__(self, *, page: int, smallest_rest: int) -> None:
        self.page = page
        self.smallest_rest = smallest_rest
        self.free: list[Any] = []
        self.unmapped: list[Any] = []

    def add(self, block: Block) -> None:
        if block.mapped:
            insort(self.free, (block.size, block.address, block))
        else:
            insort(self.unmapped, (block.address, 0, block))

    def remove(self, block: Block) -> None:
        if block.mapped:
            del self.free[bisect_left(self.free, (block.size, block.address))]
        else:
            del self.unmapped[bisect_left(self.unmapped, (block.address, 0))]


_ADDRESS_SPACE = (
    LARGE_SEGMENT << 32
)  # bytes an expandable segment may grow to: more than any device


class CachingAllocator:
    """The allocator's state, event by event.

    With `expandable_segments`, each pool has one segment that grows by pages (2 MiB the small
    pool's, 20 MiB the large one's) at its end, or where pages were given back, and any rest from
    512 bytes on becomes a block. (torch begins a second one beyond 9/8 of the device's memory.)

    Attributes:
        live, allocated, reserved: bytes now; `*_peak`: at the most so far.
        retries: how often all free segments were given back to make room.
    """

    def __init__(self, *, limit: int | None = None, expandable_segments: bool = False) -> None:
        self.live = self.allocated = self.reserved = 0
        self.live_peak = self.allocated_peak = self.reserved_peak = 0
        self.retries = 0
        self._limit = limit
        self._expandable = expandable_segments
        self._blocks: dict[int, Block | None] = {}
        self._next_address = 0
        large_rest = ROUNDING if expandable_segments else LARGEST_SMALL_REQUEST + 1
        self._small = _Pool(page=SMALL_SEGMENT, smallest_rest=ROUNDING)
        self._large = _Pool(page=LARGE_SEGMENT, smallest_rest=large_rest)
        if expandable_segments:
            for index, pool in enumerate((self._small, self._large)):
                pool.add(Block(pool, index * _ADDRESS_SPACE, _ADDRESS_SPACE, mapped=False))

    def allocate(self, storage: int, size: int) -> bool:
        """Hand out a block of at least `size` bytes; False where the device has no room for it.

        Nothing is handed out for 0 bytes.
        """
        if storage in self._blocks:
            raise ValueError(f"storage {storage} is born twice")
        if size <= 0:
            self._blocks[storage] = None
            return True
        needed = rounded(size)
        pool = self._small if needed <= LARGEST_SMALL_REQUEST else self._large
        block = self._best_fit(pool, needed) or self._obtain(pool, needed)
        if block is None:
            self.retries += 1
            self.empty_cache()
            block = self._obtain(pool, needed)
            if block is None:
                return False
        if block.size - needed >= pool.smallest_rest:
            pool.add(block.cut(needed))
        block.in_use = True
        block.requested = size
        self._blocks[storage] = block
        self.live += size
        self.allocated += block.size
        self.live_peak = max(self.live_peak, self.live)
        self.allocated_peak = max(self.allocated_peak, self.allocated)
        return True

    def free(self, storage: int) -> None:
        """The block of `storage` can serve others from now on."""
        if storage not in self._blocks:
            raise ValueError(f"storage {storage} dies unborn")
        block = self._blocks.pop(storage)
        if block is None:
            return
        self.live -= block.requested
        self.allocated -= block.size
        block.in_use = False
        block.unite()
        block.pool.add(block)

    def empty_cache(self) -> None:
        """Give back to the device every segment, or page, without a block in use."""
        for pool in (self._large, self._small):
            for _, _, block in list(pool.free):
                if self._expandable:
                    self._unmap(block)
                elif block.before is None and block.after is None:
                    pool.remove(block)
                    self.reserved -= block.size

    def segments(self) -> list[list[Block]]:
        """The blocks of each segment, in order of address."""
        known = [block for block in self._blocks.values() if block is not None]
        for pool in (self._small, self._large):
            known += [block for _, _, block in pool.free + pool.unmapped]
        first = sorted((b for b in known if b.before is None), key=lambda block: block.address)
        return [list(block.from_here()) for block in first]

    def _best_fit(self, pool: _Pool, size: int) -> Block | None:
        free = pool.free
        index = bisect_left(free, (size, -1))
        if index == len(free):
            return None
        if self._expandable:
            # A block that could grow counts with all it could grow to, which leaves it to the
            # requests that need that.
            while index + 1 < len(free) and _room(free[index + 1][2]) < _room(free[index][2]):
                index += 1
        return free.pop(index)[2]

    def _obtain(self, pool: _Pool, size: int) -> Block | None:
        """A block of at least `size` bytes with new memory; None where there is none."""
        if self._expandable:
            return self._grow(pool, size)
        size = segment_size(size)
        if not self._reserve(size):
            return None
        self._next_address += size
        return Block(pool, self._next_address - size, size)

    def _reserve(self, size: int) -> bool:
        if self._limit is not None and self.reserved + size > self._limit:
            return False
        self.reserved += size
        self.reserved_peak = max(self.reserved_peak, self.reserved)
        return True

    def _grow(self, pool: _Pool, size: int) -> Block | None:
        """Map pages at the lowest address where, with the free blocks there, they give `size`."""
        gaps = (gap for _, _, gap in pool.unmapped)
        begins = (g.before if g.before is not None and not g.before.in_use else g for g in gaps)
        block: Block = next(begin for begin in begins if _stretches(begin, size))
        if not block.mapped and not self._map(block, min(block.size, size)):
            return None
        while block.size < size:
            gap = block.after
            assert gap is not None  # it stretches that far
            if not self._map(gap, min(gap.size, size - block.size)):
                return None
            block = gap  # which has taken in the block before it
        pool.remove(block)
        return block

    def _map(self, gap: Block, size: int) -> bool:
        """Back the first pages of an unmapped block, `size` bytes or more, with memory."""
        size = _up(size, gap.pool.page)
        if not self._reserve(size):
            return False
        gap.pool.remove(gap)
        rest = gap.cut(size) if size < gap.size else None
        gap.mapped = True
        if rest is not None:
            gap.pool.add(rest)
        gap.unite()
        gap.pool.add(gap)
        return True

    def _unmap(self, block: Block) -> None:
        """Give back the pages that lie wholly within a free block."""
        pool = block.pool
        first = _up(block.address, pool.page)
        last = (block.address + block.size) // pool.page * pool.page
        if first >= last:
            return
        pool.remove(block)
        self.reserved -= last - first
        if first > block.address:
            head, block = block, block.cut(first - block.address)
            pool.add(head)
        if last < block.address + block.size:
            pool.add(block.cut(last - block.address))
        block.mapped = False
        block.unite()
        pool.add(block)


def _room(block: Block) -> int:
    """Bytes it could grow to within its expandable segment."""
    after = block.after
    return block.size + (after.size if after is not None and not after.mapped else 0)


def _stretches(block: Block, size: int) -> bool:
    """Whether the blocks not in use from here on have `size` bytes together."""
    free = itertools.takewhile(lambda other: not other.in_use, block.from_here())
    return any(total >= size for total in itertools.accumulate(other.size for other in free))
