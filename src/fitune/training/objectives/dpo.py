"""Of two answers, the preferred one: made likelier than the other, measured from a reference.

Knows causal language models and pairs of answers; knows nothing of where the reference came from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch.nn import functional

from fitune.data.batches import Batch, token_batch
from fitune.data.template import Encoded
from fitune.training.objectives.likelihood import log_probs


@dataclass(frozen=True)
class EncodedPair:
    """A prompt with its preferred answer, and with the other one.

    Attributes:
        cut: how many tokens were cut off the prompt to fit.
    """

    chosen: Encoded
    rejected: Encoded
    cut: int = 0

    def __len__(self) -> int:
        """Tokens of the longer one."""
        return max(len(self.chosen), len(self.rejected))

    @property
    def batch_tokens(self) -> int:
        """Of both, the shorter one padded."""
        return 2 * len(self)

    @property
    def learned(self) -> tuple[bool, ...]:
        """Of the one with the longer answer."""
        return max(self.chosen.learned, self.rejected.learned, key=sum)


@dataclass(frozen=True)
class PairBatch(Batch):
    """Pairs for one forward pass: the rows with chosen answers, then those with rejected ones.

    Attributes:
        counts: learned tokens of each row.
        reference: ``[pairs, 2]`` float32, the reference's log-probability of the chosen and of the
            rejected answers; None where it is still to be computed.
    """

    counts: tuple[int, ...] = ()
    reference: torch.Tensor | None = None

    @property
    def learned(self) -> int:
        """How many pairs."""
        return len(self.rows)

    def to(self, device: str) -> PairBatch:
        moved = super().to(device)
        assert isinstance(moved, PairBatch)
        reference = None if self.reference is None else self.reference.to(device)
        return replace(moved, reference=reference)


def pair_batch(batch: Batch, counts: Sequence[int], reference: torch.Tensor | None) -> PairBatch:
    """A batch of rows with chosen answers, then as many with rejected ones, as pairs.

    Args:
        batch: the indices of its first rows are those of the pairs.
        counts: learned tokens of each row.
    """
    plain = {field.name: getattr(batch, field.name) for field in fields(batch)}
    plain["rows"] = batch.rows[: len(counts) // 2]
    return PairBatch(**plain, counts=tuple(counts), reference=reference)


class Dpo:
    """Direct preference optimization (Rafailov et al., arXiv:2305.18290, equation 7).

    With the margin ``h = beta * ((log p(chosen) - log r(chosen)) - (log p(rejected) - log
    r(rejected)))`` of a model p from its reference r, the loss of a pair is ``-log sigmoid(h)``.
    With label smoothing e it is ``-(1 - e) log sigmoid(h) - e log sigmoid(-h)``: a share e of the
    pairs is taken to be labelled the wrong way round (conservative DPO; Mitchell 2023, "A note on
    DPO with noisy preferences").

    Args:
        pairs: encoded rows.
        beta: how much leaving the reference costs.
        reference: ``[pairs, 2]`` float32, as `PairBatch` has it; None where it is still to be
            computed.
        packed, shared: as for `Sft`.
    """

    def __init__(
        self,
        pairs: Sequence[EncodedPair],
        *,
        pad: int,
        beta: float,
        label_smoothing: float = 0.0,
        reference: torch.Tensor | None = None,
        packed: bool = False,
        shared: bool = False,
    ) -> None:
        self.pairs, self.pad, self.beta = pairs, pad, beta
        self.packed, self.shared = packed, shared
        self.label_smoothing, self.reference = label_smoothing, reference

    def batch(self, rows: Sequence[int]) -> PairBatch:
        pairs = [self.pairs[i] for i in rows]
        items = [*(pair.chosen for pair in pairs), *(pair.rejected for pair in pairs)]
        plain = token_batch(
            items, range(len(items)), self.pad, packed=self.packed, shared=self.shared
        )
        counts = [sum(item.learned[1:]) for item in items]  # nothing comes before the first token
        reference = None if self.reference is None else self.reference[list(rows)]
        return pair_batch(replace(plain, rows=tuple(rows)), counts, reference)

    def loss_sum(self, model: Any, batch: Batch) -> torch.Tensor:
        """`model` is a causal language model of transformers; `batch` is of this objective."""
        assert isinstance(batch, PairBatch)
        return self.losses(self.margins(model, batch)).sum()

    def losses(self, margins: torch.Tensor) -> torch.Tensor:
        """The loss of each pair, ``[pairs]``, from its margin."""
        right = -functional.logsigmoid(margins)
        if not self.label_smoothing:
            return right
        wrong = -functional.logsigmoid(-margins)
        return right.lerp(wrong, self.label_smoothing)

    def margins(self, model: Any, batch: PairBatch) -> torch.Tensor:
        """``[pairs]`` float32: by how much the implicit reward of the chosen answer, ``beta *
        (log p - log r)`` (section 4), is above that of the rejected one."""
        assert batch.reference is not None
        rewards = self.beta * (pair_log_probs(model, batch) - batch.reference)
        return rewards[:, 0] - rewards[:, 1]


def pair_log_probs(model: Any, batch: PairBatch) -> torch.Tensor:
    """``[pairs, 2]`` float32: the log-probability of the chosen and of the rejected answers."""
    return log_probs(model, batch, batch.counts, use_cache=False).view(2, -1).T
