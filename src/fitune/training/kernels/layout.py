"""Rows laid end to end in one sequence, and where each row's heads are found.

Knows lengths; knows nothing of values. What all rows begin with may stand before them once: a row
reads it, and then itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import torch

WASTE = 1.25
"""Rows are computed together while padding them to the longest takes at most this much more."""

REGISTER = 64
"""Bytes: AVX-512's; half of it is twice AVX2's."""


@dataclass(frozen=True)
class Group:
    """Neighbouring rows of about the same length, which are computed together.

    Attributes:
        start: the token at which the first begins.
        lengths: tokens of each row.
        shared: how many tokens at the beginning of the whole sequence each row reads before its
            own.
    """

    start: int
    lengths: tuple[int, ...]
    shared: int = 0

    @property
    def rows(self) -> int:
        return len(self.lengths)

    @cached_property
    def tokens(self) -> int:
        return sum(self.lengths)

    @cached_property
    def longest(self) -> int:
        return max(self.lengths)

    @property
    def reach(self) -> int:
        """Tokens that the last token of the longest row reads."""
        return self.shared + self.longest

    def keys(self, dtype: torch.dtype) -> int:
        """Tokens that keys and values are padded to: a softmax over them takes whole vector
        registers then. Over 60 bf16 values torch's takes three times as long as over 64."""
        step = REGISTER // dtype.itemsize
        return -(-self.reach // step) * step

    def ragged(self, padded: int) -> bool:
        """Whether there is padding where each row takes `padded` tokens."""
        return self.tokens < self.rows * padded


@dataclass(frozen=True)
class Places:
    """Which vectors go where, between ``[tokens, heads]`` and a group's padded
    ``[rows, heads, padded]``.

    Attributes:
        gather: ``[rows * heads * padded]`` int64: the vector of all ``tokens * heads`` that goes
            there; padding repeats a row's last.
        scatter: ``[group's tokens * heads]`` int64: the way back, of the rows' own tokens.
    """

    gather: torch.Tensor
    scatter: torch.Tensor


class Layout:
    """Of one micro-batch; what all layers ask for alike is made once.

    Args:
        lengths: tokens of each row, in order; sorted ones make few groups.
        shared: tokens before them that each reads first. They are the first group, a row that
            reads only itself.
    """

    def __init__(self, lengths: Sequence[int], device: torch.device, *, shared: int = 0) -> None:
        self.lengths, self.shared, self.device = tuple(lengths), shared, device
        first = (Group(0, (shared,)),) if shared else ()
        self.groups = (*first, *_groups(self.lengths, shared))
        self._places: dict[tuple[Group, int, int, int], Places] = {}
        self._masks: dict[tuple[object, ...], torch.Tensor] = {}

    def places(self, group: Group, heads: int, padded: int, *, before: int = 0) -> Places:
        """
        Args:
            before: how many of the `padded` are the tokens that all rows share.
        """
        key = (group, heads, padded, before)
        if key not in self._places:
            self._places[key] = _places(group, heads, padded, before, self.device)
        return self._places[key]

    def mask(
        self, group: Group, *, causal: bool, window: int | None, dtype: torch.dtype
    ) -> torch.Tensor:
        """What is added to scores: 0 where a token may be read, -inf where not.

        Args:
            window: tokens further away than this are not read; the token itself counts.

        Returns:
            ``[1 or rows, 1 or longest, keys]``.
        """
        if window is not None and window >= group.reach:
            window = None
        key = (group, causal, window, dtype)
        if key not in self._masks:
            self._masks[key] = _mask(group, causal, window, dtype, self.device)
        return self._masks[key]


def _groups(lengths: Sequence[int], shared: int) -> Iterator[Group]:
    start, longest, tokens = shared, 0, 0
    members: list[int] = []
    for length in lengths:
        longest, tokens = max(longest, length), tokens + length
        if members and (len(members) + 1) * longest > WASTE * tokens:
            yield Group(start, tuple(members), shared)
            start += tokens - length
            members, longest, tokens = [], length, length
        members.append(length)
    if members:
        yield Group(start, tuple(members), shared)


def _places(group: Group, heads: int, padded: int, before: int, device: torch.device) -> Places:
    lengths = torch.tensor(group.lengths, device=device)
    starts = torch.tensor([0, *accumulate(group.lengths)][:-1], device=device)
    steps = torch.arange(padded - before, device=device)
    head = torch.arange(heads, device=device)
    tokens = group.start + starts[:, None] + torch.minimum(steps[None], lengths[:, None] - 1)
    if before:
        shared = torch.arange(before, device=device).expand(group.rows, before)
        tokens = torch.cat([shared, tokens], dim=1)
    gather = tokens[:, None, :] * heads + head[None, :, None]
    rows = torch.arange(group.rows, device=device)
    row = torch.repeat_interleave(rows, lengths, output_size=group.tokens)
    position = before + torch.arange(group.tokens, device=device) - starts[row]
    scatter = (row[:, None] * heads + head[None]) * padded + position[:, None]
    return Places(gather.flatten(), scatter.flatten())


def _mask(
    group: Group, causal: bool, window: int | None, dtype: torch.dtype, device: torch.device
) -> torch.Tensor:
    steps = torch.arange(group.keys(dtype), device=device)
    # from the token that reads to the one that is read
    distance = steps[group.shared : group.reach, None] - steps[None, :]
    readable = torch.ones((1, 1, len(steps)), dtype=torch.bool, device=device)
    if causal:
        readable = readable & (distance >= 0)[None]  # padding comes after all that is real
    elif group.ragged(len(steps)):
        lengths = torch.tensor(group.lengths, device=device)
        readable = (steps[None] < lengths[:, None])[:, None, :]
    if window is not None:
        readable = readable & (distance.abs() < window)[None]
        # Padding may find nothing else within reach, and the softmax of nothing is not a number.
        readable = readable | (distance == 0)[None]
    mask = torch.zeros(readable.shape, dtype=dtype, device=device)
    return mask.masked_fill_(~readable, float("-inf"))
