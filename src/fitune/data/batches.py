"""The order of rows, and tokens put side by side.

The one owner of order: which rows form which global batch is a function of (seed, epoch) alone, and
where training stands in it is two integers, so resuming is exact. Knows lengths and token ids;
knows nothing of templates, models or losses.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, chain
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

    from fitune.data.template import Encoded


IGNORED = -100
"""In the place of a label: nothing is learned here (as in transformers)."""


SAVES = 0.05
"""Of a micro-batch's tokens: with less, standing apart costs what sharing saves."""


@dataclass(frozen=True)
class Batch:
    """Rows ready for one forward pass: side by side, padded to one length, or laid end to end.

    Attributes:
        input_ids: ``[rows, tokens]`` int64; laid end to end ``[1, tokens]``.
        attention_mask: of the same shape, int64, 1 where there is a token.
        targets: ``[learned]`` int64. Token objectives: the tokens to be written; row objectives:
            the index of each row's label.
        positions: token objectives: ``[learned]`` int64, where in the flattened
            ``[rows * tokens]`` each target is predicted from (the token before it); else None.
            With `answers`: in the flattened ``[rows * answer tokens]``.
        tokens: how many tokens are not padding.
        rows: the rows' indices in the data set.
        answers: for models that read with one half and write with the other: ``[rows, answer
            tokens]`` int64, `IGNORED` where a shorter answer is padded; else None.
        packed: tokens of each row, where they are laid end to end; else empty.
        shared: tokens that rows laid end to end all begin with, which stand before them once;
            `packed` counts each row's own tokens then, and `tokens` those of whole rows.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    targets: torch.Tensor
    positions: torch.Tensor | None
    tokens: int
    rows: tuple[int, ...]
    answers: torch.Tensor | None = None
    packed: tuple[int, ...] = ()
    shared: int = 0

    @property
    def position_ids(self) -> torch.Tensor:
        """Where each token of rows laid end to end stands in its row: ``[1, tokens]`` int64."""
        import torch

        lengths = torch.tensor(self.packed)
        starts = (lengths.cumsum(0) - lengths).repeat_interleave(
            lengths, output_size=sum(self.packed)
        )
        own = self.shared + torch.arange(len(starts)) - starts
        return torch.cat([torch.arange(self.shared), own])[None].to(self.input_ids.device)

    @property
    def learned(self) -> int:
        """How many targets there are: the weight of this batch in a mean over tokens or rows."""
        return self.targets.shape[0]

    @property
    def counted(self) -> int:
        """Tokens as `micro_batches` counts them: of whole rows, padding included."""
        return self.tokens if self.packed else self.input_ids.numel()

    def to(self, device: str) -> Batch:
        return replace(
            self,
            input_ids=self.input_ids.to(device, non_blocking=True),
            attention_mask=self.attention_mask.to(device, non_blocking=True),
            targets=self.targets.to(device, non_blocking=True),
            positions=None
            if self.positions is None
            else self.positions.to(device, non_blocking=True),
            answers=None if self.answers is None else self.answers.to(device, non_blocking=True),
        )


@dataclass(frozen=True)
class Order:
    """The order in which an epoch visits its rows.

    Rows of similar length meet in one batch (less padding) without the batches' order becoming one
    of length: rows are shuffled, cut into pools of `POOL` batches, sorted inside each pool, cut
    into batches, and the batches are shuffled again.

    Args:
        lengths: tokens of each row.
        batch_size: rows per global batch; an epoch's last batch may be smaller.
        seed: the order is a function of (seed, epoch).
    """

    lengths: tuple[int, ...]
    batch_size: int
    seed: int

    POOL = 32

    def __len__(self) -> int:
        """Batches per epoch."""
        return math.ceil(len(self.lengths) / self.batch_size)

    def epoch(self, epoch: int) -> list[list[int]]:
        """Row indices of each global batch of an epoch; every row is in exactly one."""
        random = np.random.default_rng([self.seed, epoch])
        shuffled = random.permutation(len(self.lengths))
        lengths = np.asarray(self.lengths)
        batches: list[list[int]] = []
        pool = self.batch_size * self.POOL
        for start in range(0, len(shuffled), pool):
            part = shuffled[start : start + pool]
            part = part[np.argsort(lengths[part], kind="stable")]
            batches += [
                part[i : i + self.batch_size].tolist() for i in range(0, len(part), self.batch_size)
            ]
        return [batches[i] for i in random.permutation(len(batches))]


def micro_batches(
    rows: Sequence[int], lengths: Sequence[int], max_tokens: int, *, packed: bool = False
) -> list[tuple[int, ...]]:
    """Cut a global batch into parts of at most `max_tokens` tokens.

    Rows are sorted by length first, so that a part holds little padding. A row longer than
    `max_tokens` forms a part of its own.

    Args:
        packed: rows are laid end to end; else padding counts, too.
    """
    parts: list[tuple[int, ...]] = []
    part: list[int] = []
    for row in sorted(rows, key=lambda row: lengths[row]):
        together = sum(lengths[r] for r in part) if packed else len(part) * lengths[row]
        if part and together + lengths[row] > max_tokens:
            parts.append(tuple(part))
            part = []
        part.append(row)
    return [*parts, tuple(part)] if part else parts


def token_batch(
    items: Sequence[Encoded],
    rows: Sequence[int],
    pad: int,
    *,
    packed: bool = False,
    shared: bool = False,
) -> Batch:
    """Rows for an objective over tokens: the targets are the learned tokens.

    Args:
        packed: rows are laid end to end.
        shared: what packed rows all begin with, an instruction say, stands before them once, where
            that saves enough.
    """
    import torch

    tokens = [item.tokens for item in items]
    common = shared_tokens(items) if packed and shared else 0
    own = [row[common:] for row in tokens]
    input_ids, mask = _lay_out([tokens[0][:common], *own] if common else tokens, pad, packed)
    if packed:  # each row begins where it would if its shared tokens stood before its own
        starts = [0, *accumulate(map(len, own))]
    else:
        starts = [i * input_ids.shape[1] for i in range(len(items))]
    pairs = [
        (starts[i] + at - 1, item.tokens[at])
        for i, item in enumerate(items)
        for at, learned in enumerate(item.learned)
        if learned and at > 0
    ]
    positions, targets = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).unbind(1)
    return Batch(
        input_ids,
        mask,
        targets,
        positions,
        sum(map(len, items)),
        tuple(rows),
        packed=tuple(map(len, own)) if packed else (),
        shared=common,
    )


def shared_tokens(items: Sequence[Encoded]) -> int:
    """How many tokens all rows begin with and nobody learns or predicts from: of a row's own at
    least one remains, the one before its first answer. 0 where that saves too little."""
    least = min(
        next((at for at, learned in enumerate(item.learned) if learned and at), len(item)) - 1
        for item in items
    )
    first, last = min(item.tokens for item in items), max(item.tokens for item in items)
    common = next((at for at in range(least) if first[at] != last[at]), max(0, least))
    return common if shares(common, [len(item) for item in items]) else 0


def always_shared(items: Sequence[Encoded]) -> int:
    """How many tokens any two of these rows, or more, are sure to have once."""
    common, longest = shared_tokens(items), max(map(len, items))
    return common if shares(common, (longest, longest)) else 0


def shares(common: int, lengths: Sequence[int]) -> bool:
    """Whether rows of these lengths, which begin with the same `common` tokens, have them once."""
    return (len(lengths) - 1) * common >= max(1, SAVES * sum(lengths))


def answer_batch(
    items: Sequence[Encoded], answers: Sequence[Sequence[int]], rows: Sequence[int], pad: int
) -> Batch:
    """Rows for a model that reads an input and writes an answer: the targets are the answers."""
    input_ids, mask = _pad([item.tokens for item in items], pad)
    labels, _ = _pad(answers, IGNORED)
    positions = (labels.flatten() != IGNORED).nonzero().flatten()
    targets = labels.flatten()[positions]
    tokens = int(mask.sum()) + len(targets)
    return Batch(input_ids, mask, targets, positions, tokens, tuple(rows), labels)


def label_batch(
    items: Sequence[Encoded],
    labels: Sequence[int],
    rows: Sequence[int],
    pad: int,
    *,
    packed: bool = False,
) -> Batch:
    """Rows for an objective over rows: the target is the label's index."""
    import torch

    input_ids, mask = _lay_out([item.tokens for item in items], pad, packed)
    return Batch(
        input_ids,
        mask,
        torch.tensor(labels, dtype=torch.int64),
        None,
        int(mask.sum()),
        tuple(rows),
        packed=tuple(map(len, items)) if packed else (),
    )


def _lay_out(
    tokens: Sequence[Sequence[int]], pad: int, packed: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    return _pad([[*chain(*tokens)]] if packed else tokens, pad)


def _pad(tokens: Sequence[Sequence[int]], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    import torch

    width = max(len(row) for row in tokens)
    input_ids = torch.full((len(tokens), width), pad, dtype=torch.int64)
    mask = torch.zeros((len(tokens), width), dtype=torch.int64)
    for i, row in enumerate(tokens):
        input_ids[i, : len(row)] = torch.tensor(row, dtype=torch.int64)
        mask[i, : len(row)] = 1
    return input_ids, mask
