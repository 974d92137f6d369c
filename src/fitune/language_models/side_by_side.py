"""Sequences laid side by side by time, so that one step of a recursion serves all of them.

Knows token ids and lengths; knows nothing of models. Sequences stand longest first: those that
still go on at a time are then always the first ones, and nothing is padded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fitune.errors import DataError
from fitune.language_models import Floats, Ids

Places = npt.NDArray[np.intp]


@dataclass(frozen=True)
class SideBySide:
    """Tokens by time: the first of every sequence, then the second of every one that has it, ….

    Attributes:
        order: int [sequences], which sequence stands at each place, longest first.
        lengths: int [sequences] in that order, ends included.
        active: int [longest], how many sequences have a token at each time.
        tokens: int32 [tokens], ends included.
        previous: int [tokens - sequences], where the token before each stands, for those from the
            second time on.
        home: int [tokens], where each token of the sequences in `order`, end to end, stands.
    """

    order: Places
    lengths: Places
    active: Places
    tokens: Ids
    previous: Places
    home: Places

    @classmethod
    def of(cls, sequences: Sequence[Ids], vocabulary: int) -> SideBySide:
        """Lay out `sequences`, each followed by its end, whose id is `vocabulary`.

        Raises:
            DataError: a token id is outside of the vocabulary.
        """
        lengths = np.array([len(one) + 1 for one in sequences], np.intp)
        order = np.argsort(-lengths, kind="stable")
        lengths = lengths[order]
        active = np.bincount(lengths - 1)[::-1].cumsum()[::-1]
        offsets = np.cumsum(active) - active
        ends = np.cumsum(lengths)
        times = np.arange(ends[-1]) - np.repeat(ends - lengths, lengths)
        places = np.repeat(np.arange(len(lengths)), lengths)
        home = offsets[times] + places
        flat = np.full(ends[-1], vocabulary, np.int32)
        inner = np.ones(len(flat), bool)
        inner[ends - 1] = False
        flat[inner] = np.concatenate([np.asarray(sequences[i], np.int32) for i in order])
        if flat.min() < 0 or flat.max() > vocabulary or (flat[inner] == vocabulary).any():
            wrong = flat.min() if flat.min() < 0 else flat.max()
            raise DataError(
                f"there is a token id {wrong} where the vocabulary has {vocabulary:,} tokens",
                fix="encode the text with the vocabulary that the model was made for",
            )
        tokens = np.empty_like(flat)
        tokens[home] = flat
        previous = np.empty(len(flat), np.intp)
        previous[home[1:]] = home[:-1]
        return cls(order, lengths, active, tokens, previous[active[0] :], home)

    def steps(self) -> Iterator[tuple[int, int, int | None]]:
        """For each time, where its tokens begin and end, and where those of the time before
        begin (None at the first), of which the first ones go on."""
        first, before = 0, None
        for active in self.active.tolist():
            yield first, first + active, before
            first, before = first + active, first

    def apart(self, values: Floats) -> list[Floats]:
        """[tokens] by time → one array for each sequence, in `order`."""
        return np.split(values[self.home], np.cumsum(self.lengths)[:-1])

    def by_token(self, values: Floats, width: int) -> Floats:
        """[tokens, n] → [width, n]: the sum over the places of each token id."""
        from scipy.sparse import csr_array

        size = len(self.tokens)
        ones = csr_array((np.ones(size), (self.tokens, np.arange(size))), shape=(width, size))
        total: Floats = ones @ values
        return total
