"""The distinct n-grams of a corpus with their counts, as sorted arrays: a trie without pointers.

Knows token ids and where sequences begin and end; knows nothing of probabilities.

An n-gram of order n is known by its place in the table of that order. Its key is the place of its
first n - 1 tokens in the table below, times the vocabulary's width, plus its last token: however
large the vocabulary, a key fits 64 bits, and a table sorted by its keys holds the continuations of
one context side by side. Going up an order costs one sort of the corpus, done in parts, so that
what is needed besides the corpus and the tables does not grow with the corpus.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from fitune.errors import DataError
from fitune.language_models import Ids

Keys = npt.NDArray[np.int64]
Places = npt.NDArray[np.int32]

PART = 2**21
"""Positions of the corpus sorted at once, of about 60 bytes each: more would not be faster, and
leave fewer bits free beside a key (`_sorted`)."""

ABSENT = -1
"""The place of an n-gram that is in no table, or would reach over the begin of its sequence."""


@dataclass(frozen=True)
class Table:
    """The distinct n-grams of one order, ascending by key.

    Attributes:
        keys: int64 [n-grams], `context * width + token`; of unigrams the token alone, one row for
            each token of the vocabulary whether it occurs or not, then the end and the begin.
        counts: int32 [n-grams], how often each occurs. The begin's counts sequences; nothing
            predicts it, and n-grams hold it in first place only.
        suffixes: int32 [n-grams], each one's place without its first token in the table below;
            zeros for unigrams.
    """

    keys: Keys
    counts: npt.NDArray[np.int32]
    suffixes: Places


def end_of(vocabulary: int) -> int:
    """The id that ends a sequence."""
    return vocabulary


def begin_of(vocabulary: int) -> int:
    """The id that stands before a sequence."""
    return vocabulary + 1


def width_of(vocabulary: int) -> int:
    """How many ids there are: tokens, the end and the begin."""
    return vocabulary + 2


def lay_out(sequences: Sequence[Ids], vocabulary: int) -> Ids:
    """All sequences in one int32 array, each between its begin and its end.

    Raises:
        DataError: a token id is outside of the vocabulary.
    """
    lengths = np.fromiter((len(one) for one in sequences), np.int64, len(sequences))
    ends = np.cumsum(lengths + 2) - 1
    stream = np.empty(int(lengths.sum()) + 2 * len(sequences), np.int32)
    inner = np.ones(len(stream), bool)
    begins = ends - lengths - 1
    inner[ends] = inner[begins] = False
    if lengths.any():
        stream[inner] = np.concatenate([np.asarray(one, np.int32) for one in sequences])
        low, high = stream[inner].min(), stream[inner].max()
        if low < 0 or high >= vocabulary:
            raise DataError(
                f"there is a token id {low if low < 0 else high} where the vocabulary has "
                f"{vocabulary:,} tokens",
                fix="encode the text with the vocabulary that the model was made for",
            )
    stream[ends], stream[begins] = end_of(vocabulary), begin_of(vocabulary)
    return stream


def count_ngrams(sequences: Sequence[Ids], vocabulary: int, order: int) -> list[Table]:
    """The tables of the orders 1 to `order`.

    Raises:
        DataError: there is no sequence, or a token id is outside of the vocabulary.
    """
    if not len(sequences):
        raise DataError(
            "there is no sequence to count n-grams of", fix="give a text with at least one line"
        )
    stream, width = lay_out(sequences, vocabulary), width_of(vocabulary)
    unigrams = np.bincount(stream, minlength=width).astype(np.int32)
    tables = [Table(np.arange(width, dtype=np.int64), unigrams, np.zeros(width, np.int32))]
    places = stream
    for n in range(2, order + 1):
        table, places = _extended(stream, places, tables[-1], width, last=n == order)
        tables.append(table)
    return tables


def _extended(
    stream: Ids, places: Places, below: Table, width: int, *, last: bool
) -> tuple[Table, Places]:
    """The table one order above, and where each position's n-gram stands in it.

    Args:
        places: [positions], where the n-gram of the order below that ends there stands.
        last: whether no order follows; places are then not filled in.
    """
    above = np.full(0 if last else len(stream), ABSENT, np.int32)
    none = np.zeros(0, np.int32)  # sequences may all be too short
    keys, counts, suffixes = [none.astype(np.int64)], [none], [none]
    done = 0
    for low, high in _ranges(below.counts):
        contexts = places[:-1]
        inside = (contexts >= low) & (contexts < high)
        inside &= stream[1:] != width - 1  # a sequence that begins has nothing to do with the last
        at = np.flatnonzero(inside)
        key, order = _sorted((contexts[at] - low) * np.int64(width) + stream[1:][at])
        at = at[order] + 1
        new = np.empty(len(key), bool)
        new[:1] = True
        np.not_equal(key[1:], key[:-1], out=new[1:])
        starts = np.flatnonzero(new)
        if not last:
            above[at] = (np.cumsum(new) + (done - 1)).astype(np.int32)
        keys.append(key[starts] + low * width)
        counts.append(np.diff(starts, append=len(key)).astype(np.int32))
        suffixes.append(places[at[starts]])
        done += len(starts)
    return Table(np.concatenate(keys), np.concatenate(counts), np.concatenate(suffixes)), above


def _sorted(keys: Keys) -> tuple[Keys, Keys]:
    """The keys in order, and where each came from; equal ones as they stood.

    With their places packed into the bits that keys leave free, plain sorting does it, which is
    several times as fast as `argsort`.
    """
    bits = len(keys).bit_length()
    if len(keys) and int(keys.max()) >= 2 ** (63 - bits):
        order = np.argsort(keys, kind="stable")
        return keys[order], order
    packed = (keys << bits) | np.arange(len(keys))
    packed.sort()
    return packed >> bits, packed & (2**bits - 1)


def _ranges(counts: npt.NDArray[np.int32]) -> Iterator[tuple[int, int]]:
    """Contexts from `low` up to `high`, such that at most about `PART` positions follow them."""
    part = np.cumsum(counts, dtype=np.int64) // PART
    cuts = np.flatnonzero(np.diff(part)) + 1
    edges = [0, *cuts.tolist(), len(counts)]
    return ((low, high) for low, high in pairwise(edges) if low < high)
