"""The largest micro-batch that fits.

Knows estimates and budgets; knows nothing of a running machine. The bytes of each operation are
linear in the number of rows, so the peak is the highest of many straight lines: it lies above what
two estimates promise and below the chord between any two numbers of rows. Both narrow the search.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from fitune.memory.estimate import Estimate, estimate_training
from fitune.memory.options import Training
from fitune.models.architecture import Architecture
from fitune.models.pooling import Pooling

WORKING_SET_TOKENS = 4096
"""More tokens at once bring a CPU no speed once its matrix units are full, only memory."""

MOST_ROWS = 1 << 16
"""Where nothing else ends the search."""


@dataclass(frozen=True)
class LargestBatch:
    """How many rows fit.

    Attributes:
        rows: 0 where not even one fits.
        peak_bytes: with so many rows, or with one where none fits.
    """

    rows: int
    peak_bytes: int


def largest_batch(
    config: Any,
    training: Training,
    budget: int,
    *,
    pooling: Pooling | None = None,
    most: int = MOST_ROWS,
) -> LargestBatch:
    """The most rows of `training.seq` tokens whose step needs at most `budget` bytes of tensors.

    Args:
        training: its `batch` does not count.
        most: rows beyond which nobody asks.
    """

    def estimate(rows: int) -> Estimate:
        return estimate_training(config, replace(training, batch=rows), pooling=pooling)

    known: dict[int, int] = {}

    def peak(rows: int) -> int:
        if rows not in known:
            known[rows] = estimate(rows).peak_bytes
        return known[rows]

    # One row alone is no measure: kernels spare it copies that two rows need.
    two = estimate(2) if most > 1 else None
    if two is None or two.peak_bytes > budget:
        return LargestBatch(int(peak(1) <= budget), peak(1))
    three = estimate(3)
    known |= {2: two.peak_bytes, 3: three.peak_bytes}
    bound = min(most, _bound(_by_place(two), _by_place(three), budget))
    if peak(bound) <= budget:
        return LargestBatch(bound, peak(bound))
    fits, too_many = 2, bound
    while too_many - fits > 1:
        share = (budget - peak(fits)) / (peak(too_many) - peak(fits))
        below = fits + math.floor((too_many - fits) * share)  # fits: it is below the chord
        if peak(tried := min(too_many - 1, below + 1)) <= budget:
            fits = tried
        else:
            fits, too_many = max(fits, below), tried
    return LargestBatch(fits, peak(fits))


def _by_place(estimate: Estimate) -> dict[tuple[int, str, str], int]:
    return {(m.step, m.phase, m.place): m.bytes for m in estimate.timeline}


def _bound(two: dict[Any, int], three: dict[Any, int], budget: int) -> int:
    """No more rows than these can fit, by the lines through each place's bytes."""
    rows = float(MOST_ROWS)
    for place in two.keys() & three.keys():
        each = three[place] - two[place]
        if each > 0:
            rows = min(rows, 2 + (budget - two[place]) / each)
    return math.floor(rows)


def micro_batch_tokens(
    config: Any,
    training: Training,
    lengths: Sequence[int],
    budget: int,
    *,
    architecture: Architecture,
    pooling: Pooling | None = None,
) -> int:
    """The most tokens, padding included, for one micro-batch of rows of these lengths.

    Decided by the two ends of what a micro-batch can hold: few of the longest rows, and as many of
    the shortest as there are tokens for. Never less than the longest row, which cannot be cut.
    Nothing is traced where a rough bound says that there is plenty.

    Args:
        training: its `batch` is the most rows of a micro-batch; its `seq` does not count.
        lengths: tokens of each row, of both answers together if it is a pair.
        budget: bytes of tensors.
        architecture: what `config` describes.
    """
    longest, shortest, each = max(lengths), min(lengths), training.sequences
    wanted = max(longest, min(WORKING_SET_TOKENS, longest * training.batch))
    if rough_bytes(architecture, wanted, longest) <= budget:
        return wanted
    most = max(1, min(training.batch, WORKING_SET_TOKENS // longest))
    few = largest_batch(
        config, replace(training, seq=longest // each), budget, pooling=pooling, most=most
    )
    tokens = longest * max(1, few.rows)
    if few.rows == most:  # memory is no limit here; whole rows need not fill the working set
        tokens = wanted
    many = min(training.batch, tokens // shortest)
    if shortest == longest or many <= few.rows:
        return tokens
    fitting = largest_batch(
        config, replace(training, seq=shortest // each), budget, pooling=pooling, most=many
    )
    return max(longest, min(tokens, shortest * fitting.rows)) if fitting.rows < many else tokens


def rough_bytes(architecture: Architecture, tokens: int, longest: int) -> int:
    """More bytes than any step needs.

    Per value: 16 bytes of fp32 weight, gradient and two states, and 4 more for what an update holds
    beside them. Per token and layer: 34 bytes per hidden value in 16 bit (Korthikanti et al.,
    arXiv:2205.05198, equation 1, without its attention scores), doubled for fp32 and doubled again;
    three fp32 copies of its attention scores, at 32 hidden values a head. Per token: five fp32
    copies of the logits.
    """
    hidden, layers = architecture.hidden, architecture.layers
    scores = 12 * hidden // 32 * longest
    per_token = layers * (4 * 34 * hidden + scores) + 20 * architecture.vocabulary
    return 20 * architecture.parameters + tokens * per_token
